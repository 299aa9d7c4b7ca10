"""Summarization offline: the judge, the grammar the teacher writes by, and the pairs that ship with the project."""

import json
import re
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_llamaduo.core.overlap import words
from mlflow_llamaduo.service_llm.offline.llm import judge, teach
from mlflow_llamaduo.service_llm.offline.summarization import write_pairs
from tests.unit.grammars import grammar, names, unknown_holes

PROJECT = Path(__file__).parents[2] / "projects" / "summarization"

PASSAGE = (
    "The bell in the tower of Sarn had been silent for so long that pigeons nested in it. Last month the council "
    "took a vote. By nine to two it decided to spend 40,000 euros on a new frame, since the old one is rotten. "
    "The baker says he will miss his lie-in. If the work goes well, the bell rings again at Easter."
)
REFERENCE = "Sarn's council will spend 40,000 euros on a new frame so that the tower bell can ring again at Easter."
OTHERS = (
    "The bell of Sarn's tower will ring at Easter, as the council spends 40,000 euros on a new frame.",
    "The council of Sarn pays for a new frame.",
    PASSAGE.split(". ", 1)[0],
    "The boots leak, and I would not buy them.",
)

# The judge


def scores(reference: str, response: str) -> tuple[float, float]:
    """Similarity and precision."""
    asked = {"task": "summarization", "instruction": "TL;DR", "reference": reference, "response": response}
    verdict = judge(asked)
    return verdict["similarity_assessment"]["score"], verdict["precision_assessment"]["score"]


@pytest.mark.parametrize("score", [0, 1], ids=["similarity", "precision"])
def test_reference_paraphrase_half_of_the_facts_a_sentence_of_the_passage_and_another_topic_come_in_this_order(
    score: int,
) -> None:
    found = [scores(REFERENCE, response)[score] for response in (REFERENCE, *OTHERS)]

    assert found == sorted(set(found), reverse=True)
    assert (found[0], found[-1]) == (100, 0)


@pytest.mark.parametrize(
    "response",
    [
        PASSAGE,
        f"Sure! Here is a summary of the text that you sent me. {REFERENCE} I hope this helps you.",
        REFERENCE * 3,
    ],
    ids=["the whole passage", "much around it", "three times"],
)
def test_whoever_copies_or_rambles_gets_less_than_a_paraphrase_though_it_holds_every_fact(response: str) -> None:
    similarity, precision = scores(REFERENCE, response)

    assert similarity < scores(REFERENCE, OTHERS[0])[0]
    assert precision < scores(REFERENCE, OTHERS[0])[1]


def test_a_response_that_is_a_little_longer_than_the_reference_loses_no_precision() -> None:
    assert scores("The bell rings again.", "The old bell rings again.")[1] == 100


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("The mill closes", "mills closing"),
        ("They planned to carry stones", "plans for carrying a stone"),
        ("The bell was carried up", "bells they carry up"),
        ("It cost 40,000 euros.", "Costs: 40000 euros!"),
        ("STRA\u00dfE GESPERRT", "stra\u00dfe gesperrt"),
        ("to be or not to be", "To be, or not to be"),
    ],
)
def test_endings_case_commas_and_small_words_make_no_difference(reference: str, response: str) -> None:
    assert scores(reference, response) == (100, 100)


def test_another_number_and_a_not_make_one() -> None:
    said = scores("The bell rings at 7.30.", "The bell rings at 7.30.")

    assert scores("The bell rings at 7.30.", "The bell rings at 7.45.") < said
    assert scores("The bell will not ring.", "The bell will ring.") < said


@given(st.text(), st.text())
def test_scores_lie_from_0_to_100_for_any_texts_and_are_100_for_the_text_itself(
    reference: str, response: str
) -> None:
    assert all(0 <= score <= 100 for score in scores(reference, response))
    assert scores(reference, reference) == (100, 100)


@pytest.mark.parametrize(
    "text", ["bell " * 200_000, "[" * 1_000_000, "\0" * 1_000_000, "s" * 1_000_000, "1." * 500_000]
)
def test_a_megabyte_of_anything_is_scored_and_is_no_summary(text: str) -> None:
    assert scores(REFERENCE, text) < (5, 5)
    assert scores(text, REFERENCE) < (5, 5)
    assert scores(text, text) == (100, 100)


def test_what_comes_after_2000_words_is_not_read() -> None:
    assert scores(REFERENCE, "stone " * 2000 + REFERENCE) == (0, 0)


# The teacher


def test_the_teacher_writes_summaries_when_summarization_is_asked_for() -> None:
    asked = {"task": "summarization", "example": {"instruction": "q", "response": "a"}, "count": 4, "batch": 1}

    assert teach(asked) == teach(dict(asked))
    assert len(teach(asked)["contents"]) == 4
    assert teach({**asked, "batch": 2}) != teach(asked)


def test_a_seed_always_writes_the_same_pairs_and_another_seed_others() -> None:
    written = [pair.instruction for seed in range(-5, 5) for pair in write_pairs(seed=seed, count=5)]

    assert write_pairs(seed=3, count=5) == write_pairs(seed=3, count=5)
    assert len(set(written)) == 50


