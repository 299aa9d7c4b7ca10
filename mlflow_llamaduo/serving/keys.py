"""Who may ask, and how much: API keys, stored as hashes, with a limit of requests and of tokens a minute each.

A key is 256 random bits, so its SHA-256 is enough: nobody guesses it, and a slow hash would only slow every request.
Keys are compared in constant time, all of them whichever fits. A bucket holds a minute's worth and fills up steadily;
requests are taken from it when they come, tokens when they have been read and written. So a bucket of tokens may go
below nothing once, by one answer, and then its key waits until it is full enough again.

Buckets are those of one ingress: with several of them a key has its limit in each.
"""

import hashlib
import hmac
import ipaddress
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.files import working_folder, write_atomic
from mlflow_llamaduo.serving.protocol import Refusal

VARIABLE = "LLAMADUO_API_KEYS"
"""Keys as JSON, as in a file, where there is none: hashes, so that the environment gives no key away either."""
PREFIX = "ld-"
BEARER = "bearer "
KEYLESS = "this service has no API keys, so it answers its own machine only: llamaduo keys add makes one"


class Key(BaseModel):
    """One key: its name, SHA-256 in hexadecimal digits, limits (0 is none), and the tasks it may ask (none: all)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    requests_per_minute: Annotated[int, Field(ge=0)] = 0
    tokens_per_minute: Annotated[int, Field(ge=0)] = 0
    tasks: tuple[str, ...] = ()


KEYS: TypeAdapter[list[Key]] = TypeAdapter(list[Key])


def new_key(
    name: str, *, requests_per_minute: int = 0, tokens_per_minute: int = 0, tasks: Sequence[str] = ()
) -> tuple[str, Key]:
    """A new secret, and the key that knows it.

    Raises:
        ConfigError: the name or a limit cannot be.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    try:
        key = Key(
            name=name,
            sha256=_hash(secret),
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            tasks=tuple(tasks),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return secret, key


def keys_file() -> Path:
    """Where keys are kept if nothing else is said: `keys.json` in the working folder."""
    return working_folder() / "keys.json"


def read_keys(file: Path | None) -> tuple[Key, ...]:
    """The keys of a file, or those of LLAMADUO_API_KEYS where no file is named.

    Raises:
        ConfigError: it is not there, or does not hold keys; the message has no part of it.
    """
    if file is None:
        where, text = VARIABLE, os.environ.get(VARIABLE, "[]")
    else:
        where = str(file)
        try:
            text = file.read_text()
        except OSError as error:
            raise ConfigError(f"keys {file}: {error.strerror}; llamaduo keys add makes the file") from error
    try:
        keys = KEYS.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise ConfigError(f"keys {where}: {place}: {first['msg']}; llamaduo keys add writes what is right") from None
    names = [key.name for key in keys]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"keys {where}: {', '.join(twice)} is there twice: revoke one of them")
    return tuple(keys)


def write_keys(file: Path, keys: Sequence[Key]) -> None:
    """Write keys to a file that only its owner reads."""
    write_atomic(file, json.dumps([key.model_dump() for key in keys], indent=1))
    file.chmod(0o600)


@dataclass(slots=True)
class _Bucket:
    """A minute's worth of something; `left` may be below nothing."""

    size: float
    left: float
    at: float

    def fill(self, now: float) -> None:
        self.left = min(self.size, self.left + (now - self.at) * self.size / 60)
        self.at = now

    def wait(self, wanted: float) -> float:
        """Seconds until so much is there."""
        return max(0.0, (min(wanted, self.size) - self.left) * 60 / self.size)


class Gatekeeper:
    """Lets requests in by their key; without any key everybody is let in.

    Args:
        keys: who may ask.
        clock: seconds.
    """

    def __init__(self, keys: Sequence[Key], clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = tuple(keys)
        self._clock = clock
        self._requests = {key.name: self._bucket(key.requests_per_minute) for key in keys}
        self._tokens = {key.name: self._bucket(key.tokens_per_minute) for key in keys}

    def who(self, authorization: str | None, peer: str | None) -> Key | Refusal | None:
        """Whose request this is by its header, `Bearer <key>`; nothing is counted.

        Without keys it is None for who asks from this machine, and nobody else is let in, however it was started.
        """
        if not self._keys:
            return (
                None if peer is not None and _on_this_machine(peer) else Refusal(401, KEYLESS, code="invalid_api_key")
            )
        if key := self._known(authorization):
            return key
        what = "the API key is not known" if authorization else "there is no API key"
        return Refusal(401, f"{what}: send Authorization: Bearer <key>", code="invalid_api_key")

    def admit(self, key: Key | None, task: str) -> Refusal | None:
        """Why a key may not ask a task now; a request that is let in counts."""
        if key is None:
            return None
        if key.tasks and task not in key.tasks:
            return Refusal(403, f"this key may not ask {task!r}", "model", "model_not_allowed")
        return self._limited(key)

    def spent(self, key: Key | None, tokens: int) -> None:
        """So many tokens were read and written for a key."""
        if key is not None and (bucket := self._tokens[key.name]):
            bucket.fill(self._clock())
            bucket.left -= tokens

    def _known(self, authorization: str | None) -> Key | None:
        """The key of a header; every key is compared, so that time tells nothing."""
        given = authorization or ""
        secret = given[len(BEARER) :].strip() if given[: len(BEARER)].lower() == BEARER else ""
        digest, found = _hash(secret), None
        for key in self._keys:
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found

    def _limited(self, key: Key) -> Refusal | None:
        now = self._clock()
        requests, tokens = self._requests[key.name], self._tokens[key.name]
        for bucket in (requests, tokens):
            if bucket:
                bucket.fill(now)
        if tokens and tokens.left <= 0:
            return _wait("tokens", tokens.size, tokens.wait(1))
        if requests and requests.left < 1:
            return _wait("requests", requests.size, requests.wait(1))
        if requests:
            requests.left -= 1
        return None

    def _bucket(self, size: int) -> _Bucket | None:
        return _Bucket(size, size, self._clock()) if size else None


def _on_this_machine(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _wait(what: str, size: float, seconds: float) -> Refusal:
    after = max(1, math.ceil(seconds))
    return Refusal(
        429,
        f"more than {size:.0f} {what} a minute: ask again in {after} s",
        code="rate_limit_exceeded",
        retry_after_s=after,
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()
