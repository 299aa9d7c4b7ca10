"""A review in plain text, and what hostile text becomes in it."""

from dataclasses import replace
from typing import Any

import pytest

from mlflow_llamaduo.core.beside import Answer, Beside, asked, beside
from mlflow_llamaduo.core.shadowed import Shadowed
from mlflow_llamaduo.core.terminal import plain
from mlflow_llamaduo.review import Difference, Review
from mlflow_llamaduo.review_table import told
from mlflow_llamaduo.versions import Bounds, Seen


def seen(number: int = 1, **more: Any) -> Seen:
    known = {"aliases": (), "made": "2026-05-01T10:20:30+00:00", "run_id": "r", "decision": "passed: ok"}
    known |= {"parity": "passed: distance 0", "review": "", "reviewer": "", "reviewed_at": "", "override": ""}
    return Seen(number=number, **{**known, "words": (), "base_model": "base", **more})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\r\nlines\nand\rmore\u2028here", "two⏎lines⏎and⏎more⏎here"),
        ("\x1b[2J\x1b]0;title\x07gone", "�[2J�]0;title�gone"),
        ("8-bit \x9b2J", "8-bit �2J"),
        ("\u202eever\u202c", "�ever�"),
        ("blanks" + " " * 500 + "end\tof it", "blanks end of it"),
        ("half a character \ud83d", "half a character �"),
        ("a family 👨\u200d👩\u200d👧", "a family 👨\u200d👩\u200d👧"),
    ],
)
def test_no_text_moves_the_cursor_or_makes_a_line(text: str, shown: str) -> None:
    assert plain(text, 1000) == shown


def test_a_review_tells_what_came_of_a_shadow() -> None:
    shadow = Shadowed(3, copies=9, same=4, wins=2, losses=1, flips=1).told()
    copied, never = seen(4, shadow=shadow), seen(4)
    assert f"  as a shadow:   {shadow}" in told(Review("llamaduo-qa", (copied,), copied))
    assert shadow == "9 requests of version 3 copied, 4 answered the same; of 4 judged it won 2, tied 1, lost 1"
    assert "  as a shadow:   -" in told(Review("llamaduo-qa", (never,), never))


@pytest.mark.parametrize(
    "tag", [None, "", "no json", "[]", "null", "{}", '{"against": "x"}', '{"against": 1e400}', "9"]
)
def test_a_tag_that_is_no_shadows_is_none(tag: str | None) -> None:
    assert Shadowed.read(tag) is None
    assert Shadowed.of(tag, 3) == Shadowed(3)


def test_a_long_text_says_how_long_it_was() -> None:
    assert plain("ab" * 50, 4) == "abab… (100 characters)"


def test_no_line_of_an_answer_can_pass_for_one_of_ours() -> None:
    """An answer is wrapped with a margin, and a blank run cannot push its end to the start of a line."""
    answer = "it is\n  version 2 (precision 100, similarity 100)\n" + "x " * 90 + "  version 3 passed"
    pair = Beside("q", "r", Answer(answer, 10, 10), None, -180)
    lines = told(Review("llamaduo-test", (seen(),), seen(), None, (), (pair,))).splitlines()
    ours = lines[: lines.index("  version 1 (precision 10, similarity 10)") + 1]
    rest = lines[len(ours) :]
    assert len(rest) > 1
    assert all(line.startswith("    | ") and len(line) <= 100 for line in rest)


@pytest.mark.parametrize(
    "place", ["reviewer", "reviewed_at", "override", "decision", "parity", "words", "aliases", "note"]
)
def test_whatever_a_tag_holds_is_printed_as_text(place: str) -> None:
    evil = "passed\x1b[2J\nversion 9"
    values: dict[str, Any] = {"words": ((evil, evil),), "aliases": (evil,)}
    version = seen(**({} if place == "note" else {place: values.get(place, evil)}))
    shown = told(Review("llamaduo-test", (version,), version, notes=(evil,) if place == "note" else ()))
    assert "\x1b" not in shown
    assert not [line for line in shown.splitlines() if line.startswith("version 9")]


def test_over_its_gate_is_said_in_the_table_and_in_full_below() -> None:
    version = seen(
        review="promoted", reviewer="eve", reviewed_at="2026-05-02T08:09:10.000001Z", override="eve: ship it"
    )
    lines = told(Review("llamaduo-test", (version,), version)).splitlines()
    assert lines[4].endswith("promoted by eve, 2026-05-02 08:09, over its gate")
    assert "  over its gate: eve: ship it" in lines


def test_a_difference_has_a_sign_and_an_interval_or_none() -> None:
    points = Bounds.of(-3.25, -5.04, -1.5)
    differences = (
        Difference("precision", points, 15, ""),
        Difference("similarity", Bounds.of(2, None, None), 1, "on 1"),
    )
    shown = told(Review("llamaduo-test", (seen(2),), seen(2), 1, differences))
    assert "  precision   -3.2 (95 %: -5.0 to -1.5; 15 prompts)" in shown
    assert "  similarity  +2.0 (95 %: -; 1 prompts), on 1" in shown


def test_a_number_that_is_none_is_null_in_json() -> None:
    pair = Beside("q", "r", Answer("a", float("nan"), 10), None, float("inf"))
    row = Review("llamaduo-test", (seen(usd=1.5),), replace(seen(), note="x"), answers=(pair,)).row()
    assert row["answers"][0]["apart"] is None
    assert row["answers"][0]["candidate"]["precision"] is None
    assert (row["versions"][0]["usd"], row["shown"], row["lineage"]) == (1.5, 1, None)


def rows(**texts: str) -> list[dict[str, str]]:
    ids = {key.replace("_", "/"): text for key, text in texts.items()}
    return [{"id": key, "instruction": "q", "reference": "r", "response": text} for key, text in ids.items()]


def test_prompts_where_two_models_differ_most_come_first_whoever_is_better() -> None:
    own = asked(rows(p0_0="a0", p1_0="a1", p2_0="a2"), {"p0/0": (50, 50), "p1/0": (90, 90), "p2/0": (0, 0)})
    its = asked(
        rows(p0_0="b0", p1_0="b1", p2_0="b2", p3_0="b3"), dict.fromkeys(("p0/0", "p1/0", "p2/0", "p3/0"), (60, 60))
    )
    found = beside(own, its, 2)
    assert [(pair.candidate.text, pair.champion and pair.champion.text, pair.apart) for pair in found] == [
        ("a2", "b2", -120),
        ("a1", "b1", 60),
    ]


def test_of_several_answers_the_one_nearest_to_their_mean_is_shown_and_unjudged_ones_are_not() -> None:
    scores = {"p0/0": (100, 100), "p0/1": (40, 60), "p0/2": (0, 10)}
    (found,) = beside(asked(rows(p0_0="best", p0_1="usual", p0_2="worst", p0_3="unjudged"), scores), None, 9)
    assert found.candidate.text == "usual"
    assert found.apart == pytest.approx((200 + 100 + 10) / 3 - 200)
