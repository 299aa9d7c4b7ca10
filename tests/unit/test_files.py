from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.errors import DataError, StageError
from mlflow_llamaduo.files import (
    each_jsonl,
    folder_atomic,
    folder_digest,
    locked,
    read_jsonl,
    remove,
    to_jsonl,
    write_atomic,
    writing_atomic,
)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "file.txt", "über")
    write_atomic(tmp_path / "new" / "file.txt", b"bytes")

    assert (tmp_path / "new" / "file.txt").read_bytes() == b"bytes"
    assert names(tmp_path / "new") == ["file.txt"]


def test_a_file_that_cannot_be_written_keeps_what_it_held(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file.txt", "old")

    with pytest.raises(UnicodeEncodeError):
        write_atomic(tmp_path / "file.txt", "\ud83d")
    assert (tmp_path / "file.txt").read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_folder_replaces_the_old_one_when_its_block_ends_well(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with folder_atomic(tmp_path / "folder") as part:
            (part / content).touch()
            (part / "deep").mkdir()

    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["deep", "new"]


def test_a_folder_whose_block_fails_leaves_the_old_one_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()

    with pytest.raises(RuntimeError, match="half way"), folder_atomic(tmp_path / "folder") as part:
        (part / "new").touch()
        raise RuntimeError("half way")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["old"]


def test_removing_a_folder_leaves_what_its_links_point_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "link").symlink_to(tmp_path / "kept")
    remove(tmp_path / "gone")

    assert names(tmp_path) == ["kept"]
    assert names(tmp_path / "kept") == ["file"]


def test_a_folders_digest_covers_names_and_contents_and_no_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = folder_digest(tmp_path)
    (tmp_path / ".digest").write_text(first)

    assert folder_digest(tmp_path) == first
    (tmp_path / "a").write_text("2")
    changed = folder_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, changed, folder_digest(tmp_path)}) == 3


@given(st.lists(st.text(), max_size=5))
def test_every_row_is_one_line_whatever_its_text(texts: list[str]) -> None:
    lines = to_jsonl({"text": text} for text in texts).split("\n")

    assert len(lines) == len(texts) + 1
    assert lines[-1] == ""


def test_rows_come_one_by_one_and_the_bad_ones_are_told_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\nno JSON\n\n{"a": 2}\n')
    rows = each_jsonl(file, lambda row: row["a"])

    assert next(rows) == 1
    assert next(rows) == 2
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not JSON"):
        next(rows)


def test_a_file_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*nowhere"):
        read_jsonl(tmp_path / "nowhere", lambda row: row)


def test_a_file_that_is_written_line_by_line_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing_atomic(tmp_path / "new" / "rows") as stream:
        stream.write("half")
        raise ZeroDivisionError
    assert names(tmp_path / "new") == []

    with writing_atomic(tmp_path / "new" / "rows") as stream:
        stream.write("whole\u2028\n")
        assert names(tmp_path / "new") != ["rows"]
    assert (tmp_path / "new" / "rows").read_text(encoding="utf-8") == "whole\u2028\n"
    assert names(tmp_path / "new") == ["rows"]


def test_a_lock_is_held_by_one_and_free_again_after(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", "it is being written"):
        with pytest.raises(StageError, match="it is being written by another process"):
            with locked(tmp_path / "lock", "it is being written"):
                pass
    with locked(tmp_path / "lock", "it is being written"):
        pass
