"""Reference metrics over responses: means by name, and which of them a task has."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import sentence_chrf

from mlflow_llamaduo.core.records import Response
from mlflow_llamaduo.judging.reference import COMPARED, SCORES, chrf, for_task, measure

ROOT = Path(__file__).parents[2]
ALL = tuple(SCORES)
any_text = st.text(st.characters())


def answer(reference: str, text: str) -> Response:
    return Response("p0", 0, "Which town?", reference, text, completion_tokens=3)


def points(reference: str, text: str) -> dict[str, float]:
    return measure([answer(reference, text)], ALL)


def test_the_means_are_those_of_a_hand_calculation() -> None:
    responses = [answer("the old mill", "The Old Mill."), answer("in Arn", "by Bel")]

    assert measure(responses, ["exact_match", "token_f1", "rouge_l", "label_accuracy"]) == {
        "exact_match": 50,
        "token_f1": 50,
        "rouge_l": 50,
        "label_accuracy": 50,
    }
    assert measure([answer("abc", "abd")], ["chrf", "edit_similarity"]) == {
        "chrf": pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3),  # one, two and three characters
        "edit_similarity": pytest.approx(100 * 2 / 3),
    }


@given(st.lists(st.tuples(any_text, any_text), min_size=1, max_size=4))
def test_means_lie_from_0_to_100_and_the_references_themselves_get_100(texts: list[tuple[str, str]]) -> None:
    means = measure([answer(*pair) for pair in texts], ALL)

    assert set(means) == set(ALL)
    assert all(0 <= mean <= 100 for mean in means.values())
    assert measure([answer(one, one) for one, _ in texts], ALL) == dict.fromkeys(ALL, 100)


@given(st.lists(st.tuples(any_text, any_text), min_size=2, max_size=8), st.randoms())
def test_the_order_of_responses_does_not_matter(texts: list[tuple[str, str]], rng: random.Random) -> None:
    responses = [answer(*pair) for pair in texts]

    assert measure(rng.sample(responses, len(responses)), ALL) == measure(responses, ALL)


@given(st.text(min_size=1), st.text(min_size=1))
def test_chrf_is_sacrebleus_own(reference: str, text: str) -> None:
    if reference.split() or text.split():
        assert 100 * chrf(reference, text) == pytest.approx(sentence_chrf(text, [reference]).score)


def test_chrf_weighs_what_is_missing_more_than_what_is_too_much() -> None:
    assert chrf("the old mill at Arn", "the old mill") < chrf("the old mill", "the old mill at Arn")


@pytest.mark.parametrize("reference", ["the old mill", "+", "A"])
def test_an_empty_answer_shares_nothing_with_a_reference(reference: str) -> None:
    assert points(reference, "") == dict.fromkeys(ALL, 0)
    assert points(reference, " \n\x1f") == dict.fromkeys(ALL, 0)


def test_two_texts_without_words_are_alike_only_if_they_are_the_same() -> None:
    assert points("+", "-") == dict.fromkeys(ALL, 0)
    assert points("", " ") == dict.fromkeys(ALL, 100)


def test_what_comes_after_20000_characters_is_not_compared() -> None:
    long = "mill " * (COMPARED // 5)

    assert points(long, f"{long}{'river ' * 200_000}") == dict.fromkeys(ALL, 100)


def test_half_a_character_is_compared_as_the_sign_for_one() -> None:
    assert points("mill \ud800", "mill \ufffd") == dict.fromkeys(ALL, 100)


def test_every_task_has_metrics_that_there_are() -> None:
    assert for_task("closed_qa") == ("exact_match", "token_f1", "rouge_l")
    assert for_task("summarization") == ("rouge_l", "chrf")
    assert for_task("classification") == ("label_accuracy", "exact_match")
    assert for_task("coding") == ("edit_similarity", "chrf")
    assert for_task("poetry") == for_task("") == ("token_f1", "rouge_l", "chrf")
    assert {
        name for task in ("closed_qa", "summarization", "classification", "coding") for name in for_task(task)
    } == {*ALL}


def test_no_responses_have_no_means_and_an_unknown_metric_is_an_error() -> None:
    assert measure([], ALL) == {}
    with pytest.raises(KeyError, match="bleu"):
        measure([answer("Arn", "Arn")], ["bleu"])


def test_the_loop_reckons_without_evaluate_and_what_that_imports() -> None:
    heavy = ("evaluate", "datasets", "torch", "transformers")
    code = (
        "import sys\n"
        "import mlflow_llamaduo.judging\n"
        "assert 'sacrebleu' not in sys.modules\n"
        "from mlflow_llamaduo.judging.reference import SCORES, mean\n"
        "print([mean(name, ['Arn'], ['Arn']) for name in SCORES])\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [str([100.0] * len(SCORES)), "[]"]
