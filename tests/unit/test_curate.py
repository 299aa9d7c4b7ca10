import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.records import Pair, PairSet
from mlflow_llamaduo.synthesis import curate
from mlflow_llamaduo.synthesis.known import Known
from tests.unit.builders import pair, pairs

NONE = PairSet(())
PASSAGE = "The mill at Arn burnt down in 1902, and the town council built a school on the ground in its place. " * 4


def curated(*new: Pair, known: PairSet = NONE, test: PairSet = NONE) -> tuple[list[Pair], list[str]]:
    """Pairs kept, and why the others were not."""
    grown = curate(new, known=known, test=test)
    assert len(grown.kept) + len(grown.rejected) == len(new)
    return list(grown.kept), [rejected.reason for rejected in grown.rejected]


def same(p: Pair) -> Pair:
    return p


def loud(p: Pair) -> Pair:
    return pair(p.instruction.upper() + "!!", p.response.title())


def spaced(p: Pair) -> Pair:
    return pair(p.instruction.replace(" ", "  "), f"  {p.response}.")


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([same, loud, spaced]))), st.randoms())
def test_of_planted_copies_just_one_is_kept(
    planted: list[tuple[int, Callable[[Pair], Pair]]], rng: random.Random
) -> None:
    originals = list(pairs(6))
    copies = [change(originals[n]) for n, change in planted]
    new = rng.sample([*originals, *copies], 6 + len(copies))
    kept, reasons = curated(*new)

    assert sorted(p.response.lower().strip(" .") for p in kept) == sorted(p.response for p in originals)
    assert set(reasons) <= {"duplicate", "near_duplicate"}


def test_of_two_near_copies_the_first_stays() -> None:
    (first,) = pairs(1)

    assert curated(first, loud(first)) == ([first], ["near_duplicate"])
    assert curated(loud(first), first) == ([loud(first)], ["near_duplicate"])


@pytest.mark.parametrize("length", [20, 30, 80])
def test_copies_with_one_word_changed_are_found(length: int) -> None:
    originals = [pair(" ".join(f"w{n}x{word}" for word in range(length)), "Yes") for n in range(30)]
    changed = [p.instruction.replace(f"x{n % (length - 1)} ", "changed ", 1) for n, p in enumerate(originals)]
    copies = [pair(text, "Yes") for text in changed]
    kept, _ = curated(*originals, *copies)

    assert kept == originals


def test_copies_of_known_pairs_are_rejected_and_name_their_twin() -> None:
    known = pairs(5)
    grown = curate([loud(known.pairs[3])], known=known, test=NONE)

    (rejected,) = grown.rejected
    assert (grown.kept, rejected.reason) == ((), "near_duplicate")
    assert rejected.pair == loud(known.pairs[3])
    assert rejected.partner == known.pairs[3].id


@pytest.mark.parametrize("answer", ["Yes", "The passage does not say.", "The mill and the school of Arn"])
def test_two_questions_on_one_long_passage_are_both_kept(answer: str) -> None:
    new = [pair(f"{PASSAGE}\n\nWhat burnt down?", answer), pair(f"{PASSAGE}\n\nWho paid for the school?", answer)]

    assert curated(*new) == (new, [])


def test_two_prompts_with_the_same_short_answer_are_both_kept() -> None:
    new = [pair("Sort into a topic: the new school bus", "Education"), pair("Label: exams begin in May", "Education")]

    assert curated(*new) == (new, [])


def test_one_prompt_with_two_different_answers_is_kept_twice() -> None:
    new = [pair("Name a town.", "Arn"), pair("Name a town.", "Bel")]

    assert curated(*new) == (new, [])


def test_a_row_that_quotes_a_test_prompt_is_a_leak_even_if_it_is_a_copy_as_well() -> None:
    test = pairs(3, "test")
    quoting = pair(f"Here is a question. {test.pairs[1].instruction.upper()} Now answer it.", "another answer")
    grown = curate([quoting, test.pairs[2]], known=PairSet((test.pairs[2],)), test=test)

    assert grown.kept == ()
    assert [r.reason for r in grown.rejected] == ["leak", "leak"]
    assert [r.partner for r in grown.rejected] == [test.pairs[1].id, test.pairs[2].id]


def test_what_is_new_and_clean_is_kept_in_its_order() -> None:
    new = list(pairs(20, "new"))

    assert curated(*new, known=pairs(20, "known"), test=pairs(5, "test")) == (new, [])


@given(st.lists(st.builds(pair, st.text(), st.text()), max_size=6))
def test_any_text_can_be_curated(new: list[Pair]) -> None:
    kept, reasons = curated(*new)

    assert curated(*kept) == (kept, [])
    assert set(reasons) <= {"duplicate", "near_duplicate"}


def test_what_is_known_is_kept_on_disk_and_the_next_round_reads_only_new_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, test = tmp_path / "curation.npz", pairs(3, "test")
    known, first, second = pairs(40, "known"), pairs(10, "first"), pairs(10, "second")
    grown = curate(first, known=known, test=test, index=index)
    read: list[str] = []
    monkeypatch.setattr(Known, "of", lambda rows, **_: read.extend(p.id for p in rows))
    known = known.with_(grown.kept)
    copies = [loud(known.pairs[7]), loud(first.pairs[2]), known.pairs[9]]
    again = curate([*second, *copies], known=known, test=test, index=index)

    assert read == []
    assert again.kept == second.pairs
    assert [r.reason for r in again.rejected] == ["near_duplicate", "near_duplicate", "duplicate"]
    assert [r.partner for r in again.rejected] == [known.pairs[7].id, first.pairs[2].id, known.pairs[9].id]


@pytest.mark.parametrize("damage", ["cut", "another", "other rows", "other test"])
def test_an_index_that_does_not_fit_is_made_anew(tmp_path: Path, damage: str) -> None:
    index, known, test = tmp_path / "curation.npz", pairs(20, "known"), pairs(3, "test")
    curate(pairs(5, "first"), known=known, test=test, index=index)
    if damage == "cut":
        index.write_bytes(index.read_bytes()[:500])
    if damage == "another":
        index.write_bytes(b"not an index")
    if damage == "other rows":
        known = pairs(20, "other")
    if damage == "other test":
        test = pairs(3, "held")
    new = [loud(known.pairs[0]), pair(f"Now then: {test.pairs[0].instruction}"), *pairs(2, "new")]

    grown = curate(new, known=known, test=test, index=index)
    assert [r.reason for r in grown.rejected] == ["near_duplicate", "leak"]


def test_a_fixed_instruction_around_every_text_hides_no_copy_and_makes_none() -> None:
    rules = "You sort messages of customers. Choose one of these labels: order, refund, delivery, account, praise."
    new = [pair(f"{rules} {p.instruction}.", "refund") for p in pairs(200, "text")]
    copies = [pair(p.instruction.replace("w3 ", "w3x "), p.response) for p in new[:20]]
    kept, reasons = curated(*new, *copies)

    assert kept == new
    assert reasons == ["near_duplicate"] * 20
