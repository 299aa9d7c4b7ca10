"""Which rows give a held-out prompt away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.leaks import leaked

LETTERS = "abcdefghijklmnopqrstuvwxyz0"
TEST = " ".join(f"test{letter}" for letter in LETTERS)  # 27 words
OTHER = " ".join(f"own{letter}" for letter in LETTERS)


def leaks(row: str, *prompts: str) -> int | None:
    """The number of the prompt that a row gives away."""
    return leaked([row], prompts).get(0, (None, 0.0))[0]


def words(name: str, count: int) -> list[str]:
    return [f"{name}{number}" for number in range(count)]


@pytest.mark.parametrize(("count", "found"), [(0, None), (7, None), (8, 0), (20, 0), (27, 0)])
def test_a_row_leaks_from_27_hundredths_of_the_prompts_words_on(count: int, found: int | None) -> None:
    row = " ".join([*TEST.split()[:count], *OTHER.split()[count:]])

    assert leaks(row, TEST) == found


@pytest.mark.parametrize("length", [18, 24, 40, 75, 100, 149, 150, 300])
@pytest.mark.parametrize("at", ["start", "middle", "end"])
def test_a_quoted_third_of_a_prompt_is_found_whatever_its_length_and_place(length: int, at: str) -> None:
    prompt, third = words("p", length), -(-length // 3)
    first = {"start": 0, "middle": (length - third) // 2, "end": length - third}[at]
    row = [*words("before", 40), *prompt[first : first + third], *words("after", 40)]

    assert leaked([" ".join(row)], [OTHER, " ".join(prompt)])[0][0] == 1


def test_a_row_that_shares_no_run_of_six_words_leaks_nothing() -> None:
    prompt = words("p", 60)
    row = [word for first in range(0, 60, 5) for word in [*prompt[first : first + 5], f"own{first}"]]

    assert leaks(" ".join(row), " ".join(prompt)) is None


def test_a_row_that_is_half_a_quotation_leaks_though_the_prompt_is_long() -> None:
    prompt = words("p", 300)

    assert leaks(" ".join([*prompt[50:62], *words("own", 10)]), " ".join(prompt)) == 0
    assert leaks(" ".join([*prompt[50:61], *words("own", 10)]), " ".join(prompt)) is None


def test_a_prompt_quoted_whole_leaks_whatever_its_case_and_punctuation() -> None:
    quoted = ", ".join(TEST.upper().split())

    assert leaks(f"{OTHER} {OTHER}\n\nNow: {quoted}!", TEST) == 0


def test_a_prompt_of_few_words_leaks_when_it_is_quoted_whole() -> None:
    prompt = "What is the capital of France?"

    assert leaks("Answer in one word: what is the capital of France? Think first.", prompt) == 0
    assert leaks("What is the capital of Peru, and who founded it?", prompt) is None
    assert leaks("Tell me: who painted the ceiling? Be brief.", "Who painted the ceiling?") == 0


def test_a_prompt_of_one_to_three_words_leaks_only_to_the_same_words() -> None:
    assert leaks("who wrote faust", "Who wrote Faust?") == 0
    assert leaks("I wonder who wrote Faust and why.", "Who wrote Faust?") is None
    assert leaks("Hello world", "Hello") is None


def test_of_several_prompts_the_one_that_is_given_away_most_is_named() -> None:
    row = " ".join([*TEST.split()[:10], *OTHER.split()[:20]])

    assert leaks(row, TEST, OTHER) == 1
    assert leaks(f"{row} and {TEST}", TEST, OTHER) == 0
    assert leaks(TEST, f"{TEST} {OTHER}", TEST) == 1


def test_the_template_of_a_task_gives_nothing_away() -> None:
    template = (
        "Read the text and then say which of these it is about: sport, music, farming, law, medicine or travel."
    )
    prompts = [f"{template} {' '.join(words(f'test{n}x', 12))}" for n in range(3)]
    rows = [f"{template} {' '.join(words(f'row{n}x', 12))}" for n in range(30)]
    quoting = f"Sort this. {' '.join(words('test1x', 12))}"

    assert leaked([*rows, quoting], prompts) == {30: (1, 1.0)}


@pytest.mark.parametrize("count", [1, 8, 9, 60])
def test_a_prompt_that_many_rows_quote_is_found_in_all_of_them(count: int) -> None:
    prompt = " ".join(words("p", 40))
    quoting = [f"{' '.join(words(f'own{n}x', 10))} {prompt} {n}" for n in range(count)]
    clean = [" ".join(words(f"row{n}x", 50)) for n in range(500)]

    assert set(leaked([*clean, *quoting], [prompt, OTHER])) == set(range(500, 500 + count))


def test_a_rare_template_counts_as_shared_text() -> None:
    template = " ".join(words("shared", 20))
    rows = [f"{template} {' '.join(words(f'row{n}x', 12))}" for n in range(8)]

    assert len(leaked(rows, [f"{template} own words here"])) == 8


def test_prompts_without_a_word_give_nothing_away() -> None:
    assert leaks("!!!", "???") is None
    assert leaks("", "") is None


def test_without_prompts_or_rows_nothing_leaks() -> None:
    assert leaked([TEST], []) == {}
    assert leaked([], [TEST]) == {}


def test_scripts_without_spaces_are_compared_by_the_letter() -> None:
    prompt = (
        "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3042\u308a\u4eba\u53e3\u304c\u591a\u3044\u3067\u3059"
    )

    assert leaks(f"\u6b21\u306e\u6587: {prompt[:12]}", prompt) == 0
    assert leaks("\u5927\u962a\u306f\u897f\u306b\u3042\u308b\u753a\u3060", prompt) is None


@given(st.lists(st.text(max_size=60), max_size=8), st.lists(st.text(max_size=60), max_size=4))
def test_any_texts_can_be_compared_and_the_same_words_always_leak(rows: list[str], prompts: list[str]) -> None:
    found = leaked([*rows, *prompts], prompts)

    for row, (prompt, share) in found.items():
        assert 0 <= row < len(rows) + len(prompts)
        assert 0 <= prompt < len(prompts)
        assert 0 <= share <= 1
    for number, text in enumerate(prompts):
        if any(letter.isalnum() for letter in text):
            assert len(rows) + number in found
