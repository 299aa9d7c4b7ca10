import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.records import Message, Pair, PairSet
from mlflow_llamaduo.coverage.rows import REASONS, BadRow, Row, Unreadable
from mlflow_llamaduo.coverage.source import Collected, collect, folded, read_pairs
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


GOOD_TURNS = (("user", "Which town?"), ("assistant", "Arn"))
GOOD = row(*GOOD_TURNS)


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
        ("[]", "a row is an object with named fields, not a list"),
        ("null", "a row is an object with named fields, not None"),
        ({"prompt": "q", "response": " "}, "an assistant message has no text"),
        ({"messages": []}, 'no "messages" list'),
        ({"messages": ["q", "a"]}, "a message's role must be one of system, user, assistant, not None"),
        (row(("user", "q"), ("robot", "a")), "a message's role must be one of system, user, assistant, not 'robot'"),
        (row(("user", "q"), ("assistant", " \n")), "an assistant message has no text"),
        (
            {"messages": [{"role": "user", "content": 7}, {"role": "assistant"}]},
            "a user message is a number, not text",
        ),
        (row(("user", "q")), "no assistant message"),
        (row(("assistant", "a")), "no user message before the assistant's answer"),
        (row(("system", "s"), ("assistant", "a")), "no user message before the assistant's answer"),
        (row(("user", "q"), ("assistant", "a"), ("assistant", "b")), "no user message before the assistant's answer"),
        (row(("user", "q"), ("assistant", "a"), category=3), '"category" and "source" must be text'),
        (row(("user", "q"), ("assistant", "a"), source=7), '"category" and "source" must be text'),
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
    lines = [json.dumps(GOOD).encode(), *lines]  # a file's first bytes may say that it is no text at all
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


def test_rows_of_one_category_are_found_however_its_name_is_written(tmp_path: Path) -> None:
    path = write(tmp_path, *(pair(f"q {c}", category=c).row() for c in ("Closed QA", "closed-qa", "open_qa")))

    assert [p.category for p in read_pairs(path, category="closed_qa")] == ["Closed QA", "closed-qa"]


@pytest.mark.parametrize("name", ["rows.txt", "rows"])
def test_a_file_of_another_suffix_is_read_as_json_lines(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, GOOD).rename(tmp_path / name)

    assert read_pairs(path).pairs == (pair(),)


# Collecting


def rows_of(*data: Any) -> Iterator[Row]:
    return (Row(f"place {number}", value) for number, value in enumerate(data, start=1))


def collected(*data: Any, **options: Any) -> Collected:
    found = collect(rows_of(*data), source="test", **options)
    report = found.report
    assert report.rows == len(data) == report.kept + sum(report.rejected.values())
    assert len(found.rejected) == sum(report.rejected.values())
    assert len(found.pairs) == report.kept
    assert report.rejected.keys() <= REASONS.keys()
    assert json.loads(json.dumps(dataclasses.asdict(report))) == dataclasses.asdict(report)
    return found


def test_every_row_is_kept_or_rejected_with_its_place_and_reason() -> None:
    found = collected(GOOD, None, Unreadable("not_json", "not JSON: here"), row(("user", "q")))

    assert found.pairs == PairSet((pair(),))
    assert [(bad.where, bad.reason) for bad in found.rejected] == [
        ("place 2", "unknown_shape"),
        ("place 3", "not_json"),
        ("place 4", "no_answer"),
    ]
    assert found.rejected[1].detail == "not JSON: here"
    assert found.report.source == "test"


@given(
    st.lists(st.just(GOOD) | JSON | st.builds(Unreadable, st.sampled_from(sorted(REASONS)), st.text()), max_size=8)
)
def test_no_row_is_lost_whatever_it_holds(data: list[Any]) -> None:
    collected(*data)


def test_of_exact_copies_the_first_stays_and_the_others_name_its_place() -> None:
    found = collected(GOOD, pair("q").row(), row(*GOOD_TURNS, category="Chat", source="elsewhere"))

    assert found.pairs.pairs == (pair(), pair("q"))
    assert found.rejected == (BadRow("place 3", "duplicate", "the same prompt and answer as place 1"),)


