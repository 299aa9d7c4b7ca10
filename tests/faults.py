"""Whole alignments of a tiny model, for tests that kill something in them: `llamaduo run` as a user types it.

Every workspace has the same data and configuration, so that what comes of them can be held side by side. Whatever is
killed is a process that the test has started, or a child of one.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from mlflow import MlflowClient

from tests.tiny import tiny_pairs

ROOT = Path(__file__).parents[1]
TASK, MODEL = "closed_qa", "llamaduo-closed_qa"
PATIENCE_S = 600
"""How long a test waits for what must come: a busy machine is no fault."""


@dataclass(frozen=True)
class Outcome:
    """What an alignment came to, as far as two that saw the same data must agree.

    `adapters` are digests, `versions` those of the adapters that are registered, one for each version.
    """

    adapters: frozenset[str]
    rounds: tuple[dict[str, Any], ...]
    replies: frozenset[str]
    versions: tuple[str, ...]
    parents: tuple[str, ...]
    nested: tuple[str, ...]
    traces: tuple[int, ...]


@dataclass
class Workspace:
    """A folder with a small project in it; `store` is MLflow's, `environment` what the processes get beside ours."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    store: str = ""
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self) -> "subprocess.Popen[bytes]":
        """`llamaduo run`, which writes what it says to `said`."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "RAY_", "LLAMADUO_"))}
        kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
        with (self.folder / "said.log").open("ab") as log:
            process = subprocess.Popen(
                ["llamaduo", "run"],
                cwd=self.folder,
                env={**kept, "OMP_NUM_THREADS": "1", **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    @property
    def said(self) -> str:
        """What all runs in this folder have said."""
        log = self.folder / "said.log"
        return log.read_text() if log.is_file() else ""

    def until(self, seen: Callable[[], Any], process: "subprocess.Popen[bytes]") -> Any:
        """Wait until `seen` gives something while the process works, and return that."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := seen()):
            assert process.poll() is None, f"it ended with {process.returncode}: {self.said}"
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)
        return found

    def ended(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait for the end of a run, which must be a good one."""
        assert process.wait(timeout=PATIENCE_S) == 0, self.said
        assert "stopped: rounds" in self.said
        assert not list(self._checkpoints()), "checkpoints of a finished alignment were left"

    def close(self) -> None:
        """End whatever is left of what was started here."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    @property
    def trained(self) -> int:
        """Finished fine-tunings."""
        return len(self._files("finetune"))

    def trains(self, number: int) -> bool:
        """Whether the number-th fine-tuning (from 0) lasts, and has a checkpoint of its own."""
        finished = {file.stem for file in self._files("finetune")}
        return len(finished) == number and any(key not in finished for key in self._checkpoints())

    def _checkpoints(self) -> Iterator[str]:
        """Keys of the fine-tunings whose checkpoints are kept; that of a round stays until the next has one."""
        for file in (self.folder / f".llamaduo/{TASK}/training").glob("*/checkpoint_*/job.json"):
            with suppress(FileNotFoundError, json.JSONDecodeError):  # it goes, or comes, at this moment
                yield json.loads(file.read_text())["key"]

    def replies(self) -> dict[str, float]:
        """Key and time of every stored reply of the service LLM."""
        with sqlite3.connect(self.folder / ".llamaduo/replies.sqlite") as store:
            return dict(store.execute("SELECT key, created FROM replies"))

    def outcome(self) -> Outcome:
        """What the finished alignment has left behind."""
        (entry,) = (self.folder / f".llamaduo/{TASK}/alignments").glob("*.json")
        known = json.loads(entry.read_text())
        uri = self.store or f"sqlite:///{self.folder}/mlflow.db"
        client = MlflowClient(uri, uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments, order_by=["attributes.start_time"])
        versions = client.search_model_versions(f"name = '{MODEL}'")
        nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
        traces = [
            client.search_traces(
                locations=experiments,
                run_id=run_id,
                filter_string="tag.`llamaduo.judged` = 'true'",
                include_spans=True,
                max_results=200,
            )
            for run_id in (known["run_id"], *known["round_run_ids"])
        ]
        assert all(trace.data.spans and len(trace.info.assessments) == 3 for of_run in traces for trace in of_run)
        return Outcome(
            adapters=frozenset(value["digest"] for value in self._stage("finetune")),
            rounds=tuple(_told(finished) for finished in known["state"]["rounds"]),
            replies=frozenset(self.replies()),
            versions=tuple(sorted(version.tags["llamaduo.adapter"] for version in versions)),
            parents=tuple(run.info.status for run in runs if run not in nested),
            nested=tuple(f"{run.data.tags['llamaduo.round']} {run.info.status}" for run in nested),
            traces=tuple(len(of_run) for of_run in traces),
        )

    def versions(self) -> int:
        """Versions in a registry that is a file here; 0 while it cannot be read beside the one who writes."""
        file = self.folder / "mlflow.db"
        with suppress(sqlite3.OperationalError):  # not there yet, or locked: waiting would miss the moment
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=0)) as store:
                count = store.execute("SELECT COUNT(*) FROM model_versions WHERE name = ?", [MODEL])  # not of prompts
                return int(count.fetchone()[0])
        return 0

    def _stage(self, stage: str) -> list[Any]:
        return [json.loads(file.read_text())[1] for file in self._files(stage)]

    def _files(self, stage: str) -> list[Path]:
        return list((self.folder / f".llamaduo/{TASK}/stages" / stage).glob("*.json"))


