"""The offline judge prefers by metrics, says what it is, and treats both places alike."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_llamaduo.service_llm.offline.judges import JUDGES, assess
from mlflow_llamaduo.service_llm.offline.llm import judge
from mlflow_llamaduo.service_llm.offline.pairwise import prefer

DESKS = "Which desk? Choose from Billing, Shipping or Repairs.\n\nHello, my bill is wrong."
TALE = "Arn lies on the Senna. Its bridge was built in 1820.\n\nWhen was the bridge built?"


def winner(first: str, second: str, *, reference: str | None = None, **more: str) -> str:
    asked = {"task": "closed_qa", "instruction": TALE, "first": first, "second": second, **more}
    return str(prefer(asked if reference is None else {**asked, "reference": reference})["winner"])


@pytest.mark.parametrize(
    ("task", "instruction", "reference", "better", "worse"),
    [
        ("closed_qa", TALE, "1820", "1820", "1830"),
        ("closed_qa", TALE, "1820", "In 1820", "It was built long ago, some say in the year 1820 or so"),
        ("classification", DESKS, "Billing", "The desk is Billing.", "Billing or Repairs"),
        (
            "coding",
            "A function, please.",
            "def f(x):\n    return x + 1",
            "def g(y):\n    return y + 1",
            "f(x) = x + 1",
        ),
        ("summarization", "Sum up.", "The mill closes in May.", "The mill is closing in May.", "It rained."),
        ("haiku", "Write.", "old pond", "an old pond", "a frog"),
    ],
)
def test_with_a_reference_the_higher_precision_by_the_tasks_own_metric_wins(
    task: str, instruction: str, reference: str, better: str, worse: str
) -> None:
    known = {"task": task, "instruction": instruction, "reference": reference}

    assert winner(better, worse, **known) == "first"
    assert winner(worse, better, **known) == "second"


def test_within_five_points_is_a_tie() -> None:
    words = [f"w{number}" for number in range(100)]
    reference = " ".join(words)

    def short_of(missing: int) -> str:
        return " ".join(words[missing:])

    near, far = (assess("closed_qa", reference, short_of(missing))[1].share for missing in (6, 8))
    assert 1 - near < 0.05 < 1 - far
    assert winner(reference, short_of(6), reference=reference) == "tie"
    assert winner(reference, short_of(8), reference=reference) == "first"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("1820", "a hundred years", "first"),
        ("a hundred years", "built in 1820", "second"),
        ("1820", "the Senna", "tie"),
        ("", "1820", "second"),
        ("", "...", "tie"),
        ("built " * 11 + "x " * 9, "built " * 10 + "x " * 10, "tie"),  # 55 and 50: five points, whatever floats say
        ("built " * 6 + "x " * 14, "built " * 5 + "x " * 15, "tie"),  # 30 and 25
        ("built " * 56 + "x " * 44, "built " * 50 + "x " * 50, "first"),
    ],
)
def test_without_a_reference_the_share_of_words_that_the_instruction_holds_decides(
    first: str, second: str, expected: str
) -> None:
    assert winner(first, second) == expected


def test_it_says_what_it_is_and_that_without_a_reference_it_has_no_opinion() -> None:
    asked = {"instruction": TALE, "first": "1820", "second": "1830"}

    assert prefer(asked)["reason"].startswith("offline stand-in: no opinion")
    assert prefer({**asked, "reference": "1820"})["reason"] == (
        "offline stand-in: precision 100.0 and 0.0 by the task's metric"
    )


def test_the_judge_tells_a_comparison_from_a_scoring_by_its_fields() -> None:
    asked: dict[str, Any] = {"task": "closed_qa", "instruction": TALE, "reference": "1820"}

    assert set(judge({**asked, "first": "1820", "second": "x"})) == {"winner", "reason"}
    assert set(judge({**asked, "response": "1820"})) == {"similarity_assessment", "precision_assessment"}


TEXT = st.text(st.sampled_from('ab1820. \n"or,[]{}\u00e9\ud83d'), max_size=40)


@given(st.sampled_from([*JUDGES, "haiku"]), TEXT, st.none() | TEXT, TEXT, TEXT)
@example("classification", DESKS, None, "Billing", "Repairs, Repairs")
def test_swapped_answers_swap_the_winner(
    task: str, instruction: str, reference: str | None, one: str, other: str
) -> None:
    known = {"task": task, "instruction": instruction}
    there, back = winner(one, other, reference=reference, **known), winner(other, one, reference=reference, **known)

    assert {"first": "second", "second": "first", "tie": "tie"}[there] == back
