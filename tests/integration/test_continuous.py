"""Continuous batching against transformers' own `generate`: whoever comes and goes, an answer is the same."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from mlflow_llamaduo.inference.adapters import Adapters
from mlflow_llamaduo.inference.continuous import PIECE, Asked, Batch
from mlflow_llamaduo.inference.decode import decode
from mlflow_llamaduo.inference.engine import Sampling
from mlflow_llamaduo.inference.slots import ROOM
from tests.integration import tiny

VOCABULARY, CONTEXT, END = 97, 1024, 5
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.5,
    "eos_token_id": END,
    "pad_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen3": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
}
PROMPTS = [[7, 8, 9], [11], [50, 51, 52, 53, 54, 55, 56], list(range(6, 46)), [9, 8, 7, 6]]


def made(kind: str) -> Any:
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, **KINDS[kind])).eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return made("llama")


def theirs(model: Any, ids: list[int], length: int) -> list[int]:
    with torch.inference_mode():
        answer = model.generate(torch.tensor([ids]), max_new_tokens=length, do_sample=False)
    tokens: list[int] = answer[0, len(ids) :].tolist()
    return tokens


def ask(
    key: int, ids: list[int], sampling: Sampling, samples: int = 1, *, ends: bool = True, likeliest: int | None = None
) -> Asked:
    """A request to the bare base; with `ends` the end token ends an answer."""
    return Asked(key, ids, sampling, frozenset({END} if ends else ()), None, samples, likeliest)


def batch_of(model: Any, context: int, slots: int) -> Batch:
    return Batch(model, Adapters(model, slots=1), context, slots)


def written(batch: Batch, arrivals: dict[int, list[Asked]]) -> dict[tuple[int, int], list[int]]:
    """Tokens by request and sample; requests join before the step of their number."""
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    ended: set[tuple[int, int]] = set()
    number = 0
    while not batch.idle or any(at >= number for at in arrivals):
        for asked in arrivals.get(number, []):
            batch.join(asked)
        for step in batch.step():
            assert (step.key, step.sample) not in ended, "written on after its end"
            found[step.key, step.sample].append(step.chosen.token)
            if step.ended:
                ended.add((step.key, step.sample))
        number += 1
    assert ended == set(found)
    return dict(found)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_those_of_generate_whoever_comes_and_goes(kind: str) -> None:
    model = made(kind)
    batch = batch_of(model, CONTEXT, slots=3)
    asked = [ask(n, ids, Sampling(30 - 4 * n)) for n, ids in enumerate(PROMPTS)]
    arrivals = {0: asked[:2], 2: asked[2:3], 9: asked[3:]}
    answers = written(batch, arrivals)
    assert [answers[n, 0] for n in range(5)] == [theirs(model, ids, 30 - 4 * n) for n, ids in enumerate(PROMPTS)]
    assert len({len(answer) for answer in answers.values()}) > 1


def test_long_prompts_are_read_in_pieces_while_others_write(model: Any) -> None:
    batch = batch_of(model, CONTEXT, slots=2)
    long = [6 + n % 80 for n in range(2 * PIECE + 7)]
    batch.join(ask(0, [7, 8], Sampling(30), ends=False))
    batch.step()
    batch.join(ask(1, long, Sampling(4), ends=False))
    got = [{step.key for step in batch.step()} for _ in range(4)]
    assert got == [{0}, {0}, {0, 1}, {0, 1}]


def test_answers_that_outgrow_their_room_stay_right(model: Any) -> None:
    batch = batch_of(model, CONTEXT, slots=2)
    ids = [6 + n % 80 for n in range(ROOM - 3)]
    answers = written(batch, {0: [ask(0, ids, Sampling(12), ends=False), ask(1, [9], Sampling(20), ends=False)]})
    assert [len(answers[n, 0]) for n in (0, 1)] == [12, 20]
    for n, prompt in enumerate((ids, [9])):
        (alone,) = [list(step.values()) for step in [_all(model, prompt, len(answers[n, 0]))]]
        assert answers[n, 0] == alone


def _all(model: Any, ids: list[int], length: int) -> dict[int, int]:
    steps = decode(model, [ids], Sampling(length), 1, frozenset(), CONTEXT)
    return {n: step[0] for n, step in enumerate(steps)}


def test_samples_have_the_chance_that_they_have_offline(model: Any) -> None:
    """The seed is the prompt's and the sample's: the same answers as the gate's."""
    warm = Sampling(12, temperature=1.0, top_p=0.9, seed=7)
    answers = written(batch_of(model, CONTEXT, slots=4), {0: [ask(0, PROMPTS[0], warm, samples=3)]})
    rows: dict[int, list[int]] = defaultdict(list)
    for step in decode(model, [PROMPTS[0]], warm, 3, frozenset({END}), CONTEXT):
        for row, token in step.items():
            rows[row].append(token)
    assert [answers[0, sample] for sample in range(3)] == [rows[n] for n in range(3)]
    assert answers[0, 0] != answers[0, 1]


def test_more_samples_than_slots_take_turns(model: Any) -> None:
    warm = Sampling(6, temperature=1.0, seed=7)
    few = written(batch_of(model, CONTEXT, slots=2), {0: [ask(0, [9, 10], warm, samples=5, ends=False)]})
    many = written(batch_of(model, CONTEXT, slots=8), {0: [ask(0, [9, 10], warm, samples=5, ends=False)]})
    assert few == many
    assert len(few) == 5


