"""The figures of a round's new pairs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.synthesis.diversity import diversity
from tests.unit.builders import pair, pairs

SEEDS = pairs(5, "seed").pairs


def test_pairs_of_all_different_words_are_distinct_and_far_from_every_seed() -> None:
    figures = diversity([pair(" ".join(f"n{i}w{w}" for w in range(12)), f"r{i}") for i in range(4)], SEEDS)

    assert figures["distinct_1"] == figures["distinct_2"] == figures["distinct_3"] == 1
    assert figures["nearest_seed_max"] == 0


def test_the_same_pair_again_and_again_is_not_distinct() -> None:
    figures = diversity([SEEDS[0]] * 10, SEEDS)

    assert figures["distinct_2"] == pytest.approx(0.1)
    assert figures["nearest_seed_mean"] == figures["nearest_seed_max"] == 1


def test_length_ratios_compare_mean_numbers_of_words_with_the_seeds() -> None:
    seeds = [pair("one two three four", "five six")] * 2
    figures = diversity([pair("one two", "three"), pair("one two", "three four five")], seeds)

    assert figures["prompt_length_ratio"] == 0.5
    assert figures["response_length_ratio"] == 1.0


def test_without_new_pairs_or_seeds_there_are_no_figures() -> None:
    assert diversity([], SEEDS) == {}
    assert diversity(SEEDS, []) == {}


@given(st.lists(st.builds(pair, st.text(), st.text()), min_size=1, max_size=5))
def test_figures_of_any_texts_are_shares_or_ratios(new: list[Pair]) -> None:
    figures = diversity(new, new)

    assert all(0 <= value <= 1 for name, value in figures.items())
