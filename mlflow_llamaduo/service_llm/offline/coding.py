"""What `offline/teacher` writes for coding: a request for a few lines of code, and the code.

It plainly is a grammar, not a language model. A pair is one family of `coding.yaml` (what is asked for) told of one
domain (what it is about): the names that the prompt mentions are those that the code uses, so the answer is known. It
understands nothing, reads no prompt, and cannot write code that its data file does not hold. No code is executed.
The notation of a template is explained in the data file.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from string import Template
from typing import Any

from mlflow_llamaduo.service_llm.offline.templates import Filler, WrittenPair, capitalised, read, tuples

FENCED_SHARE, FENCED_MOST = 0.08, 110
"""How many prompts ask for a fenced block, and for how many characters of code: the fence costs tokens too."""

GIVEN_FIRST_SHARE = 0.3
"""Where code is given: how often the rest of the prompt follows it."""

FEWEST_WORDS, MOST_WORDS = 34, 62
"""Remarks are added up to a length drawn from here; what cannot be left out may be longer."""

MOST_REMARKS = 2


@dataclass(frozen=True)
class Family:
    """One thing to be asked for: the shape of its data, its own slots, wordings, code to start from, the answer."""

    shape: str
    slots: Mapping[str, str]
    ask: tuple[str, ...]
    given: str
    code: str
    language: str


@dataclass(frozen=True)
class Grammar:
    """Everything the data file says."""

    words: Mapping[str, tuple[str, ...]]
    domains: tuple[Mapping[str, str], ...]
    settings: Mapping[str, tuple[str, ...]]
    remarks: tuple[str, ...]
    closings: Mapping[str, tuple[str, ...]]
    families: tuple[Family, ...]


def write_pairs(*, seed: int, count: int) -> tuple[WrittenPair, ...]:
    """`count` pairs, deterministic in (seed, count); different seeds give different requests."""
    rng = random.Random(f"coding {seed}")  # a string: random.Random(-1) repeats random.Random(1)  # noqa: S311
    grammar = _grammar()
    return tuple(_write_pair(grammar, rng) for _ in range(count))


def _write_pair(grammar: Grammar, rng: random.Random) -> WrittenPair:
    family, domain = rng.choice(grammar.families), rng.choice(grammar.domains)
    slots = {**domain, **family.slots}
    filler = Filler(grammar.words, slots, rng)
    values = {name: filler.fill(f"{{{name}}}") for name in slots}
    given, code = (Template(text).substitute(values).rstrip() for text in (family.given, family.code))
    fenced = rng.random() < FENCED_SHARE and len(code) <= FENCED_MOST
    instruction = _lay_out(_prose(grammar, family, filler, rng, given=given, fenced=fenced), given, rng)
    fence = "sql" if family.language == "sql" else "python"
    return WrittenPair(instruction, f"```{fence}\n{code}\n```" if fenced else code)


def _prose(
    grammar: Grammar, family: Family, filler: Filler, rng: random.Random, *, given: str, fenced: bool
) -> tuple[str, str]:
    """What is asked, and what is said besides: remarks up to a length drawn for this prompt, and how to answer."""
    setting = capitalised(filler.fill(rng.choice(grammar.settings[family.shape])))
    asked = f"{setting} {filler.fill(rng.choice(family.ask))}"
    closing = filler.fill(rng.choice(grammar.closings["fenced" if fenced else "plain"]))
    enough = rng.randint(FEWEST_WORDS, MOST_WORDS)
    length = len(f"{asked} {given} {closing}".split())
    besides: list[str] = []
    for template in rng.sample(grammar.remarks, MOST_REMARKS):
        remark = capitalised(filler.fill(template))
        if length < enough and length + len(remark.split()) <= MOST_WORDS:
            besides.append(remark)
            length += len(remark.split())
    return asked, " ".join([*besides, closing])


def _lay_out(prose: tuple[str, str], given: str, rng: random.Random) -> str:
    if not given:
        return " ".join(prose)
    if rng.random() < GIVEN_FIRST_SHARE:
        asked, besides = prose
        return f"{asked}\n\n{given}\n\n{besides}"
    return f"{' '.join(prose)}\n\n{given}"


@cache
def _grammar() -> Grammar:
    data = read("coding")
    return Grammar(
        words=tuples(data["words"]),
        domains=tuple(data["domains"]),
        settings=tuples(data["settings"]),
        remarks=tuple(data["remarks"]),
        closings=tuples(data["closings"]),
        families=tuple(_family(entry) for entry in data["families"].values()),
    )


def _family(entry: Mapping[str, Any]) -> Family:
    return Family(
        shape=entry["shape"],
        slots=entry.get("slots", {}),
        ask=tuple(entry["ask"]),
        given=entry.get("given", ""),
        code=entry["code"],
        language=entry.get("language", "python"),
    )