def test_who_leaves_makes_room_and_is_not_heard_of_again(model: Any) -> None:
    batch = batch_of(model, CONTEXT, slots=2)
    for key in range(4):
        batch.join(ask(key, PROMPTS[key], Sampling(40), ends=False))
    for _ in range(3):
        batch.step()
    batch.leave(0)  # seated
    batch.leave(2)  # waiting
    heard = {step.key for _ in range(5) for step in batch.step()}
    assert heard == {1, 3}
    batch.leave(1)
    batch.leave(3)
    assert batch.idle


def test_the_likeliest_tokens_come_with_their_logarithms(model: Any) -> None:
    batch = batch_of(model, CONTEXT, slots=1)
    batch.join(ask(0, PROMPTS[2], Sampling(1), likeliest=3, ends=False))
    (step,) = batch.step()
    with torch.inference_mode():
        logits = model(torch.tensor([PROMPTS[2]])).logits[0, -1]
    top = torch.log_softmax(logits, dim=-1).topk(3)
    assert [token for token, _ in step.chosen.likeliest] == top.indices.tolist()
    assert [value for _, value in step.chosen.likeliest] == pytest.approx(top.values.tolist(), abs=1e-5)
    assert step.chosen.logprob == pytest.approx(float(top.values[0]), abs=1e-5)


def test_an_answer_ends_where_the_context_does(model: Any) -> None:
    batch = batch_of(model, 10, slots=1)
    assert len(written(batch, {0: [ask(0, PROMPTS[2], Sampling(40), ends=False)]})[0, 0]) == 3


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 20), st.integers(1, 12), st.integers(1, 3)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 4),
)
def test_any_coming_and_going_gives_each_its_own_answer(
    model: Any, asked: list[tuple[int, int, int, int]], slots: int
) -> None:
    arrivals: dict[int, list[Asked]] = defaultdict(list)
    alone: dict[tuple[int, int], list[int]] = {}
    for key, (at, prompt, length, samples) in enumerate(asked):
        ids, sampling = [10 + (key * 7 + n) % 80 for n in range(prompt)], Sampling(length, temperature=0.8, seed=key)
        arrivals[at].append(ask(key, ids, sampling, samples))
        own = written(batch_of(model, CONTEXT, slots=samples), {0: [ask(key, ids, sampling, samples)]})
        alone |= own
    assert written(batch_of(model, CONTEXT, slots=slots), arrivals) == alone


def test_answers_of_several_adapters_are_those_of_each_alone(tmp_path: Path) -> None:
    """On one base, in one batch, with the bare base among them."""
    base = tiny.base(tmp_path / "base")
    folders = []
    for seed, rank in ((1, 4), (2, 2), (3, 8)):
        torch.manual_seed(seed)
        lora = LoraConfig(
            r=rank, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
        )
        get_peft_model(AutoModelForCausalLM.from_pretrained(str(base)), lora).save_pretrained(
            str(tmp_path / str(seed))
        )
        folders.append(tmp_path / str(seed))

    def answers(slots: Sequence[int | None], together: int) -> dict[tuple[int, int], list[int]]:
        model = AutoModelForCausalLM.from_pretrained(str(base)).eval()
        adapters = Adapters(model, slots=3)
        for slot, folder in enumerate(folders):
            adapters.load(slot, folder)
        batch = Batch(model, adapters, 256, slots=together)
        return written(
            batch, {n: [Asked(n, [9, 10 + n, 11], Sampling(12), frozenset(), slot)] for n, slot in enumerate(slots)}
        )

    slots = [0, 2, None, 1, 0, 2]
    mixed = answers(slots, 4)
    assert mixed == answers(slots, 1)
    same_prompt = {slot: answers([slot], 1)[0, 0] for slot in (0, 1, 2, None)}
    assert len({tuple(answer) for answer in same_prompt.values()}) == 4


@contextmanager
def reading(model: Any) -> Iterator[list[int]]:
    """How many tokens the model was given at each call."""
    given: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda *args: given.append(args[2]["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        yield given
    finally:
        hook.remove()


def test_what_prompts_begin_with_alike_is_read_once_and_changes_no_answer(model: Any) -> None:
    alike = list(range(6, 46))
    prompts = [[*alike, 7, 9], [*alike, 8], alike, alike[:20]]
    batch = batch_of(model, CONTEXT, slots=1)
    with reading(model) as given:
        found = [written(batch, {0: [ask(n, ids, Sampling(1), ends=False)]})[n, 0] for n, ids in enumerate(prompts)]
    assert given == [42, 1, 1, 1], "the last token of a prompt is always read"
    assert found == [theirs(model, ids, 1) for ids in prompts]


def test_what_was_read_with_one_adapter_is_no_others_and_forgotten_with_it(model: Any) -> None:
    batch = batch_of(model, CONTEXT, slots=1)
    ids = list(range(6, 46))
    with reading(model) as given:
        written(batch, {0: [Asked(0, ids, Sampling(1), frozenset(), 0)]})
        written(batch, {0: [ask(1, ids, Sampling(1))]})
        written(batch, {0: [Asked(2, ids, Sampling(1), frozenset(), 0)]})
        batch.forget(0)
        written(batch, {0: [Asked(3, ids, Sampling(1), frozenset(), 0)]})
    assert given == [40, 40, 1, 40]
