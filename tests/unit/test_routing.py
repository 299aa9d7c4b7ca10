"""Who answers which request."""

from collections import Counter

import pytest

from mlflow_llamaduo.config import Canary
from mlflow_llamaduo.core.catalogue import Catalogue, Model
from mlflow_llamaduo.serving.routing import champion_of, place, route

MODEL = Model("qa", "llamaduo-qa", {"champion": 1, "challenger": 2}, {1: 10, 2: 20})
CATALOGUE = Catalogue({"qa": MODEL})


def chosen(who: str, canary: Canary | None, asked: str = "qa") -> tuple[int, str]:
    found = route(CATALOGUE, asked, who, canary)
    assert found is not None
    return found.pick.number, found.how


@pytest.mark.parametrize("percent", [1, 5, 20, 50])
def test_a_canary_answers_its_share_of_those_who_ask(percent: float) -> None:
    found = Counter(chosen(f"user-{n}", Canary(percent=percent)) for n in range(20_000))
    assert set(found) == {(1, "champion"), (2, "canary")}
    assert 100 * found[2, "canary"] / 20_000 == pytest.approx(percent, abs=0.8)


def test_who_has_asked_the_canary_once_asks_it_always_and_with_more_percent_too() -> None:
    few, more = Canary(percent=10), Canary(percent=30)
    for n in range(500):
        who = f"user-{n}"
        assert chosen(who, few) == chosen(who, few)
        assert chosen(who, more)[1] == "canary" or chosen(who, few)[1] == "champion"


def test_another_canary_has_other_users() -> None:
    assert len({place(pick, "user-1") for pick in ("a/1-1", "a/2-1", "b/1-1")}) == 3


def test_who_is_not_known_falls_anywhere() -> None:
    assert {chosen("", Canary(percent=50))[1] for _ in range(200)} == {"canary", "champion"}


@pytest.mark.parametrize(
    "canary", [None, Canary(), Canary(to="gone", percent=100), Canary(to="champion", percent=100)]
)
def test_without_a_canary_the_champion_answers_all(canary: Canary | None) -> None:
    assert {chosen(f"user-{n}", canary) for n in range(50)} == {(1, "champion")}


def test_a_version_that_was_named_is_no_canarys() -> None:
    everyone = Canary(percent=100)
    assert chosen("a", everyone, "qa@1") == (1, "named")
    assert chosen("a", everyone, "qa@champion") == (1, "named")
    assert chosen("a", everyone) == (2, "canary")
    assert route(CATALOGUE, "other", "a", everyone) is None


def test_the_champion_takes_a_canarys_place() -> None:
    found = route(CATALOGUE, "qa", "a", Canary(percent=100))
    assert found is not None
    assert (champion_of(found).pick.number, champion_of(found).how) == (1, "champion")