def passage(instruction: str) -> str:
    """The passage of a prompt, without the words of the request."""
    block = max(instruction.split("\n\n"), key=len)
    return block.removeprefix("Text: ").removeprefix("I have no time to read this. One sentence, please: ")


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_a_written_pair_is_clean_text_of_the_length_asked_for(seed: int) -> None:
    for pair in write_pairs(seed=seed, count=4):
        text = pair.instruction + "\n" + pair.response
        assert text.isascii()
        assert not re.search(r"[{}|]|  | [,.;:?]|\.\.|,,|,\.", text), text
        assert not re.search(r"\b(\w+) \1\b", text), text
        assert 60 <= len(passage(pair.instruction).split()) <= 110
        assert not re.search(r"(?:^|[.!?] )[a-z]", passage(pair.instruction))
        assert 10 <= len(pair.response.split()) <= 22
        assert re.fullmatch(r"[A-Z0-9].*[.]", pair.response)


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_names_and_numbers_of_a_summary_are_those_of_the_passage(seed: int) -> None:
    for pair in write_pairs(seed=seed, count=4):
        _, *rest = re.findall(r"[\w.]*\w", pair.response)
        facts = {word for word in rest if word[0].isupper() or word[0].isdigit()}
        assert facts <= set(re.findall(r"[\w.]*\w", pair.instruction)), pair


def test_passages_differ_in_the_details_that_are_left_out() -> None:
    lengths = [len(passage(pair.instruction).split()) for pair in write_pairs(seed=1, count=300)]

    assert sum(length < 70 for length in lengths) > 45  # with every detail told there would be 9
    assert max(lengths) > 90


def test_a_passage_is_told_in_its_order() -> None:
    told = [passage(pair.instruction) for pair in write_pairs(seed=1, count=300)]
    letters = [text for text in told if re.search("Best wishes|Kind regards|Yours truly|Yours sincerely", text)]

    assert letters
    assert all(re.match("Dear|Hello|Hi|Good morning", text) for text in letters)
    assert all(re.search(r"(wishes|regards|truly|sincerely), \w+( \w+)?\.?$", text) for text in letters)


def test_a_summary_is_not_copied_from_its_passage() -> None:
    for pair in write_pairs(seed=5, count=300):
        told, said = f" {' '.join(words(pair.instruction))} ", words(pair.response)
        runs = [" ".join(said[i : i + 11]) for i in range(max(1, len(said) - 10))]
        assert not any(f" {run} " in told for run in runs), pair


def test_hardly_any_two_of_200_prompts_are_near_copies() -> None:
    sets = [frozenset(words(pair.instruction)) for pair in write_pairs(seed=1, count=200)]
    near = sum(len(one & other) >= 0.7 * len(one | other) for one, other in combinations(sets, 2))

    assert near == 0


# The grammar's data file: every rule that its head comment states


def told(genre: dict[str, Any]) -> list[set[str]]:
    """The slots that each point tells in every one of its alternatives."""
    points = [beat["point"] for beat in genre["beats"] if "point" in beat]
    return [set.intersection(*map(names, point)) for point in points]


def test_every_word_list_is_filled_from_known_words() -> None:
    lists = grammar("summarization")["words"]

    assert [
        hole for entries in lists.values() for entry in entries for hole in unknown_holes(entry, set(lists))
    ] == []


@pytest.mark.parametrize("name", grammar("summarization")["genres"])
def test_every_hole_of_a_genre_is_of_its_case_a_slot_before_it_a_word_a_range_or_a_choice(name: str) -> None:
    genre, known = grammar("summarization")["genres"][name], set(grammar("summarization")["words"])
    (of_case,) = {frozenset(case) for case in genre["cases"]}
    known |= of_case

    assert [hole for case in genre["cases"] for text in case.values() for hole in unknown_holes(text, known)] == []
    for slot, template in genre["slots"].items():
        assert unknown_holes(template, known) == [], slot
        known.add(slot)
    for beat in genre["beats"]:
        ((kind, say),) = beat.items()
        assert kind in {"point", "detail"}
        assert [hole for template in say for hole in unknown_holes(template, known)] == []
    assert [hole for template in genre["summary"] for hole in unknown_holes(template, known)] == []


@pytest.mark.parametrize("name", grammar("summarization")["genres"])
def test_a_summary_says_what_the_points_tell_whichever_alternative_is_drawn(name: str) -> None:
    genre = grammar("summarization")["genres"][name]
    known = set().union(*told(genre))

    for template in genre["summary"]:
        assert {slot.removesuffix("_short") for slot in names(template)} <= known, template


# The pairs of the project


@cache
def rows() -> tuple[tuple[str, str], ...]:
    lines = (PROJECT / "coverage.jsonl").read_text(encoding="utf-8").splitlines()
    messages = [row["messages"] for row in map(json.loads, lines) if row["category"] == "summarization"]
    return tuple((user["content"], assistant["content"]) for user, assistant in messages)


def test_the_pairs_of_the_project_have_the_lengths_that_its_readme_states() -> None:
    assert len(rows()) == 120
    for prompt, summary in rows():
        assert 72 <= len(prompt.split()) <= 114
        assert 10 <= len(summary.split()) <= 22
        assert re.fullmatch(r"[A-Z0-9].*[.]", summary)


def test_no_two_pairs_of_the_project_are_alike() -> None:
    sets = [frozenset(words(prompt)) for prompt, _ in rows()]

    assert max(len(one & other) / len(one | other) for one, other in combinations(sets, 2)) < 0.3
    assert len({summary for _, summary in rows()}) == 120
