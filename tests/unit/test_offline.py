"""The stand-ins for a service LLM, and the grammar that one of them writes by."""

import re
from typing import Any

import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.overlap import containment, rouge_l, token_f1
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.service_llm.client import Budget, Purpose, ReplyStore, ServiceLLM
from mlflow_llamaduo.service_llm.exchange import Failure, Request
from mlflow_llamaduo.service_llm.offline.closed_qa import UNSAID, write_pairs
from mlflow_llamaduo.service_llm.offline.llm import judge, teach
from tests.unit.grammars import grammar, names, unknown_holes

# The judge


def scores(reference: str, response: str) -> tuple[float, float]:
    """Similarity and precision."""
    given = judge({"instruction": "Which town?", "reference": reference, "response": response})
    return given["similarity_assessment"]["score"], given["precision_assessment"]["score"]


MOST = "\u043c\u043e\u0441\u0442"  # Russian for bridge


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("Arn", "Arn"),
        ("The passage does not say.", "the passage does not say"),
        ("Stra\u00dfe in M\u00fcnchen", "stra\u00dfe in m\u00fcnchen!"),
        (MOST, MOST.title()),
    ],
)
def test_the_reference_itself_scores_100_whatever_its_case_punctuation_or_language(
    reference: str, response: str
) -> None:
    similarity, precision = scores(reference, response)

    assert similarity == pytest.approx(100)
    assert precision == pytest.approx(100)


def test_a_verbose_answer_that_holds_the_reference_is_more_precise_than_it_is_similar() -> None:
    similarity, precision = scores("Arn", "The answer to your question is Arn, which lies on the Senna.")

    assert 0 < similarity < 50 < precision < 70


@pytest.mark.parametrize("response", ["Bel", "", "It was the other one."])
def test_a_wrong_answer_scores_nothing(response: str) -> None:
    assert scores("Arn", response) == (0, 0)


def test_a_half_right_answer_lies_between() -> None:
    similarity, precision = scores("granite and oak", "granite and slate")

    assert 50 < similarity < 80
    assert 50 < precision < 80


@given(st.text(), st.text())
def test_scores_lie_from_0_to_100_for_any_texts(reference: str, response: str) -> None:
    assert all(0 <= score <= 100 for score in scores(reference, response))
    for metric in (token_f1, rouge_l, containment):
        assert 0 <= metric(reference, response) <= 1


def test_containment_wants_whole_words_in_their_order() -> None:
    assert containment("old mill", "It was the old mill.") == 1
    assert containment("old mill", "a mill, not old") == 1  # both words, though apart
    assert containment("old mill", "the older mill") == 0.5
    assert containment("art", "a start") == 0


def test_articles_and_punctuation_are_no_words() -> None:
    assert token_f1("a river", "The river.") == containment("a river", "The river.") == 1


def test_the_judge_says_what_it_is() -> None:
    given = judge({"instruction": "q", "reference": "Arn", "response": "Arn"})

    assert all(part["reason"].startswith("offline stand-in: ") for part in given.values())


# The provider


def ask(model: str, content: str) -> Any:
    store = ReplyStore(":memory:")
    asked = ServiceModel(model=model, retries=0)
    llm = ServiceLLM(asked, store=store, budget=Budget(0.0), purpose=Purpose("run", "stage"))
    try:
        ((_, reply),) = llm.complete_many([Request(({"role": "user", "content": content},))])
    finally:
        store.close()
    return reply


@pytest.mark.parametrize("content", ["no JSON", "[]", "{}", '{"count": "many"}'])
def test_a_request_that_the_judge_cannot_read_is_a_failure(content: str) -> None:
    assert isinstance(ask("offline/judge", content), Failure)


def test_a_stand_in_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match="offline/teacher and offline/judge"):
        ask("offline/teechr", '{"count": 1}')


# The teacher


def test_the_teacher_repeats_itself_for_the_same_request_and_for_no_other() -> None:
    asked = {"task": "closed_qa", "example": {"instruction": "q", "response": "a"}, "count": 4, "batch": 1}
    others = [{**asked, "batch": 2}, {**asked, "example": {"instruction": "r", "response": "a"}}]

    assert teach(asked) == teach(dict(asked))
    assert len(teach(asked)["contents"]) == 4
    assert all(teach(other) != teach(asked) for other in others)


def test_different_seeds_write_different_passages() -> None:
    written = [pair.instruction for seed in range(-5, 5) for pair in write_pairs(seed=seed, count=5)]

    assert len(set(written)) == 50


