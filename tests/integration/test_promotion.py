"""Aliases and words of reviewers on a real MLflow registry (SQLite)."""

import threading
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_llamaduo.errors import ConfigError, DataError, LlamaDuoError, StageError
from mlflow_llamaduo.promotion import Promotions, Word, now

NAME = "llamaduo-closed_qa"
ANN = Word("ann", "reads well")


@pytest.fixture(autouse=True)
def client(tmp_path: Path) -> MlflowClient:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    client = MlflowClient()
    client.create_registered_model(NAME)
    return client


@pytest.fixture
def version(client: MlflowClient) -> Callable[..., int]:
    """Makes another version, as a run leaves it."""

    def make(decision: str = "passed: precision_mean 80.0 >= 70") -> int:
        made = client.create_model_version(NAME, source="/nowhere", tags={"llamaduo.decision": decision})
        return int(made.version)

    return make


def aliases() -> dict[str, int]:
    return {alias: int(number) for alias, number in MlflowClient().get_registered_model(NAME).aliases.items()}


def tags(number: int) -> dict[str, str]:
    return dict(MlflowClient().get_model_version(NAME, str(number)).tags)


def test_a_promotion_says_who_when_and_why(version: Callable[..., int]) -> None:
    before = now()
    assert Promotions(NAME).promote(version(), ANN) is None
    assert aliases() == {"champion": 1}
    found = tags(1)
    assert (found["llamaduo.review"], found["llamaduo.reviewer"], found["llamaduo.reason"]) == (
        "promoted",
        "ann",
        "reads well",
    )
    assert before < found["llamaduo.reviewed_at"] < now()
    assert "llamaduo.override" not in found


def test_the_champion_before_is_where_a_rollback_goes_and_further(version: Callable[..., int]) -> None:
    promotions = Promotions(NAME)
    for _ in range(3):
        promotions.promote(version(), ANN)
    assert aliases() == {"champion": 3, "previous": 2}

    assert promotions.rollback(Word("bob", "it rambles", "rolled back")) == (2, 3)
    assert aliases() == {"champion": 2, "previous": 1}
    assert tags(3)["llamaduo.review"] == "rolled back"
    assert tags(2)["llamaduo.reason"] == "back from version 3: it rambles"

    assert promotions.rollback(Word("bob", "this one too", "rolled back")) == (1, 2)
    assert aliases() == {"champion": 1}
    with pytest.raises(DataError, match="has no champion before version 1: name one with --version"):
        promotions.rollback(Word("bob", "and this", "rolled back"))
    with pytest.raises(ConfigError, match=r"version 3 was rolled back by bob \(it rambles\): name another one"):
        promotions.rollback(Word("bob", "take the third", "rolled back"), to=3)
    assert aliases() == {"champion": 1}


def test_a_rollback_to_a_version_by_its_number(version: Callable[..., int]) -> None:
    promotions = Promotions(NAME)
    for _ in range(3):
        promotions.promote(version(), ANN)
    assert promotions.rollback(Word("bob", "far back", "rolled back"), to=1) == (1, 3)
    assert aliases() == {"champion": 1}


def test_a_champion_before_that_was_rejected_since_is_no_way_back(version: Callable[..., int]) -> None:
    promotions = Promotions(NAME)
    promotions.promote(version(), ANN)
    promotions.promote(version(), ANN)
    promotions.reject(1, Word("eve", "it lies", "rejected"))
    with pytest.raises(ConfigError, match=r"version 1 was rejected by eve \(it lies\)"):
        promotions.rollback(Word("bob", "it rambles", "rolled back"))
    assert aliases() == {"champion": 2, "previous": 1}


def test_every_word_stays_for_ever(version: Callable[..., int]) -> None:
    promotions = Promotions(NAME)
    promotions.promote(version(), ANN)
    promotions.promote(version(), ANN)
    promotions.rollback(Word("bob", "it rambles", "rolled back"))
    promotions.promote(2, Word("eve", "it does not"), override=True)
    said = [value for key, value in sorted(tags(2).items()) if key.startswith("llamaduo.review.")]
    assert said == ["promoted by ann: reads well", "rolled back by bob: it rambles", "promoted by eve: it does not"]


