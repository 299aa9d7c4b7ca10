"""What may be asked for, by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.catalogue import Catalogue, Model, Pick

MODEL = Model("closed_qa", "llamaduo-closed_qa", {"champion": 7, "challenger": 9, "lost": 4}, {7: 70, 8: 80, 9: 90})
OTHER = Model("coding", "llamaduo-coding", {}, {1: 10})
BOTH = Catalogue({"closed_qa": MODEL, "coding": OTHER})


@pytest.mark.parametrize(
    ("asked", "number"),
    [
        ("closed_qa", 7),
        ("closed_qa@champion", 7),
        ("closed_qa@challenger", 9),
        ("closed_qa@8", 8),
        ("coding@1", 1),
        ("coding", None),  # no champion yet
        ("closed_qa@lost", None),  # of a version that was deleted
        ("closed_qa@10", None),
        ("closed_qa@08", None),
        ("closed_qa@٨", None),  # a digit, but not one of a version's number
        ("closed_qa@", None),
        ("closed_qa@7@7", None),
        ("@7", None),
        ("", None),
        ("Closed_QA", None),
        ("closed_qa\n", None),
        ("../closed_qa", None),
    ],
)
def test_a_name_is_a_champion_an_alias_or_a_number(asked: str, number: int | None) -> None:
    found = BOTH.find(asked)
    assert (found[1].number if found else None) == number


def test_every_name_that_is_listed_is_found() -> None:
    names = BOTH.names()
    assert names == (
        *("closed_qa", "closed_qa@challenger", "closed_qa@9", "closed_qa@8", "closed_qa@7"),
        "coding@1",
    )
    assert all(BOTH.find(name) for name in names)
    assert BOTH.names(["coding"]) == ("coding@1",)


@given(st.text())
def test_no_text_finds_what_is_not_listed(asked: str) -> None:
    assert (BOTH.find(asked) is not None) == (asked in {*BOTH.names(), "closed_qa@champion"})


def test_an_alias_may_be_held_on_a_version_that_is_gone() -> None:
    held = MODEL.with_alias("champion", Pick(MODEL.name, 3, 30))
    assert held.pick("champion") == Pick(MODEL.name, 3, 30)
    assert held.pick("challenger") == MODEL.pick("challenger")


def test_a_model_comes_back_from_its_row() -> None:
    assert Model.of(json.loads(json.dumps(MODEL.row()))) == MODEL


@given(st.text(min_size=1), st.integers(1, 10**9), st.integers(0, 10**15))
def test_a_key_stands_for_one_version_and_leads_out_of_no_folder(name: str, number: int, made: int) -> None:
    pick = Pick(name, number, made)
    try:
        key = pick.key
    except UnicodeEncodeError:  # half a surrogate pair is no name
        return
    assert Pick.of(key) == pick
    assert key.count("/") == 1
    assert "." not in key


@pytest.mark.parametrize("key", ["", "a", "a/1", "a/b/1-2", "../1-2", "a/1-2\n", "/1-2"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="no version's key"):
        Pick.of(key)