@given(st.integers(0, 10**6))
def test_a_written_pair_is_clean_text_and_answered_in_one_of_the_ways_asked_for(seed: int) -> None:
    for pair in write_pairs(seed=seed, count=4):
        text = pair.instruction + "\n" + pair.response
        assert text.isascii()
        assert not re.search(r"[{}|]|  | [,.;:?]|\.\.|,,", text)
        assert not re.search(r"\b(\w+) \1\b", text), text
        if pair.response in (UNSAID, "Yes", "No"):
            continue
        if pair.response.endswith("."):
            assert 7 <= len(pair.response.split()) <= 20
        else:
            assert pair.response in pair.instruction
            assert 1 <= len(pair.response.split()) <= 6


def test_the_ways_of_answering_are_mixed() -> None:
    answers = [pair.response for pair in write_pairs(seed=1, count=200)]
    unsaid, claims = answers.count(UNSAID), answers.count("Yes") + answers.count("No")
    sentences = sum(answer.endswith(".") for answer in answers) - unsaid

    assert 10 <= unsaid <= 50
    assert 2 <= claims <= 30
    assert 25 <= sentences <= 75


# The grammar's data file: every rule that its head comment states


FORMS = ("span", "sentence", "claim")


def told(say: list[str]) -> set[str]:
    return set.intersection(*(names(text) for text in say))


def templates(genre: dict[str, Any]) -> list[str]:
    """Everything in a genre that is text with holes, but for its slots."""
    found = list(genre["absent"])
    for beat in (genre["lead"], *genre["beats"]):
        found += beat["say"]
        for question in beat.get("ask", ()):
            found += [
                *question["q"],
                *(question[key] for key in ("span", "sentence", "claim", "foil") if key in question),
            ]
    return found


def test_every_word_list_is_filled_from_known_words() -> None:
    words = grammar("closed_qa")["words"]

    assert {
        name: bad for name, entries in words.items() for e in entries if (bad := unknown_holes(e, set(words)))
    } == {}


@pytest.mark.parametrize("name", grammar("closed_qa")["genres"])
def test_every_hole_of_a_genre_is_a_slot_before_it_a_word_a_range_or_a_choice(name: str) -> None:
    genre, known = grammar("closed_qa")["genres"][name], set(grammar("closed_qa")["words"])

    for slot, template in genre["slots"].items():
        assert unknown_holes(template, known) == [], slot
        assert slot not in known or slot == "currency"  # a slot must not hide a word
        known.add(slot)
    for template in templates(genre):
        assert unknown_holes(template, known | {"claim"}) == [], template


@pytest.mark.parametrize("name", grammar("closed_qa")["genres"])
def test_every_slot_of_a_genre_is_used(name: str) -> None:
    genre = grammar("closed_qa")["genres"][name]

    assert set(genre["slots"]) <= set().union(*map(names, [*templates(genre), *genre["slots"].values()]))


@pytest.mark.parametrize("name", grammar("closed_qa")["genres"])
def test_every_question_asks_by_what_is_told_and_for_what_every_alternative_tells(name: str) -> None:
    genre = grammar("closed_qa")["genres"][name]
    lead = told(genre["lead"]["say"])

    for beat in (genre["lead"], *genre["beats"]):
        said = lead | told(beat["say"])
        for question in beat.get("ask", ()):
            (form,) = set(FORMS) & set(question)
            assert names(question[form]) <= said, question[form]
            assert ("foil" in question) == (form == "claim")
            for wording in question["q"]:
                assert names(wording) <= said | {"claim"}, wording
                assert ("{claim}" in wording) == (form == "claim"), wording
                assert not wording.startswith("{"), wording
                assert wording.endswith("?") or form == "sentence", wording
    for wording in genre["absent"]:
        assert names(wording) <= lead, wording


@pytest.mark.parametrize("name", grammar("closed_qa")["genres"])
def test_every_genre_asks_in_every_form(name: str) -> None:
    genre = grammar("closed_qa")["genres"][name]
    questions = [q for beat in (genre["lead"], *genre["beats"]) for q in beat.get("ask", ())]

    assert {form for q in questions for form in ("span", "sentence", "claim") if form in q} == {
        "span",
        "sentence",
        "claim",
    }
    assert genre["absent"]


def test_the_offline_models_are_known_to_litellm_by_one_handler() -> None:
    assert [entry["provider"] for entry in litellm.custom_provider_map] == ["offline"]
