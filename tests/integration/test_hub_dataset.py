"""A dataset in the hub's layout, read by the real `datasets` library: from a folder, and from a double of the hub.

Each reading is a process of its own: the library takes its folders and its endpoint when it is imported.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mlflow_llamaduo.coverage.formats import each_file_row
from mlflow_llamaduo.coverage.source import collect
from tests.http_double import Listening, QuietHandler

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CATEGORIES = ("Closed QA", "Summarize", "Classify", "Coding", "Chat")
TRAIN, TEST = "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"

READ = """
import dataclasses, json, sys
from mlflow_llamaduo.coverage.hub import hub_rows
from mlflow_llamaduo.coverage.source import collect
from mlflow_llamaduo.errors import DataError

for name, how, categories in json.loads(sys.argv[1]):
    try:
        found = collect(hub_rows(name, **how), source="test", categories=categories)
    except DataError as error:
        print(json.dumps({"error": str(error), "cause": type(error.__cause__).__name__}))
    else:
        rows = [pair.row() for pair in found.pairs]
        bad = [dataclasses.astuple(bad) for bad in found.rejected]
        print(json.dumps({"rows": rows, "rejected": bad, "report": dataclasses.asdict(found.report)}))
"""


def readings(*asked: tuple[Any, dict[str, str], list[str]], home: Path, **environment: str) -> list[dict[str, Any]]:
    """What each of some datasets gives, all read in one process."""
    texts = json.dumps([(str(name), how, categories) for name, how, categories in asked])
    known = {"HF_HOME": str(home), "HF_DATASETS_CACHE": str(home / "datasets"), "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", READ, texts],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), **known},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def row(part: str, number: int) -> dict[str, Any]:
    """A row with the columns of No Robots."""
    asked, category = f"{part} question {number}", CATEGORIES[number % len(CATEGORIES)]
    turns = [{"content": asked, "role": "user"}, {"content": f"answer {number}", "role": "assistant"}]
    digest = hashlib.sha256(asked.encode()).hexdigest()
    return {"prompt": asked, "prompt_id": digest, "messages": turns, "category": category}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "no_robots"
    (folder / "data").mkdir(parents=True)
    for name, part, count in ((TRAIN, "train", 20), (TEST, "test", 5)):
        rows = [row(part, number) for number in range(count)]
        rows[1]["messages"][1]["content"] = " "
        parquet.write_table(pa.Table.from_pylist(rows), folder / name)
    return folder


def instructions(reading: dict[str, Any]) -> list[str]:
    return [row["messages"][0]["content"] for row in reading["rows"]]


def test_a_folder_in_the_layout_of_the_hub_gives_its_train_rows(folder: Path, tmp_path: Path) -> None:
    train, test, bad_split, bad_config = readings(
        (folder, {}, ["closed_qa"]),
        (folder, {"split": "test"}, []),
        (folder, {"split": "tset"}, []),
        (folder, {"config": "other"}, []),
        home=tmp_path,
    )

    assert instructions(train) == [f"train question {number}" for number in (0, 5, 10, 15)]
    assert {row["category"] for row in train["rows"]} == {"closed_qa"}
    assert train["report"]["rejected"] == {"other_category": 15, "no_answer": 1}
    assert [f"{folder} train row 2", "no_answer"] in [bad[:2] for bad in train["rejected"]]
    assert instructions(test) == [f"test question {number}" for number in (0, 2, 3, 4)]
    assert "Unknown split" in bad_split["error"]
    assert "'other' not found" in bad_config["error"]


def test_the_hub_and_a_file_give_the_same_pairs_and_the_same_report(folder: Path, tmp_path: Path) -> None:
    (reading,) = readings((folder, {}, []), home=tmp_path)
    found = collect(each_file_row(folder / TRAIN), source="test")

    assert reading["rows"] == [pair.row() for pair in found.pairs]
    assert reading["report"]["rejected"] == found.report.rejected
    assert reading["report"]["shapes"] == found.report.shapes == {"messages": 19}


def test_without_a_train_split_all_splits_are_read(folder: Path, tmp_path: Path) -> None:
    (folder / TRAIN).rename(folder / TRAIN.replace("train", "validation"))
    (reading,) = readings((folder, {}, []), home=tmp_path)

    assert reading["report"]["rows"] == 25
    assert {where.split(" ")[1] for where, *_ in reading["rejected"]} == {"test", "validation"}


def test_a_category_kept_as_a_number_has_its_name_and_a_broken_image_hurts_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "labelled"
    (folder / "data").mkdir(parents=True)
    images = pa.array([{"bytes": b"no image", "path": None}] * 2)
    table = pa.table({"prompt": ["q1", "q2"], "completion": ["a", "a"], "category": [1, 0], "image": images})
    features = {
        "prompt": {"dtype": "string", "_type": "Value"},
        "completion": {"dtype": "string", "_type": "Value"},
        "category": {"names": ["Chat", "Closed QA"], "_type": "ClassLabel"},
        "image": {"_type": "Image"},
    }
    about = json.dumps({"info": {"features": features}})
    parquet.write_table(table.replace_schema_metadata({"huggingface": about}), folder / TRAIN)
    (reading,) = readings((folder, {}, []), home=tmp_path)

    assert [row["category"] for row in reading["rows"]] == ["Closed QA", "Chat"]


def test_a_name_that_is_no_dataset_is_told(tmp_path: Path) -> None:
    names = ("", "json", "nowhere/at/all")

    for name, reading in zip(names, readings(*((name, {}, []) for name in names), home=tmp_path), strict=True):
        assert name in reading["error"]
        assert "owner/name" in reading["error"] or "check its name" in reading["error"]


class Hub(Listening):
    """`/api/datasets/...` and `/datasets/.../resolve/...`, as much of them as `load_dataset` asks for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                kind, _, name = self.path.split("?")[0].partition("/team/rows")
                _, _, name = name.partition(f"/{COMMIT}/" if COMMIT in name else "/main/")
                if kind == "/datasets" and name in files:
                    self._send(files[name], etag=f'"{_etag(files[name])}"')
                elif kind == "/datasets":
                    self._send(b"", 404, x_error_code="EntryNotFound")
                elif "/tree/" in self.path:
                    entries = [_entry(file, data) for file, data in files.items()]
                    entries.append({"type": "directory", "path": "data", "size": 0, "oid": COMMIT})
                    self._send(json.dumps([entry for entry in entries if entry["path"].startswith(name)]).encode())
                elif kind == "/api/datasets" and "/revision/" in self.path:
                    about = {"id": "team/rows", "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
                    self._send(json.dumps(about).encode())
                else:
                    self._send(b"{}", 404, x_error_code="RepoNotFound")

            do_HEAD = do_GET

            def _send(self, data: bytes, status: int = 200, **headers: str) -> None:
                self.reply(data, status, x_repo_commit=COMMIT, **headers)

        super().__init__(Handler)


def _etag(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _entry(name: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    hub = Hub({"README.md": b"# Rows\n", TRAIN: (folder / TRAIN).read_bytes()})
    yield hub
    hub.close()


def test_a_dataset_comes_from_the_hub_and_then_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    first, absent = readings(
        ("team/rows", {}, ["Coding"]),
        ("team/absent", {}, []),
        home=tmp_path,
        HF_HUB_OFFLINE="0",
        HF_ENDPOINT=hub.url,
    )
    assert instructions(first) == [f"train question {number}" for number in (3, 8, 13, 18)]
    assert first["rejected"][0][0] == "team/rows train row 1"
    assert absent["error"].startswith("dataset team/absent could not be read (")
    assert "check its name" in absent["error"]
    assert "HF_TOKEN" in absent["error"]
    assert absent["cause"] == "DatasetNotFoundError"

    hub.asked.clear()
    (again,) = readings(("team/rows", {}, ["Coding"]), home=tmp_path, HF_ENDPOINT=hub.url)
    assert again == first
    assert hub.asked == []


def test_a_hub_that_is_out_of_reach_is_told_with_what_may_help(tmp_path: Path) -> None:
    (reading,) = readings(("team/rows", {}, []), home=tmp_path)

    assert "team/rows could not be read (ConnectionError: Couldn't reach" in reading["error"]
    assert "the network" in reading["error"]
