"""The stand-ins for classification: the judge that compares labels, the grammar, and the pairs of the project."""

import json
import re
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.service_llm.offline.classification import write_pairs
from mlflow_llamaduo.service_llm.offline.classification_judge import by_labels, read_labels
from mlflow_llamaduo.service_llm.offline.llm import judge, teach
from tests.unit.grammars import grammar, unknown_holes

# The judge

DESKS = (
    "Which desk? Choose from Billing, Shipping, Repairs or Lost and found.\n\nHello, my bill is wrong. Thanks, Ida"
)
SKY = "What is forecast? Labels: rain, wind, snow and heat. Use commas.\n\nIt pours, and trees bend in the gale."


def scores(instruction: str, reference: str, response: str) -> tuple[float, float]:
    """Similarity and precision, 0 to 100."""
    asked = {"task": "classification", "instruction": instruction, "reference": reference, "response": response}
    found = judge(asked)
    return found["similarity_assessment"]["score"], found["precision_assessment"]["score"]


@pytest.mark.parametrize(
    "response",
    [
        "Billing",
        " billing. ",
        "**BILLING**",
        '"Billing"',
        "Label: Billing",
        "The category is: Billing",
        "The right desk is Billing.",
        "This message goes to the Billing.",
    ],
)
def test_the_right_label_scores_100_however_it_is_written_or_led_up_to(response: str) -> None:
    assert scores(DESKS, "Billing", response) == (100, 100)


@pytest.mark.parametrize(
    "response",
    [
        "Shipping",
        "",
        "Hello, my bill is wrong.",
        "Billings",
        "Billing or Shipping",
        "Billing, Shipping, Repairs, Lost and found",
        "- Billing\n- Repairs",
        "It is about Billing, though Shipping could help too.",
        "Billing, Marketing",  # not even in the list
        "not Billing",
        "It isn't Billing.",
    ],
)
def test_another_label_none_or_one_too_many_scores_nothing(response: str) -> None:
    assert scores(DESKS, "Billing", response) == (0, 0)


def test_a_label_with_an_explanation_is_right_but_less_precise_the_longer_it_is_and_half_at_least() -> None:
    reason = "because the customer writes that the bill is wrong"
    similar, short = scores(DESKS, "Billing", f"Billing, {reason}.")
    _, long = scores(DESKS, "Billing", f"Billing, {reason}, {reason}.")

    assert 0 < similar < 50 < long < short < 90
    assert scores(DESKS, "Billing", "Billing " + "really " * 900)[1] == 50


def test_a_label_that_is_said_not_to_fit_is_not_named() -> None:
    assert scores(DESKS, "Billing", "Billing, not Shipping")[1] > 90
    assert scores(DESKS, "Shipping", "Billing, not Shipping") == (0, 0)
    assert scores("Is it in favour or not in favour?\n\nNo!", "not in favour", "Not in favour.") == (100, 100)
    assert scores("Is it in favour or not in favour?\n\nNo!", "in favour", "Not in favour.") == (0, 0)


def test_a_label_may_hold_an_and_and_is_then_wanted_whole() -> None:
    assert scores(DESKS, "Lost and found", "lost and found") == (100, 100)
    assert scores(DESKS, "Lost and found", "found") == (0, 0)


@pytest.mark.parametrize(
    ("reference", "response", "precision"),
    [
        ("rain, wind", "wind, rain", 100),
        ("rain, wind", "Wind and rain.", 100),
        ("rain, wind", "- rain\n- wind", 100),
        ("rain, wind", "rain", 66.7),
        ("rain, wind", "rain, snow", 50),
        ("rain, wind", "rain, wind, snow, heat", 66.7),
        ("rain, wind", "rain, hail", 50),
        ("rain, wind", "snow, heat", 0),
        ("rain", "rain, wind", 0),
    ],
)
def test_several_labels_are_compared_as_sets_but_one_alone_is_wanted_alone(
    reference: str, response: str, precision: float
) -> None:
    assert scores(SKY, reference, response)[1] == pytest.approx(precision, abs=0.1)