def _told(finished: Mapping[str, Any]) -> dict[str, Any]:
    """A round without what no two have in common: seconds, in the ledger too, and a number with a gap before it."""
    return {key: value for key, value in finished.items() if key not in ("seconds", "ledger", "version")}


def workspace(folder: Path, base: Path, **finetune: Any) -> Workspace:
    """A project of 20 rows, two rounds and a gate that nothing passes; `finetune` is said beside the recipe."""
    shutil.copytree(ROOT / "projects", folder / "projects", dirs_exist_ok=True)
    small = {
        "coverage": {"test_rows": 4, "dev_rows": 2},
        "gate": {"precision_mean": 100},
    }
    _write(folder / f"projects/{TASK}/duo.yaml", small)
    profile = {
        "base_model": str(base),
        "finetune": {
            **{"quantization": "none", "lora_rank": 4, "lora_alpha": 8, "epochs": 3, "max_length": 512},
            **{"batch_size": 4, "checkpoint_steps": 1, "patience": 0, "learning_rate": 0.005},
            **finetune,
        },
        "inference": {"max_new_tokens": 8, "responses_per_prompt": 1},
        "synthesis": {"rows_per_round": 4},
        "limits": {"rounds": 2},
        "baselines": {"few_shot": 0, "service_llm": False},
    }
    _write(folder / "projects/profiles/local.yaml", profile)
    rows = [
        {
            "messages": [
                *({"role": message.role, "content": message.content} for message in pair.prompt),
                {"role": "assistant", "content": pair.response},
            ],
            "category": TASK,
        }
        for pair in tiny_pairs(20)
    ]
    (folder / f"projects/{TASK}/coverage.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Workspace(folder)


def workers_of(process: "subprocess.Popen[bytes]", kind: str = "ray::RayTrainWorker") -> list[psutil.Process]:
    """Ray's processes of a kind below another process."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "".join(child.cmdline()[:1]).startswith(kind):
                found.append(child)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def _write(file: Path, sections: Mapping[str, Any]) -> None:
    """Sections of a YAML file, key by key; the gate is replaced."""
    tree = yaml.safe_load(file.read_text())
    for name, keys in sections.items():
        same = isinstance(keys, dict) and name != "gate"
        tree[name] = {**tree.get(name, {}), **keys} if same else keys
    file.write_text(yaml.safe_dump(tree))
