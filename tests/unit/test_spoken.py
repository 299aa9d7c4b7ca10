from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.serving.spoken import Spoken
from tests.unit.families import family

LETTERS = [*"ab \n.", "é", "热", "\N{GRINNING FACE}"]


def bytewise(ids: Sequence[int]) -> str:
    """A tokenizer whose tokens are bytes: letters come in pieces."""
    return bytes(ids).decode(errors="replace")


def said(text: str, stops: Sequence[str] = ()) -> tuple[list[str], bool]:
    spoken = Spoken(bytewise, stops)
    pieces = [spoken.take(token) for token in text.encode()]
    return [*pieces, spoken.end()], spoken.stopped


@given(st.text(LETTERS, max_size=20))
def test_the_pieces_are_the_text_without_the_space_around_it(text: str) -> None:
    pieces, _ = said(text)
    assert "".join(pieces) == text.strip()
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


@given(st.text(LETTERS, max_size=20), st.lists(st.text(LETTERS, min_size=1, max_size=4), min_size=1, max_size=3))
def test_an_answer_ends_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    pieces, stopped = said(text, stops)
    places = [end - len(stop) for end in range(len(text) + 1) for stop in stops if text[:end].endswith(stop)]
    # What ends first counts, and of two that end together the one that began first.
    ends = [end for end in range(len(text) + 1) for stop in stops if text[:end].endswith(stop)]
    first = min((end, place) for end, place in zip(ends, places, strict=True)) if ends else None
    assert stopped is bool(first)
    assert "".join(pieces) == (text[: first[1]] if first else text).strip()


def test_what_could_become_a_stop_string_is_held_back_until_it_cannot() -> None:
    spoken = Spoken(bytewise, ["END"])
    assert [spoken.take(token) for token in b"xENEND y"] == ["x", "", "", "EN", "", "", "", ""]
    assert spoken.stopped


@pytest.mark.parametrize("name", ["smollm2", "gemma", "mistral", "llama3"])
@given(words=st.lists(st.sampled_from(["fox", "dog", "the", " sea", "\n", "é", "热", ".", " "]), max_size=8))
def test_a_tokenizers_pieces_are_its_text(name: str, words: list[str]) -> None:
    tokenizer = family(name)

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))

    ids = tokenizer.encode(" ".join(words), add_special_tokens=False)
    spoken = Spoken(decode)
    pieces = [spoken.take(token) for token in ids]
    assert "".join([*pieces, spoken.end()]) == decode(ids).strip()
