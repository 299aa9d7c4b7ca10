"""A running service goes by the registry, as far as it can."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.core.catalogue import Catalogue, Model, Pick
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.serving.following import AGAIN_AFTER_S, Following
from mlflow_llamaduo.serving.shelf import Shelf

NAME = "llamaduo-qa"


def catalogue(champion: int | None, *versions: int) -> Catalogue:
    aliases = {} if champion is None else {"champion": champion}
    return Catalogue({"qa": Model("qa", NAME, aliases, {number: number * 10 for number in versions})})


class World:
    """A registry's content, versions that do not load, and a clock."""

    def __init__(self, shelf: Shelf, champion: int | None, *versions: int) -> None:
        for model in catalogue(champion, *versions).models.values():
            shelf.keep(model)
        self.bad: set[int] = set()
        self.loaded: list[int] = []
        self.now = 0.0
        self.following = Following(shelf, {"qa": NAME}, 1.0, self.load, lambda: self.now)
        self.following.turn(self.following.catalogue)

    def load(self, pick: Pick) -> str | None:
        self.loaded.append(pick.number)
        return f"version {pick.number} is broken" if pick.number in self.bad else None

    def sees(self, champion: int | None, *versions: int) -> int | None:
        """The version that the champion's name stands for, after the registry has become that."""
        self.following.turn(catalogue(champion, *versions))
        found = self.following.catalogue.find("qa")
        return found[1].number if found else None


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(str(tmp_path), live=False)


def test_a_new_champion_is_loaded_before_it_is_served_and_a_rollback_too(shelf: Shelf) -> None:
    world = World(shelf, 1, 1)
    assert world.following.ready
    assert world.sees(2, 1, 2) == 2
    assert world.sees(2, 1, 2) == 2
    assert world.sees(1, 1, 2) == 1
    assert world.loaded == [1, 2, 1]


def test_a_champion_that_does_not_load_is_not_served_and_is_tried_again_later(shelf: Shelf) -> None:
    world = World(shelf, 1, 1)
    world.bad = {2}
    assert world.sees(2, 1, 2) == 1
    assert world.following.behind == {"qa": "version 2 is broken"}
    world.bad = set()
    world.now = AGAIN_AFTER_S - 1
    assert world.sees(2, 1, 2) == 1
    assert world.loaded == [1, 2]
    world.now = AGAIN_AFTER_S
    assert world.sees(2, 1, 2) == 2
    assert world.following.behind == {}


def test_the_champion_stays_when_its_alias_or_its_version_is_deleted(shelf: Shelf) -> None:
    world = World(shelf, 1, 1, 2)
    assert world.sees(None, 1, 2) == 1
    assert world.following.behind == {"qa": "no version has the alias champion"}
    assert world.sees(1, 2) == 1
    assert world.sees(2, 2) == 2


def test_a_version_made_anew_under_an_old_number_is_another_one(shelf: Shelf) -> None:
    world = World(shelf, 1, 1)
    world.following.turn(Catalogue({"qa": Model("qa", NAME, {"champion": 1}, {1: 999})}))
    found = world.following.catalogue.find("qa")
    assert found is not None
    assert found[1].made == 999
    assert world.loaded == [1, 1]


def test_without_a_champion_it_is_ready_for_who_asks_by_number(shelf: Shelf) -> None:
    world = World(shelf, None, 3)
    assert world.following.ready
    assert world.following.catalogue.find("qa@3")
    assert world.following.catalogue.find("qa") is None


def test_it_is_not_ready_while_a_champion_is_not_loaded(shelf: Shelf) -> None:
    shelf.keep(Model("qa", NAME, {"champion": 1}, {1: 10}))
    following = Following(shelf, {"qa": NAME}, 1.0, lambda _: "no")
    assert not following.ready
    following.turn(following.catalogue)
    assert not following.ready


def test_mlflow_may_be_away_once_it_has_been_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(str(tmp_path), live=True)

    def away(self: Shelf, names: Mapping[str, str]) -> Catalogue:
        raise MlflowException("connection refused")

    monkeypatch.setattr(Shelf, "look", away)
    with pytest.raises(DataError, match=r"MLflow is needed once; it says: connection refused"):
        shelf.seen({"qa": NAME})
    shelf.keep(Model("qa", NAME, {"champion": 1}, {1: 10}))
    found, why = shelf.seen({"qa": NAME})
    assert found.find("qa")
    assert why == "connection refused"


def test_a_cache_that_somebody_else_wrote_is_one_clear_line(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path), live=False)
    shelf.keep(Model("qa", NAME, {}, {}))
    (file,) = tmp_path.rglob("model.json")
    file.write_text("[]")
    with pytest.raises(DataError, match=r"model\.json is not as llamaduo writes it .*: remove it"):
        shelf.stored({"qa": NAME})
