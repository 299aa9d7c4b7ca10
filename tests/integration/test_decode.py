"""The decode loop against transformers' own `generate`, on a model of random weights."""

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from mlflow_llamaduo.inference.decode import decode
from mlflow_llamaduo.inference.engine import Sampling

VOCABULARY, CONTEXT, END = 97, 256, 5
SHARED = list(range(10, 40))
"""Long enough to be read once for all."""

RAGGED = [[7, 8, 9], [11], [50, 51, 52, 53, 54, 55, 56], [9, 8, 7, 6]]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,  # answers that differ
    )
    return LlamaForCausalLM(config).eval()


def written(model: Any, prompts: list[list[int]], sampling: Sampling, samples: int = 1) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(len(prompts) * samples)]
    for step in decode(model, prompts, sampling, samples, frozenset({END}), CONTEXT):
        for row, token in step.items():
            rows[row].append(token)
    return rows


def theirs(model: Any, ids: list[int], length: int) -> list[int]:
    with torch.inference_mode():
        made = model.generate(
            torch.tensor([ids]), max_new_tokens=length, do_sample=False, eos_token_id=END, pad_token_id=0
        )
    tokens: list[int] = made[0, len(ids) :].tolist()
    return tokens


@pytest.mark.parametrize("shared", [[], SHARED], ids=["nothing shared", "a beginning shared"])
def test_greedy_answers_are_those_of_generate(model: Any, shared: list[int]) -> None:
    prompts = [shared + rest for rest in RAGGED] + [shared + rest + [60, 61] for rest in RAGGED]
    made = written(model, prompts, Sampling(40))
    assert made == [theirs(model, ids, 40) for ids in prompts]
    assert len({len(row) for row in made}) > 1, "answers of one length do not try how the batch shrinks"


def test_equal_prompts_and_one_that_is_anothers_beginning(model: Any) -> None:
    prompts = [SHARED, SHARED, [*SHARED, 3]]
    assert written(model, prompts, Sampling(8)) == [theirs(model, ids, 8) for ids in prompts]


def test_each_sample_is_the_same_alone_and_in_a_batch(model: Any) -> None:
    warm = Sampling(20, temperature=1.0, seed=1)
    together = written(model, RAGGED, warm, samples=3)
    alone = [row for ids in RAGGED for row in written(model, [ids], warm, samples=3)]
    assert together == alone
    assert together[0] != together[1]
    assert written(model, RAGGED, Sampling(20, temperature=1.0, seed=2), samples=3) != together


def test_tokens_come_as_often_as_they_are_likely(model: Any) -> None:
    count = 8000
    with torch.inference_mode():
        logits = model(torch.tensor([RAGGED[0]])).logits[0, -1]
    likely = torch.softmax(logits / 0.7, dim=-1)
    for top_p in (1.0, 0.6):
        made = written(model, RAGGED[:1], Sampling(1, temperature=0.7, top_p=top_p, seed=4), samples=count)
        share = torch.bincount(torch.tensor([row[0] for row in made]), minlength=VOCABULARY) / count
        assert torch.allclose(share, _nucleus(likely, top_p), atol=0.02)


def test_an_answer_ends_where_the_context_does(model: Any) -> None:
    short, long = RAGGED[0], [index % 80 + 10 for index in range(CONTEXT - 4)]
    first, second = written(model, [short, long], Sampling(30))
    assert second == theirs(model, long, 4)
    assert first == theirs(model, short, 30)


def _nucleus(likely: torch.Tensor, top_p: float) -> torch.Tensor:
    """The likeliest tokens that together reach `top_p`, by their shares."""
    kept, total = torch.zeros_like(likely), 0.0
    for token in likely.argsort(descending=True).tolist():
        if total >= top_p:
            break
        kept[token] = likely[token]
        total += float(likely[token])
    return kept / kept.sum()


@pytest.mark.parametrize("temperature", [1e-40, 1e-6])
def test_a_temperature_of_nearly_nothing_is_greedy(model: Any, temperature: float) -> None:
    assert written(model, RAGGED, Sampling(8, temperature=temperature, seed=1)) == written(model, RAGGED, Sampling(8))


def test_an_answer_that_fills_the_context_does_not_end_the_others() -> None:
    """Learned positions: there is none after the last, and who has ended stays in the batch for some steps."""
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.5)
    gpt2 = GPT2LMHeadModel(config).eval()
    prompts = [list(range(6, 68)), *([n, 7, 8, 9, 10] for n in range(20, 36))]
    rows: list[list[int]] = [[] for _ in prompts]
    for step in decode(gpt2, prompts, Sampling(12), 1, frozenset(), 64):
        for row, token in step.items():
            rows[row].append(token)
    assert [len(row) for row in rows] == [2] + [12] * 16
    alone = [next(iter(decode(gpt2, [ids], Sampling(1), 1, frozenset(), 64)))[0] for ids in prompts]
    assert [row[0] for row in rows] == alone