@pytest.mark.parametrize(
    "labels",
    [
        "(fear, joy, rage)",
        "fear / joy / rage",
        "fear; joy; rage",
        "Is it fear, joy or rage?",
        "The labels are fear, joy and rage.",
        'Pick from "fear", "joy", "rage".',
        "[fear] [joy] [rage]",
        "#fear #joy #rage",
        "Labels:\n- fear\n- joy\n- rage",
        "1. fear\n2. joy\n3. rage",
    ],
)
@pytest.mark.parametrize("reference", ["joy", "The feeling is joy."])
def test_a_list_in_any_layout_tells_a_hedge_from_a_reason(labels: str, reference: str) -> None:
    prompt = f"Dear Ann, I could dance, and sing, and shout.\n\nWhich feeling? {labels}\n\nAnswer!"

    assert scores(prompt, reference, "Joy") == scores(prompt, reference, "The feeling is joy.") == (100, 100)
    assert scores(prompt, reference, "The text speaks of joy since the writer could dance for hours")[1] > 50
    assert scores(prompt, reference, "The text speaks of joy but it has some rage in it as well, I think") == (0, 0)


def test_without_a_list_the_reference_is_the_label() -> None:
    assert by_labels("Billing", "The label is Billing.")[1].share == 1
    assert by_labels("Billing", "Billing or Shipping")[1].share == 0
    assert by_labels("-", "+")[1].share == by_labels("C", "C++")[1].share == 0


@given(st.text(), st.text(), st.text())
def test_any_texts_are_scored_from_0_to_100_and_the_reference_itself_with_100(a: str, b: str, prompt: str) -> None:
    assert all(0 <= score <= 100 for score in scores(prompt, a, b))
    assert scores(prompt, a, a) == (100, 100)


LIST_LIKE = st.text(alphabet="ab ,;/|\n-\"[]#.:?'", max_size=80) | st.lists(
    st.sampled_from(["rain", "wind", "not", "and", "or", ",", ".", "\n", "- ", "label:"])
).map(" ".join)


@given(LIST_LIKE, LIST_LIKE, LIST_LIKE)
def test_texts_that_are_nearly_lists_are_scored_from_0_to_100_too(a: str, b: str, prompt: str) -> None:
    assert all(0 <= score <= 100 for score in scores(prompt, a, b))
    assert scores(prompt, a, a) == (100, 100)


