"""Requests that mean no good, hundreds of them and no two alike."""

import json
import random
from collections.abc import Callable
from typing import Any

GOOD: dict[str, Any] = {"model": "closed_qa", "messages": [{"role": "user", "content": "q"}], "max_tokens": 1}
TRICKS = ["../" * 9 + "etc/passwd", "closed_qa/../coding", "closed_qa@../1", "closed_qa%00", "@1", "${jndi:ldap://x}"]
UNICODE = [
    "\N{ZERO WIDTH SPACE}",
    "\N{RIGHT-TO-LEFT OVERRIDE}",
    "\N{FULLWIDTH COMMERCIAL AT}",
    "\n",
    "\x00",
    "é",
    "\ud800",
]
WRONG: list[dict[str, Any]] = [
    {"model": 7},
    {"model": None},
    {"messages": "q"},
    {"messages": [[]]},
    {"max_tokens": 0},
    {"max_tokens": 1e308},
    {"temperature": 99},
    {"temperature": "hot"},
    {"top_p": 0},
    {"n": 99},
    {"n": -1},
    {"stop": 7},
    {"stop": ["x"] * 9},
    {"stream": {}},
    {"seed": []},
    {"logprobs": False, "top_logprobs": 3},
]
TURNS: list[dict[str, Any]] = [{"role": "tool"}, {"content": {"a": 1}}, {"content": [{"type": "image_url"}]}]
TYPES = ["text/html", "application/x-python-pickle", "", "a" * 3000, "multipart/form-data; boundary=x"]
Dice = random.Random


def _body(**other: Any) -> bytes:
    return json.dumps({**GOOD, **other}).encode()


def _cut(dice: Dice) -> bytes:
    raw = _body(user=str(dice.random()))
    return raw[: dice.randrange(len(raw) - 1)]


KINDS: list[Callable[[Dice], bytes]] = [
    _cut,
    lambda dice: _body(**dice.choice(WRONG), user=str(dice.random())),
    lambda dice: _body(model=dice.choice(TRICKS) + str(dice.random())),
    lambda dice: _body(model=f"closed_qa{dice.choice(UNICODE)}{dice.random()}"),
    lambda dice: dice.randbytes(dice.randrange(1, 400)),
    lambda dice: b"[" * dice.randrange(1000, 90_000),
    lambda dice: b'{"model": "' + b"x" * dice.randrange(1_000_001, 1_200_000) + b'"}',
    lambda dice: _body(messages=[{**GOOD["messages"][0], **dice.choice(TURNS)}], user=str(dice.random())),
    lambda dice: _body(**{f"__class__{dice.random()}": {"__init__": 1}}),
    lambda dice: _body(model=f"no{dice.random()}"),
]


def hostile(number: int) -> tuple[bytes, dict[str, str]]:
    """Body and headers of one of them: the same number, the same request."""
    dice = Dice(number)
    headers = {"x-forwarded-for": "127.0.0.1, ' OR 1=1 --", "content-type": dice.choice(TYPES)}
    headers["authorization"] = "Bearer " + dice.choice(["null", "../../keys.json", "x" * 2000])
    return KINDS[number % len(KINDS)](dice), headers if number % 3 else {}
