import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.serving.keys import VARIABLE, Gatekeeper, Key, new_key, read_keys, write_keys
from mlflow_llamaduo.serving.protocol import Refusal

PEER = "10.0.0.7"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def refused(found: Any) -> Refusal:
    assert isinstance(found, Refusal), found
    return found


def asked(gate: Gatekeeper, header: str | None, task: str = "t") -> Key | Refusal | None:
    """As the ingress does it."""
    key = gate.who(header, PEER)
    return key if isinstance(key, Refusal) else gate.admit(key, task) or key


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_without_keys_everybody_on_this_machine_is_let_in(peer: str) -> None:
    assert Gatekeeper(()).who(None, peer) is None
    assert Gatekeeper(()).who("Bearer x", peer) is None


@pytest.mark.parametrize("peer", [None, "", PEER, "::ffff:10.0.0.7", "fe80::1", "localhost", "127.0.0.1 "])
def test_without_keys_nobody_from_elsewhere_is(peer: str | None) -> None:
    found = refused(Gatekeeper(()).who("Bearer x", peer))
    assert found.status == 401
    assert "llamaduo keys add" in found.message


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER  {} "])
def test_a_key_lets_its_owner_in(form: str) -> None:
    secrets = [new_key(f"team-{n}") for n in range(3)]
    gate = Gatekeeper([key for _, key in secrets])
    for secret, key in secrets:
        assert asked(gate, form.format(secret), "closed_qa") == key


@given(st.none() | st.text(max_size=40) | st.text(max_size=40).map(lambda text: f"Bearer {text}"))
def test_nothing_else_does(header: str | None) -> None:
    secret, key = new_key("team")
    gate = Gatekeeper([key])
    found = refused(asked(gate, header, "closed_qa"))
    assert (found.status, found.code) == (401, "invalid_api_key")
    assert found.headers == {"www-authenticate": "Bearer"}
    for near in (secret[:-1], secret + "x", key.sha256, secret.upper()):
        assert refused(asked(gate, f"Bearer {near}", "closed_qa")).status == 401
    assert refused(asked(gate, secret, "closed_qa")).status == 401, "without Bearer"


def test_a_key_for_some_tasks_may_not_ask_others() -> None:
    secret, key = new_key("team", tasks=["closed_qa"])
    gate = Gatekeeper([key])
    assert asked(gate, f"Bearer {secret}", "closed_qa") == key
    found = refused(asked(gate, f"Bearer {secret}", "coding"))
    assert (found.status, found.code, found.param) == (403, "model_not_allowed", "model")


def test_requests_a_minute_come_back_steadily() -> None:
    clock = Clock()
    secret, key = new_key("team", requests_per_minute=6)
    gate = Gatekeeper([key], clock)
    assert [asked(gate, f"Bearer {secret}", "t") for _ in range(6)] == [key] * 6
    found = refused(asked(gate, f"Bearer {secret}", "t"))
    assert (found.status, found.code, found.headers) == (429, "rate_limit_exceeded", {"retry-after": "10"})
    clock.now = 9.9
    assert refused(asked(gate, f"Bearer {secret}", "t")).retry_after_s == 1
    clock.now = 10.0
    assert asked(gate, f"Bearer {secret}", "t") == key
    assert refused(asked(gate, f"Bearer {secret}", "t")).status == 429
    clock.now = 1000.0
    assert [asked(gate, f"Bearer {secret}", "t") for _ in range(6)] == [key] * 6, "a bucket holds a minute's worth"
    assert refused(asked(gate, f"Bearer {secret}", "t")).status == 429


def test_tokens_are_counted_when_they_are_spent_and_of_each_key_apart() -> None:
    clock = Clock()
    (one, first), (two, second) = new_key("one", tokens_per_minute=600), new_key("two", tokens_per_minute=600)
    gate = Gatekeeper([first, second], clock)
    assert asked(gate, f"Bearer {one}", "t") == first
    gate.spent(first, 900)
    found = refused(asked(gate, f"Bearer {one}", "t"))
    assert (found.status, found.retry_after_s) == (429, 31)  # 300 below nothing, at 10 a second, and one more
    assert "600 tokens a minute" in found.message
    assert asked(gate, f"Bearer {two}", "t") == second
    clock.now = 31.0
    assert asked(gate, f"Bearer {one}", "t") == first


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 500)), max_size=30))
def test_nobody_gets_more_than_the_limit_and_one_answer(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    secret, key = new_key("team", tokens_per_minute=300)
    gate = Gatekeeper([key], clock)
    spent, last = 0, 0
    for wait, tokens in steps:
        clock.now += wait
        if asked(gate, f"Bearer {secret}", "t") == key:
            gate.spent(key, tokens)
            spent, last = spent + tokens, tokens
    assert spent - last <= 300 + clock.now * 5 + 1e-6


def test_what_is_kept_is_no_secret_and_only_the_owner_reads_it(tmp_path: Path) -> None:
    secret, key = new_key("team", requests_per_minute=5, tasks=["closed_qa"])
    file = tmp_path / "keys.json"
    write_keys(file, [key])
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_keys(file) == (key,)
    assert new_key("team")[0] != secret


def test_keys_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _, key = new_key("team")
    assert read_keys(None) == ()
    monkeypatch.setenv(VARIABLE, json.dumps([key.model_dump()]))
    assert read_keys(None) == (key,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "the whole: Invalid JSON"),
        ('[{"name": "a"}]', "0.sha256: Field required"),
        ('[{"name": "a", "sha256": "ld-secret"}]', "0.sha256: String should match"),
        (json.dumps([{"name": "a b", "sha256": "0" * 64}]), "0.name: String should match"),
        (json.dumps([{"name": "a", "sha256": "0" * 64, "rpm": 5}]), "0.rpm: Extra inputs"),
        (json.dumps([{"name": "a", "sha256": n * 64} for n in "01"]), "a is there twice"),
    ],
)
def test_a_file_that_holds_no_keys_is_told_without_what_is_in_it(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_keys(file)
    assert "ld-secret" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_is_told_with_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: No such file .* llamaduo keys add makes the file"):
        read_keys(tmp_path / "none.json")


@pytest.mark.parametrize("given_", [{"name": "a b"}, {"name": ""}, {"name": "a", "requests_per_minute": -1}], ids=str)
def test_a_key_that_cannot_be_is_one_line(given_: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^(name|requests_per_minute): "):
        new_key(**given_)


def test_a_key_is_known_by_its_hash_alone() -> None:
    secret, key = new_key("team")
    other = Key(name="other", sha256=key.sha256)
    assert asked(Gatekeeper([other]), f"Bearer {secret}", "t") == other
