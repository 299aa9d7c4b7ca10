import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.records import Message, Pair
from mlflow_llamaduo.coverage import read_pairs
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.files import to_jsonl
from tests.unit.builders import pair, pairs

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TURN = st.fixed_dictionaries({}, optional={"role": st.just("user") | JSON, "content": JSON})
BAD_ROWS = st.one_of(  # no row here has an answer, so none of them is a pair
    JSON.map(lambda value: json.dumps(value).encode()),
    st.lists(TURN, max_size=3).map(lambda turns: json.dumps({"messages": turns}).encode()),
    st.binary(min_size=1).map(lambda data: data.replace(b"\n", b"?")),
).filter(lambda line: bool(line.strip()))


def row(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


GOOD = row(("user", "Which town?"), ("assistant", "Arn"))


def write(folder: Path, *lines: str | bytes | dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    texts = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
    path.write_bytes(b"\n".join(text.encode() if isinstance(text, str) else text for text in texts))
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    return str(caught.value).split("\n")


def test_rows_that_were_written_are_read_again(tmp_path: Path) -> None:
    written = pairs(3, category="Chat", source="synthetic/1").with_(
        [pair("Zeilen\u2028über\x85\v\feinander", "\U0001f642\ttext")]
    )
    path = tmp_path / "rows.jsonl"
    path.write_text(to_jsonl(p.row() for p in written), encoding="utf-8", newline="")

    assert read_pairs(path) == written


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{'messages': []}", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b'{"messages": "\xff"}', "not UTF-8: byte 0xff at column 15"),
        ('{"messages": ' + "[" * 100_000, "nested too deeply"),
        ("[]", 'no "messages" list'),
        ("null", 'no "messages" list'),
        ({"prompt": "q", "response": "a"}, 'no "messages" list'),
        ({"messages": []}, 'no "messages" list'),
        ({"messages": ["q", "a"]}, "a message's role must be one of system, user, assistant, not None"),
        (row(("user", "q"), ("robot", "a")), "a message's role must be one of system, user, assistant, not 'robot'"),
        (row(("user", "q"), ("assistant", " \n")), "a assistant message has no text"),
        ({"messages": [{"role": "user", "content": 7}]}, "a user message has no text"),
        (row(("user", "q")), "no assistant message"),
        (row(("assistant", "a")), "no user message before the assistant's answer"),
        (row(("system", "s"), ("assistant", "a")), "no user message before the assistant's answer"),
        (row(("user", "q"), ("assistant", "a"), ("assistant", "b")), "no user message before the assistant's answer"),
        (row(("user", "q"), ("assistant", "a"), category=3), '"category" and "source" must be text'),
        (row(("user", "q"), ("assistant", "a"), source=None), '"category" and "source" must be text'),
    ],
)
def test_a_bad_row_is_told_with_file_line_and_reason(
    tmp_path: Path, line: str | bytes | dict[str, Any], reason: str
) -> None:
    path = write(tmp_path, GOOD, line, GOOD)

    assert problems(path) == [f"{path}:2: {reason}"]


def test_a_lone_surrogate_is_told_like_any_other_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, json.dumps(row(("user", "cut \ud83d"), ("assistant", "a"))))

    (problem,) = problems(path)  # no file, database or request could carry it later
    assert problem.startswith(f"{path}:2: ")


def test_every_bad_row_is_told_and_not_just_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "{", GOOD, b"\xff", GOOD, "[]", "", row(("user", "q")))

    assert [problem.split(": ")[0] for problem in problems(path)] == [f"{path}:{n}" for n in (1, 3, 5, 7)]


def test_of_very_many_bad_rows_the_rest_is_counted(tmp_path: Path) -> None:
    found = problems(write(tmp_path, *["{"] * 60))

    assert len(found) == 51
    assert found[-1] == "and 10 more"


@given(st.lists(st.just(json.dumps(GOOD).encode()) | BAD_ROWS, max_size=12))
def test_just_the_bad_rows_are_told_whatever_is_in_them(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    bad = [f"{path}:{number}" for number, line in enumerate(lines, start=1) if line != json.dumps(GOOD).encode()]

    if bad:
        found = problems(path)
        assert [problem.split(": ")[0] for problem in found] == bad
        assert all(problem.split(": ", 1)[1] for problem in found)
    else:
        assert len(read_pairs(path)) == min(1, len(lines))


def test_a_conversation_ends_at_its_last_assistant_turn(tmp_path: Path) -> None:
    turns = [("system", "Be brief."), ("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2")]
    path = write(tmp_path, row(*turns, ("user", "thanks"), category="Chat"))

    prompt = tuple(Message(role, content) for role, content in turns[:-1])
    assert read_pairs(path).pairs == (Pair(prompt, "a2", "Chat"),)


def test_a_conversation_reads_as_one_instruction_that_names_the_speakers() -> None:
    spoken = Pair((Message("user", "q1"), Message("assistant", "a1"), Message("user", "q2")), "a2")

    assert spoken.instruction == "user: q1\n\nassistant: a1\n\nuser: q2"


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_row(tmp_path: Path) -> None:
    line = json.dumps(GOOD).encode()
    path = write(tmp_path, b"\xef\xbb\xbf" + line + b"\r", b"\r", line)

    assert read_pairs(path).pairs == (pair(),)


def test_of_exact_copies_the_first_stays_in_its_place(tmp_path: Path) -> None:
    rows = [pair("q1", category="Chat").row(), pair("q2").row(), pair("q1", source="synthetic/1").row()]

    assert read_pairs(write(tmp_path, *rows)).pairs == (pair("q1", category="Chat"), pair("q2"))


def test_a_category_keeps_its_rows_and_those_without_one(tmp_path: Path) -> None:
    path = write(tmp_path, *(pair(f"q {c}", category=c).row() for c in ("Coding", "", "Chat")))

    assert [p.category for p in read_pairs(path, category="Coding")] == ["Coding", ""]
    assert len(read_pairs(path)) == 3


def test_a_bad_row_of_another_category_is_told_as_well(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, row(("user", "q"), category="Chat"))

    with pytest.raises(DataError, match=":2: "):
        read_pairs(path, category="Coding")


def test_a_missing_file_is_told_with_the_shape_of_a_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'nowhere\.jsonl.*"messages"'):
        read_pairs(tmp_path / "nowhere.jsonl")