@pytest.mark.parametrize("spoiled", ["gate", "rejected", "rolled back"])
def test_what_speaks_against_a_version_needs_an_override_and_the_version_says_so(
    version: Callable[..., int], spoiled: str
) -> None:
    promotions = Promotions(NAME)
    first, second = version(), version("not passed: precision_mean 40.0 < 70" if spoiled == "gate" else "passed: ok")
    promotions.promote(first, ANN)
    if spoiled == "rejected":
        promotions.reject(second, Word("bob", "it lies", "rejected"))
    if spoiled == "rolled back":
        promotions.promote(second, ANN)
        promotions.rollback(Word("bob", "it lies", "rolled back"))
    why = {"gate": "did not pass its gate (precision_mean 40.0 < 70)"}.get(spoiled, f"was {spoiled} by bob (it lies)")

    with pytest.raises(ConfigError, match=r"version 2 .* promote it with --override, or another one") as caught:
        promotions.promote(second, Word("eve", "ship it"))
    assert why in str(caught.value)
    assert aliases()["champion"] == first

    promotions.promote(second, Word("eve", "ship it"), override=True)
    promotions.promote(first, ANN)
    assert tags(second)["llamaduo.override"].endswith(f"eve: ship it (it {why})")


def test_a_rejected_challenger_is_none_any_more_and_a_champion_is_rolled_back_instead(
    client: MlflowClient, version: Callable[..., int]
) -> None:
    promotions = Promotions(NAME)
    client.set_registered_model_alias(NAME, "challenger", str(version()))
    promotions.reject(1, Word("bob", "too long", "rejected"))
    assert aliases() == {}
    promotions.promote(version(), ANN)
    with pytest.raises(ConfigError, match="version 2 is champion: llamaduo rollback"):
        promotions.reject(2, Word("bob", "too long", "rejected"))


def test_an_alias_that_was_moved_in_the_ui_is_a_promotion(client: MlflowClient, version: Callable[..., int]) -> None:
    promotions = Promotions(NAME)
    promotions.promote(version(), ANN)
    client.set_registered_model_alias(NAME, "champion", str(version()))
    assert promotions.alias("champion") == 2
    promotions.promote(version(), ANN)
    assert aliases() == {"champion": 3, "previous": 2}


def test_promoting_the_champion_again_changes_nothing(version: Callable[..., int]) -> None:
    promotions = Promotions(NAME)
    promotions.promote(version(), ANN)
    before = tags(1)
    assert promotions.promote(1, Word("bob", "me too")) == 1
    assert tags(1) == before


WRITES = ("set_registered_model_alias", "delete_registered_model_alias", "set_model_version_tag")


def broken_off(act: Callable[[], object], after: int) -> bool:
    """Ctrl-C at a write, when so many are done; False if there are no more."""
    left = [after]
    with pytest.MonkeyPatch.context() as patch:
        for name in WRITES:
            real = getattr(MlflowClient, name)

            def write(*given: object, real: Callable[..., object] = real, **named: object) -> object:
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                return real(*given, **named)

            patch.setattr(MlflowClient, name, write)
        try:
            act()
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.parametrize("after", range(8))
def test_a_promotion_that_was_broken_off_is_made_again(version: Callable[..., int], after: int) -> None:
    promotions = Promotions(NAME)
    promotions.promote(version(), ANN)
    number = version()
    assert broken_off(lambda: promotions.promote(number, ANN), after)

    promotions.promote(number, Word("bob", "once more"))
    assert aliases() == {"champion": 2, "previous": 1}
    found = tags(number)
    assert (found["llamaduo.review"], found["llamaduo.reviewer"]) == ("promoted", "bob")
    assert found["llamaduo.reason"] == "once more"
    assert found["llamaduo.replaced"] == "1"


