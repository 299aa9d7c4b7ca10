"""Who is served: the aliases of a registered model, and what people have said of its versions.

    challenger   passed its gate last
    champion     is served
    previous     was champion before: where a rollback goes

Who moves an alias in the MLflow UI has promoted, too: nothing but the aliases is followed. What is said here is kept
in tags of the version, the last word in `llamaduo.review` and its kin, and each of them in a tag of its own:

    llamaduo.review              pending, auto, promoted, rejected, rolled back
    llamaduo.reviewer, llamaduo.reviewed_at, llamaduo.reason
    llamaduo.review.<time>       "promoted by ann: reads well", for ever
    llamaduo.override            who promoted it against its gate or a rejection, for ever
    llamaduo.replaced            the champion before it

MLflow moves an alias for whoever asks; it knows no "only if". So whoever is about to move one leaves a claim first, a
tag of the registered model under a name of its own, and goes on only where no other is to be seen.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlflow_llamaduo.errors import ConfigError, DataError, StageError

CLAIM = "llamaduo.claim."
STALE_S = 60.0
"""A claim that is older was left by a process that died."""
TRIES = 6
WAIT_S = 0.2
NOWHERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers where there is no such model, version or alias."""


@dataclass(frozen=True, slots=True)
class Word:
    """What somebody says of a version: who, why, and what kind of word it is; `at` is now if nothing is given."""

    by: str
    reason: str
    kind: str = "promoted"
    at: str = ""

    @property
    def time(self) -> str:
        """UTC, to the microsecond, so that two words are in order."""
        return self.at or now()


