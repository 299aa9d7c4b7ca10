"""Held side by side: what must be equal is, and every way in which a served model can be another one has its line."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.parity import (
    BFLOAT16,
    FLOAT32,
    NF4,
    SAME,
    Facts,
    Parity,
    Probe,
    Probed,
    compare,
    probe_order,
    tolerated,
)
from mlflow_llamaduo.core.records import PairSet
from tests.unit.builders import pair, pairs

FACTS = Facts("team/small", "b0", "w0", "rank 4, alpha 8", "t0", "k0", 2, "float32", "none")


def logs(*shares: float) -> tuple[float, ...]:
    return tuple(math.log(share) for share in shares)


SAID = logs(0.7, 0.2, 0.05)
PROBE = Probe((5, 6), (1, 2), (1, 2, 3), SAID, logs(0.1, 0.3, 0.5), (1, 2), SAID, "Arn", ended=True)
TRAINED = Probed(FACTS, (PROBE, replace(PROBE, on=logs(0.1, 0.1, 0.7), quantized=logs(0.1, 0.1, 0.7))))


def served(facts: dict[str, Any] | None = None, **changes: Any) -> Probed:
    """The trained side with facts, and parts of its first probe, changed."""
    first, *others = TRAINED.probes
    return Probed(replace(FACTS, **(facts or {})), (replace(first, **changes), *others))


def words(found: Parity) -> list[str]:
    return [line.split(":")[0] for line in found.differences]


def test_equal_sides_are_at_parity() -> None:
    found = compare(TRAINED, TRAINED)
    assert found.differences == ()
    assert found.figures["distance"] == 0
    assert found.figures["effect"] == pytest.approx(1)
    assert found.figures["strength"] == pytest.approx(1)
    figures = "distance 0, effect 1, strength 1, choices 1, answers 1, rounding 0, active 0.4, trained_active 0.4"
    assert str(found) == f"passed: {figures} (2 probes)"


@pytest.mark.parametrize(
    ("fact", "value", "line"),
    [
        ("base", "team/other", "base model: trained team/small, served team/other; give the version"),
        ("base_digest", "b1", "base model's files: trained b0, served b1; put"),
        ("weights", "w1", "weights: trained w0, served w1; another adapter"),
        ("lora", "no adapter", "lora: trained rank 4, alpha 8, served no adapter; adapter_config.json"),
        ("template", "t1", "chat template: trained t0, served t1; "),
        ("tokenizer", "k1", "tokenizer: trained k0, served k1; "),
        ("end", 3, "end token: trained 2, served 3; "),
        ("dtype", "bfloat16", "dtype: trained float32, served bfloat16; "),
    ],
)
def test_a_fact_that_differs_has_a_line_with_both_values_and_what_to_do(fact: str, value: Any, line: str) -> None:
    (said,) = compare(TRAINED, served({fact: value})).differences
    assert said.startswith(line)


def test_every_fact_must_be_equal_but_the_quantization() -> None:
    assert {*SAME, "quantization"} == set(Facts.__dataclass_fields__)


def test_the_tolerance_is_wider_for_a_coarser_number_format_and_for_what_was_quantized() -> None:
    nf4, half = replace(FACTS, quantization="nf4"), replace(FACTS, dtype="bfloat16")
    assert tolerated(FACTS, FACTS) == FLOAT32
    assert tolerated(half, half) == BFLOAT16
    assert tolerated(nf4, FACTS) == replace(FLOAT32, rounding=NF4)


def test_a_quantized_base_may_say_something_else_within_its_own_tolerance() -> None:
    far = tuple(replace(probe, quantized=logs(0.3, 0.5, 0.1)) for probe in TRAINED.probes)
    assert words(compare(Probed(FACTS, far), TRAINED)) == ["rounding"]
    assert compare(Probed(replace(FACTS, quantization="nf4"), far), TRAINED).differences == ()


def test_prompts_read_otherwise_are_named_with_the_first_place() -> None:
    (said,) = compare(TRAINED, served(prompt=(5, 9, 7))).differences
    assert said.startswith(
        "prompts: 1 of 2 are read as other tokens, the first from token 1 on (trained 2 tokens, served 3)"
    )


def test_a_base_served_in_silence_is_seen_by_figures_alone() -> None:
    """Equal facts: nothing but what it says tells that the adapter does nothing."""
    bare = Probed(FACTS, tuple(replace(probe, on=probe.off) for probe in TRAINED.probes))
    found = compare(TRAINED, bare)
    assert words(found) == ["distance", "rounding", "active", "effect"]
    assert found.figures["strength"] == 0


def test_half_the_adapter_is_seen_by_its_strength() -> None:
    half = tuple(
        replace(probe, on=tuple((a + b) / 2 for a, b in zip(probe.on, probe.off, strict=True)))
        for probe in TRAINED.probes
    )
    found = compare(TRAINED, Probed(FACTS, half))
    assert "effect" in words(found)
    assert found.figures["strength"] == pytest.approx(0.5)


def test_another_answer_and_one_that_does_not_end_are_seen() -> None:
    assert words(compare(TRAINED, served(answer="Bern"))) == ["answers"]
    assert words(compare(TRAINED, served(ended=False))) == ["answers"]
    assert words(compare(TRAINED, served(choices=(3, 3)))) == ["choices"]


def test_the_beginning_of_an_answer_is_enough_where_no_more_is_known() -> None:
    one = Probed(FACTS, tuple(replace(probe, answer="Ar", ended=False) for probe in TRAINED.probes))
    assert compare(one, TRAINED).differences == ()


def test_an_answer_that_breaks_off_inside_a_character_is_the_same_answer() -> None:
    """What is known of a greedy answer ends at a token; the served one goes on, with the character whole."""
    known = Probed(FACTS, tuple(replace(probe, answer="热", ended=False) for probe in TRAINED.probes))
    whole = Probed(FACTS, tuple(replace(probe, answer="热带", ended=True) for probe in TRAINED.probes))
    assert compare(known, whole).differences == ()


def test_the_shortest_dev_pairs_are_asked_in_any_order_of_dev() -> None:
    dev = pairs(3).with_([pair("Why?", "So"), pair("How so?", "By rail"), pair("Who?", "Ann")])
    asked = probe_order(dev)
    assert [p.instruction for p in asked[:3]] == ["Why?", "Who?", "How so?"]
    assert set(asked) == set(dev)
    assert probe_order(PairSet(dev.pairs[::-1])) == asked


def test_no_numbers_are_one_line() -> None:
    diverged = (math.nan,) * 3
    assert words(compare(TRAINED, served(on=diverged))) == ["figures"]


@given(
    st.lists(
        st.tuples(*(st.lists(st.floats(-30, -1.2), min_size=3, max_size=3) for _ in range(3))), min_size=1, max_size=5
    ),
    st.text(max_size=5),
    st.text(max_size=5),
)
def test_figures_stay_in_their_bounds(rows: list[tuple[list[float], ...]], one: str, other: str) -> None:
    ours = [
        Probe((1,), (1,), (1, 2, 3), tuple(on), tuple(off), (1,), tuple(on), one, ended=len(one) > 2)
        for on, off, _ in rows
    ]
    theirs = [
        Probe((1,), (1,), (1, 2, 3), tuple(on), tuple(off), (2,), tuple(on), other, ended=True) for _, off, on in rows
    ]
    found = compare(Probed(FACTS, tuple(ours)), Probed(FACTS, tuple(theirs))).figures
    for name in ("distance", "answers", "active", "trained_active"):
        assert 0 <= found[name] <= 1
    assert -1.0001 <= found["effect"] <= 1.0001