@pytest.mark.parametrize("after", range(12))
def test_a_rollback_that_was_broken_off_and_is_made_again_goes_no_further(
    version: Callable[..., int], after: int
) -> None:
    promotions = Promotions(NAME)
    for _ in range(3):
        promotions.promote(version(), ANN)
    again = Word("bob", "it rambles", "rolled back")
    assert broken_off(lambda: promotions.rollback(again), after)

    if aliases()["champion"] == 3:
        promotions.rollback(again)
        assert aliases() == {"champion": 2, "previous": 1}
    assert aliases()["champion"] == 2
    assert tags(3)["llamaduo.review"] == "rolled back"


def test_a_champion_by_its_alias_alone_is_promoted_with_a_word(
    client: MlflowClient, version: Callable[..., int]
) -> None:
    client.set_registered_model_alias(NAME, "champion", str(version()))
    assert Promotions(NAME).promote(1, ANN) == 1
    assert aliases() == {"champion": 1}
    assert tags(1)["llamaduo.reason"] == "reads well"


@pytest.mark.parametrize("others", [2, 5])
def test_of_promotions_at_once_one_wins_and_the_others_are_told(version: Callable[..., int], others: int) -> None:
    Promotions(NAME).promote(version(), ANN)
    numbers = [version() for _ in range(others)]
    together, looked = threading.Barrier(others, timeout=60), now()
    told: dict[int, str] = {}

    def promote(number: int) -> None:
        promotions = Promotions(NAME)
        together.wait()
        try:
            promotions.promote(number, Word(f"reviewer {number}", "mine"), since=looked)
            told[number] = "won"
        except StageError as error:
            told[number] = str(error)

    threads = [threading.Thread(target=promote, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [number for number, said in told.items() if said == "won"]
    assert aliases() == {"champion": winner, "previous": 1}
    for number in set(numbers) - {winner}:
        assert f"by reviewer {winner}: mine" in told[number] or "is moving its aliases" in told[number]
        assert "llamaduo.review" not in tags(number)
    left = MlflowClient().get_registered_model(NAME).tags
    assert not [key for key in left if key.startswith("llamaduo.claim.")]


def test_a_claim_of_a_process_that_died_holds_nobody_up(client: MlflowClient, version: Callable[..., int]) -> None:
    client.set_registered_model_tag(NAME, "llamaduo.claim.dead", "1000.0 somebody")
    Promotions(NAME).promote(version(), ANN)
    assert client.get_registered_model(NAME).tags == {}


def test_somebody_elses_champion_is_told_to_who_looked_before_it(version: Callable[..., int]) -> None:
    looked = now()
    promotions = Promotions(NAME)
    promotions.promote(version(), Word("bob", "first"))
    with pytest.raises(StageError, match=r"version 1 was made champion while you decided \(by bob: first\)"):
        promotions.promote(version(), ANN, since=looked)
    assert aliases() == {"champion": 1}


@pytest.mark.parametrize("act", ["promote", "reject", "rollback"])
def test_a_version_that_is_not_there_is_told_with_those_that_are(version: Callable[..., int], act: str) -> None:
    promotions = Promotions(NAME)
    promotions.promote(version(), ANN)
    acts: dict[str, Callable[[], object]] = {
        "promote": lambda: promotions.promote(7, ANN),
        "reject": lambda: promotions.reject(7, ANN),
        "rollback": lambda: promotions.rollback(ANN, to=7),
    }
    with pytest.raises(DataError, match="has no version 7; it has 1"):
        acts[act]()


def test_a_version_that_somebody_else_made_is_not_promoted(client: MlflowClient) -> None:
    client.create_model_version(NAME, source="/nowhere")
    with pytest.raises(LlamaDuoError, match="was not made by llamaduo"):
        Promotions(NAME).promote(1, ANN)