def test_copies_are_found_even_if_a_source_gives_one_place_to_all_its_rows() -> None:
    found = collect([Row("here", GOOD), Row("here", GOOD)], source="test")

    assert (found.report.rows, found.report.kept, len(found.rejected)) == (2, 1, 1)


def test_an_id_that_was_kept_is_not_kept_again_and_one_that_was_rejected_is_free() -> None:
    found = collected({"id": 1}, {**pair("a").row(), "id": 1}, {**pair("b").row(), "id": "1"}, pair("c").row())

    assert [p.instruction for p in found.pairs] == ["a", "c"]
    assert found.rejected[1] == BadRow("place 3", "duplicate_id", "the id '1' of place 2")


@pytest.mark.parametrize("written", ["Closed QA", "closed_qa", "CLOSED-QA", "ClosedQA", " closed  qa"])
def test_a_category_is_the_same_however_it_is_written(written: str) -> None:
    found = collected(*(pair(f"q{c}", category=c).row() for c in (written, "Open QA", "")), categories=("closed_qa",))

    assert [(p.instruction, p.category) for p in found.pairs] == [(f"q{written}", "closed_qa"), ("q", "closed_qa")]
    assert found.rejected == (BadRow("place 2", "other_category", "category 'Open QA'"),)
    assert folded(written) == "closedqa"


def test_of_several_names_the_first_is_the_one_that_pairs_carry() -> None:
    data = [pair(c, category=c).row() for c in ("Summarize", "summarization", "Coding")]
    found = collected(*data, categories=("summarization", "Summarize"))

    assert [(p.instruction, p.category) for p in found.pairs] == [
        ("Summarize", "summarization"),
        ("summarization", "summarization"),
    ]


def test_without_categories_every_row_keeps_its_own() -> None:
    found = collected(*(pair(f"q{c}", category=c).row() for c in ("A b", "")))

    assert [p.category for p in found.pairs] == ["A b", ""]


def test_a_row_may_have_just_so_many_characters() -> None:
    data = [pair("q" * length, "a" * 10).row() for length in (90, 91)]
    found = collected(*data, max_characters=100)

    assert [len(p.instruction) for p in found.pairs] == [90]
    assert found.rejected[0].reason == "too_long"
    assert "101" in found.rejected[0].detail


def test_redaction_comes_before_copies_are_looked_for_and_counts_what_is_kept() -> None:
    def redact(p: Pair) -> tuple[Pair, Mapping[str, int]]:
        hidden = p.instruction.replace("ann@x.org", "[EMAIL]").replace("bob@x.org", "[EMAIL]")
        return pair(hidden, p.response), {"email": 1} if hidden != p.instruction else {}

    data = [pair(f"Who is {who}?").row() for who in ("ann@x.org", "bob@x.org", "Eve")]
    found = collected(*data, redact=redact)

    assert [p.instruction for p in found.pairs] == ["Who is [EMAIL]?", "Who is Eve?"]
    assert found.report.redacted == {"email": 1}
    assert found.report.rejected == {"duplicate": 1}


def test_the_report_names_shapes_and_lengths() -> None:
    data = [{"prompt": "q" * n, "completion": "aa"} for n in range(1, 101)]
    report = collected(GOOD, *data, {"prompt": "q", "completion": "aa"}).report

    assert report.shapes == {"prompt/completion": 101, "messages": 1}
    assert report.characters == {
        "prompt": {"median": 50, "p95": 95, "max": 100},
        "response": {"median": 2, "p95": 2, "max": 3},
    }
    assert collected().report.characters["prompt"] == {"median": 0, "p95": 0, "max": 0}


def test_every_row_is_counted_for_the_progress_bar() -> None:
    seen: list[int] = []
    collected(GOOD, None, GOOD, done=seen.append)

    assert sum(seen) == 3
