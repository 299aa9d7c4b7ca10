import random

from mlflow_llamaduo.core.records import PairSet
from mlflow_llamaduo.inference.few_shot import examples
from tests.unit.builders import pair


def of_lengths(*lengths: int, response: str = "") -> PairSet:
    return PairSet(tuple(pair("x" * length, response or f"answer {length}") for length in lengths))


def test_examples_are_of_the_most_usual_length() -> None:
    chosen = examples(of_lengths(10, 50, 52, 49, 300), 3)

    assert sorted(len(p.instruction) for p in chosen) == [49, 50, 52]


def test_different_responses_come_before_equal_ones() -> None:
    same, other = of_lengths(50, 51, 52, response="A"), of_lengths(90, response="B")
    chosen = examples(PairSet((*same, *other)), 2)

    assert {p.response for p in chosen} == {"A", "B"}
    assert [p.response for p in examples(PairSet((*same, *other)), 4)].count("A") == 3


def test_the_same_pairs_in_any_order_give_the_same_examples() -> None:
    pairs = list(of_lengths(*range(20, 40)))
    first = examples(PairSet(tuple(pairs)), 4)
    random.Random(3).shuffle(pairs)  # noqa: S311

    assert examples(PairSet(tuple(pairs)), 4) == first


def test_synthetic_pairs_are_no_examples_so_that_every_round_has_the_same() -> None:
    written = tuple(pair(f"s{n}", "new", source="synthetic/1") for n in range(5))
    coverage = of_lengths(10, 20, 30)

    assert examples(coverage.with_(written), 2) == examples(coverage, 2)
    assert examples(PairSet(written), 2) == ()


def test_there_are_no_more_examples_than_pairs() -> None:
    assert len(examples(of_lengths(10, 20), 5)) == 2
    assert examples(PairSet(()), 3) == ()