@pytest.mark.parametrize("piece", ["[", '"', "a, ", "and a ", "- a\n", "#a ", "\0", "a"])
def test_a_megabyte_of_one_thing_is_scored_like_any_other_text(piece: str) -> None:
    text = piece * (2**20 // len(piece))

    assert scores(text, text, text) == (100, 100)
    assert scores(text, "Billing", text) == scores(DESKS, "Billing", text + " Billing") == (0, 0)


# The teacher


def labels_of(response: str) -> list[str]:
    return response.split(", ")


def test_the_teacher_repeats_itself_for_the_same_request_and_for_no_other() -> None:
    asked = {"task": "classification", "example": {"instruction": "q", "response": "a"}, "count": 4, "batch": 1}

    assert teach(asked) == teach(dict(asked))
    assert len(teach(asked)["contents"]) == 4
    assert teach({**asked, "batch": 2}) != teach(asked)
    assert write_pairs(seed=1, count=0) == ()
    assert write_pairs(seed=1, count=9)[:4] == write_pairs(seed=1, count=4)
    assert write_pairs(seed=1, count=4) != write_pairs(seed=-1, count=4)


@given(st.integers(0, 10**6))
def test_a_written_prompt_is_clean_text_that_holds_the_answer_in_its_list(seed: int) -> None:
    for pair in write_pairs(seed=seed, count=2):
        text = pair.instruction.replace('..."', '"') + "\n\n" + pair.response
        assert text.isascii()
        assert not re.search(r"[{}|]|  | [,.;:?]|\.\.|,,|\n\n\n| \n|\n ", text), text
        assert not re.search(r"\b(\w+) \1\b", text), text
        assert 40 <= len(pair.instruction.split()) <= 130
        if not pair.response.endswith("."):
            assert all(re.search(rf"(?<!\w){re.escape(x)}(?!\w)", pair.instruction) for x in labels_of(pair.response))


def test_one_label_a_sentence_and_several_labels_are_mixed() -> None:
    answers = [pair.response for pair in write_pairs(seed=1, count=400)]
    sentences = sum(answer.endswith(".") for answer in answers)
    several = sum(", " in answer for answer in answers)

    assert 40 <= sentences <= 80
    assert 40 <= several <= 90
    assert len(set(answers)) > 200


def test_several_labels_are_given_in_the_order_of_the_list() -> None:
    written = [pair for pair in write_pairs(seed=6, count=400) if ", " in pair.response]
    listed = [
        (re.search(r"(?:Labels|labels): ([^.\n]+)\.", pair.instruction), labels_of(pair.response)) for pair in written
    ]
    found = [(match[1].split(", "), labels) for match, labels in listed if match]

    assert len(found) > 10
    assert all(sorted(labels, key=names.index) == labels for names, labels in found)


def test_the_place_in_the_list_does_not_give_the_label_away() -> None:
    places = [0, 0, 0]
    for pair in write_pairs(seed=2, count=3000):
        listed = re.search(r"(?:Labels|labels): ([^.\n]+)\.", pair.instruction)
        names = listed[1].split(", ") if listed else []
        if len(names) == 3 and pair.response in names and "commas" not in pair.instruction:
            places[names.index(pair.response)] += 1

    assert sum(places) > 100
    assert min(places) > 0.2 * sum(places)


def test_hardly_any_two_prompts_are_near_copies() -> None:
    prompts = [frozenset(re.findall(r"\w+", pair.instruction.lower())) for pair in write_pairs(seed=3, count=200)]
    near = sum(len(a & b) >= 0.7 * len(a | b) for a, b in combinations(prompts, 2))

    assert near <= 10  # of 19,900


def test_the_judge_finds_the_list_of_nearly_every_written_prompt() -> None:
    """It then knows labels besides the right ones, which is how it sees a hedge."""
    written = write_pairs(seed=4, count=300)
    found = [read_labels(pair.response, pair.instruction) for pair in written]

    assert sum(labels.offered > labels.right for labels in found) >= 0.98 * len(written)
    for pair, labels in zip(written, found, strict=True):
        if not pair.response.endswith("."):
            assert len(labels.right) == len(labels_of(pair.response)), pair


# The grammar's data file: the rules that its head comment states


def test_every_word_list_is_filled_from_known_words() -> None:
    words = grammar("classification")["words"]

    assert {name: bad for name, all_ in words.items() for e in all_ if (bad := unknown_holes(e, set(words)))} == {}


@pytest.mark.parametrize("name", grammar("classification")["kinds"])
def test_every_hole_of_a_kind_is_known(name: str) -> None:
    kind, known = grammar("classification")["kinds"][name], set(grammar("classification")["words"])

    for template in kind["ask"]:
        assert unknown_holes(template, known | {"unit"}) == [], template
    for template in kind.get("sentence", ()):
        assert unknown_holes(template, {"unit", "label"}) == [], template
        assert template.endswith("{label}.")
    for label in kind["labels"].values():
        for template in [*kind["open"], *kind["close"], *label["core"], *label.get("more", ())]:
            assert unknown_holes(template, known) == [], template


@pytest.mark.parametrize("name", grammar("classification")["kinds"])
def test_the_labels_of_a_kind_are_told_apart_and_their_texts_do_not_name_them(name: str) -> None:
    kind = grammar("classification")["kinds"][name]
    names = [label for entry in kind["labels"].values() for label in entry["names"]]

    assert len(set(names)) == len(names)
    assert len(kind["labels"]) >= (3 if kind.get("several") else 2)
    for meaning, entry in kind["labels"].items():
        others = [n for other, e in kind["labels"].items() if other != meaning for n in e["names"]]
        for template in [*entry["core"], *entry.get("more", ())]:
            assert [n for n in others if re.search(rf"\b{re.escape(n)}\b", template, re.IGNORECASE)] == [], template


# The project's own pairs


@cache
def coverage() -> list[tuple[str, str]]:
    file = Path(__file__).parents[2] / "projects" / "classification" / "coverage.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert all(row["category"] == "classification" and len(row["messages"]) == 2 for row in rows)
    return [(row["messages"][0]["content"], row["messages"][1]["content"]) for row in rows]


def test_the_projects_pairs_are_many_and_each_answer_stands_in_its_prompt() -> None:
    assert len(coverage()) >= 100
    for prompt, response in coverage():
        assert 40 <= len(prompt.split()) <= 130
        if not response.endswith("."):
            assert response in prompt or all(label in prompt for label in labels_of(response)), response


def test_the_teacher_does_not_know_the_projects_texts() -> None:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[at : at + 8]) for at in range(len(words) - 7)}

    theirs = set().union(*(runs(prompt) for prompt, _ in coverage()))

    assert [pair for pair in write_pairs(seed=5, count=500) if runs(pair.instruction) & theirs] == []
