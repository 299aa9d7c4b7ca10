from random import Random

import pytest

from benchmarks.curation.outcome import outcome
from benchmarks.curation.planting import Planted, Truth, jaccard, near_copy, plant, quoted
from benchmarks.curation.prose import Prose
from benchmarks.curation.tasks import OWN, Tasks

COUNT = 2_000


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(COUNT, seed=3)


def groups(planted: Planted, kind: str) -> list[list[str]]:
    """Prompt and response of the rows of each group of copies."""
    found: dict[str, list[str]] = {}
    for row in planted.rows:
        truth = planted.truths[row["id"]]
        if truth.kind == kind:
            found.setdefault(truth.group, []).append("\n".join(turn["content"] for turn in row["messages"]))
    return list(found.values())


def test_one_seed_plants_the_same_rows_each_time(planted: Planted) -> None:
    again = plant(COUNT, seed=3)

    assert (again.rows, again.truths, again.test) == (planted.rows, planted.truths, planted.test)
    assert plant(COUNT, seed=4).rows != planted.rows


def test_every_row_has_a_truth_and_two_turns(planted: Planted) -> None:
    assert len(planted.rows) == COUNT
    assert [row["id"] for row in planted.rows if row["id"] not in planted.truths] == []
    assert {tuple(turn["role"] for turn in row["messages"]) for row in planted.rows} == {("user", "assistant")}
    assert len(planted.test) == 200


def test_exact_copies_are_the_same_text_and_near_copies_are_not(planted: Planted) -> None:
    exact, near = groups(planted, "exact"), groups(planted, "near95")

    assert len(exact) == len(near) == COUNT // 100
    assert {len(set(texts)) for texts in exact} == {1}
    assert {len(set(texts)) for texts in near} == {2}


@pytest.mark.parametrize("near", [0.95, 0.90])
def test_a_near_copy_is_as_near_as_it_is_said_to_be(near: float) -> None:
    tasks = Tasks(Prose(5))
    pairs = [(text, near_copy(text, near, tasks.prose)) for text in (tasks.any() for _ in range(200))]
    reached = [jaccard(text, copy) for text, copy in pairs if copy]

    assert len(reached) > 100
    assert near - 0.03 <= min(reached)
    assert max(reached) <= near + 0.03


def test_questions_on_one_passage_all_differ() -> None:
    group = Tasks(Prose(5)).passage_group(10)

    assert len({text.prompt for text in group}) == 10


def test_a_leak_quotes_as_much_as_it_says(planted: Planted) -> None:
    prompts = [row["messages"][0]["content"] for row in planted.test]
    whole = [row["messages"][0]["content"] for row in planted.rows if planted.truths[row["id"]].group.endswith("all")]
    text = Tasks(Prose(5)).write("short")
    own = max((words for role, words in text.parts if role == OWN), key=len)

    assert len(whole) == len(prompts)
    assert all(any(prompt in content for prompt in prompts) for content in whole)
    assert len(quoted(text, 1 / 3, Random(0)).split()) >= len(text.prompt.split()) / 3  # noqa: S311
    assert quoted(text, 1 / 3, Random(0)) in own  # noqa: S311


def test_of_a_group_one_is_to_be_kept_and_none_beside_a_known_one() -> None:
    truths = {name: Truth("exact", name[0]) for name in ("a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2")}
    gone = dict.fromkeys(("a2", "c1", "c2"), "duplicate")
    result = outcome(["a1", "b1", "b2", "d1"], gone, truths, known={"d2"})

    assert result.found["exact"] == 1
    assert result.planted["exact"] == 4
    assert result.lost == 1
    assert sorted(result.missed)[-1] == "d1"


def test_what_has_no_copy_and_leaks_nothing_is_to_be_kept() -> None:
    truths = {
        "p": Truth("plain"),
        "q": Truth("questions"),
        "t": Truth("template"),
        "l": Truth("leak", "40 to 149, all"),
    }
    result = outcome(["l"], {"p": "duplicate", "q": "near_duplicate", "t": "leak"}, truths, known=set())

    assert (sorted(result.dropped), result.flagged, result.missed) == (["p", "q"], ["t"], ["l"])
    assert result.share("leak 40") == 0