def now() -> str:
    """UTC as ISO 8601, to the microsecond, with a Z: MLflow takes no plus in a tag's name."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Promotions:
    """The aliases of one registered model.

    Args:
        name: `llamaduo-<task>`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._client = MlflowClient()

    def alias(self, alias: str) -> int | None:
        """The number of the version that an alias stands for, or None."""
        try:
            return int(self._client.get_model_version_by_alias(self._name, alias).version)
        except MlflowException as error:
            if error.error_code in NOWHERE:
                return None
            raise

    def challenge(self, number: int) -> None:
        """Make a version challenger, if nothing speaks against it: one that is found again may have been rejected."""
        if not _objection(self._version(number)):
            self._client.set_registered_model_alias(self._name, "challenger", str(number))

    def promote(self, number: int, word: Word, *, override: bool = False, since: str | None = None) -> int | None:
        """Make a version champion; the old one becomes `previous`.

        Args:
            number: of the version.
            word: who promotes it, and why.
            override: also where its gate said no, or somebody has rejected it; the version says so from then on.
            since: when the reviewer looked, as `now` gives it; now if nothing is given.

        Returns:
            the champion before; `number` itself if it was champion already. Then no alias is moved, and the word is
            kept only where none is: the alias was moved in the UI, or an earlier promotion was broken off.

        Raises:
            DataError: there is no such version, or it was not made by llamaduo.
            ConfigError: its gate said no, or it was rejected, and there is no `override`.
            StageError: another champion was made meanwhile.
        """
        since, seen = since or now(), self.alias("champion")
        version = self._version(number)
        against = _objection(version)
        if against and not override:
            raise ConfigError(f"{self._name} version {number} {against}: promote it with --override, or another one")
        with self._alone(word):
            old = self._unchanged(seen, since)
            if old == number and version.tags.get("llamaduo.review") in ("promoted", "auto"):
                return old
            if against:
                self._tag(number, "override", f"{word.time} {word.by}: {word.reason} (it {against})")
            if old != number:
                self._champion(number, old)
            self._say(number, word)
        return old

    def reject(self, number: int, word: Word) -> None:
        """Say that a version is not to be served; it is `challenger` no longer.

        Raises:
            DataError: there is no such version.
            ConfigError: it is champion.
            StageError: somebody else moves an alias.
        """
        self._version(number)
        with self._alone(word):
            if self.alias("champion") == number:
                raise ConfigError(f"{self._name} version {number} is champion: llamaduo rollback takes it from there")
            if self.alias("challenger") == number:
                self._client.delete_registered_model_alias(self._name, "challenger")
            self._say(number, word)

    def rollback(self, word: Word, *, to: int | None = None, since: str | None = None) -> tuple[int, int]:
        """Put back the champion before, or version `to`, and say of the present one that it was rolled back.

        Returns:
            the version that is champion now, and the one that was.

        Raises:
            DataError: there is no champion, or none before it.
            ConfigError: somebody has rejected that version, or rolled it back.
            StageError: another champion was made meanwhile.
        """
        since, seen = since or now(), self.alias("champion")
        target = self.alias("previous") if to is None else to
        if seen is None:
            raise DataError(f"{self._name} has no champion: there is nothing to roll back")
        if target is None or target == seen:
            raise DataError(f"{self._name} has no champion before version {seen}: name one with --version")
        version = self._version(target)
        if against := _spoken_against(version):
            raise ConfigError(f"{self._name} version {target} {against}: name another one with --version")
        before = _replaced(version)
        with self._alone(word):
            self._unchanged(seen, since)
            self._say(seen, word)  # first: who is stopped behind it rolls back again, and not further than he meant
            self._client.set_registered_model_alias(self._name, "champion", str(target))
            if before is not None and before != target:
                self._client.set_registered_model_alias(self._name, "previous", str(before))
            else:
                self._client.delete_registered_model_alias(self._name, "previous")
            self._say(target, Word(word.by, f"back from version {seen}: {word.reason}", "promoted", word.time))
        return target, seen

    def _champion(self, number: int, old: int | None) -> None:
        """`previous` first: who is stopped between the two has a champion still."""
        if old is not None:
            self._client.set_registered_model_alias(self._name, "previous", str(old))
            self._tag(number, "replaced", str(old))
        self._client.set_registered_model_alias(self._name, "champion", str(number))

    def _unchanged(self, seen: int | None, since: str) -> int | None:
        """The champion, if it is the one that the reviewer knew of."""
        champion = self.alias("champion")
        at = self._version(champion).tags.get("llamaduo.reviewed_at", "") if champion is not None else ""
        if champion != seen or at > since:
            raise StageError(
                f"{self._name}: version {champion} was made champion while you decided ({self._last(champion)}): "
                "look at it with llamaduo review, and say it again if it still holds"
            )
        return champion

    def _last(self, number: int | None) -> str:
        if number is None:
            return "the alias was taken away"
        tags = self._version(number).tags
        return (
            f"by {tags.get('llamaduo.reviewer', 'its alias alone')}: {tags.get('llamaduo.reason', 'no reason given')}"
        )

    def _say(self, number: int, word: Word) -> None:
        """`review` last: where it stands, the others do."""
        at = word.time
        for key, value in (
            ("reviewer", word.by),
            ("reviewed_at", at),
            ("reason", word.reason),
            (f"review.{at}", f"{word.kind} by {word.by}: {word.reason}"),
            ("review", word.kind),
        ):
            self._tag(number, key, value)

    def _tag(self, number: int, key: str, value: str) -> None:
        self._client.set_model_version_tag(self._name, str(number), f"llamaduo.{key}", value)

    def _version(self, number: int) -> ModelVersion:
        """A version that llamaduo made."""
        try:
            version = self._client.get_model_version(self._name, str(number))
        except MlflowException as error:
            if error.error_code not in NOWHERE:
                raise
            known = sorted(int(v.version) for v in self._client.search_model_versions(f"name = '{self._name}'"))
            there = f"it has {', '.join(map(str, known))}" if known else "llamaduo run makes the first"
            raise DataError(f"{self._name} has no version {number}; {there}") from error
        if "llamaduo.decision" not in version.tags:
            raise DataError(f"{self._name} version {number} was not made by llamaduo: it has no gate's decision")
        return version

    @contextmanager
    def _alone(self, word: Word) -> Iterator[None]:
        """Nobody else moves an alias meanwhile: of two who see each other's claim, both step back and try again."""
        for attempt in range(TRIES):
            key = f"{CLAIM}{uuid4().hex}"
            self._client.set_registered_model_tag(self._name, key, f"{time.time():.3f} {word.by}")
            try:
                others = self._claims(key)
                if not others:
                    yield
                    return
            finally:
                self._client.delete_registered_model_tag(self._name, key)
            time.sleep(random.uniform(0.1, 1) * WAIT_S * 2**attempt)  # noqa: S311 - no secret
        raise StageError(f"{self._name}: {others[0]} is moving its aliases: try again in a minute")

    def _claims(self, own: str) -> list[str]:
        """Who else has a claim; one that was left behind is removed."""
        found = []
        for key, value in self._client.get_registered_model(self._name).tags.items():
            if not key.startswith(CLAIM) or key == own:
                continue
            at, _, by = value.partition(" ")
            if time.time() - float(at) < STALE_S:
                found.append(by)
            else:
                self._client.delete_registered_model_tag(self._name, key)
        return found


def _objection(version: ModelVersion) -> str:
    """What speaks against a promotion, to go after "the version"; nothing if nothing does."""
    if not version.tags["llamaduo.decision"].startswith("passed"):
        return f"did not pass its gate ({version.tags['llamaduo.decision'].partition(': ')[2]})"
    return _spoken_against(version)


def _spoken_against(version: ModelVersion) -> str:
    tags = version.tags
    if tags.get("llamaduo.review") in ("rejected", "rolled back"):
        return f"was {tags['llamaduo.review']} by {tags.get('llamaduo.reviewer')} ({tags.get('llamaduo.reason')})"
    return ""


def _replaced(version: ModelVersion) -> int | None:
    before = version.tags.get("llamaduo.replaced")
    return int(before) if before else None
