"""A base model of a few thousand random weights, on disk as a real one is: what it learns is little, and fast."""

from pathlib import Path

from mlflow_llamaduo.base_models import BaseModelFolder, resolve
from mlflow_llamaduo.core.records import Message, Pair, PairSet
from tests.unit.families import family

WORDS = ["fox", "dog", "sea", "passage", "question", "answer", "model", "user"]


def tiny_base(folder: Path, *, tokenizer: str = "smollm2", seed: int = 0) -> BaseModelFolder:
    """Two layers of Llama's architecture with one of the families' tokenizers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokens = family(tokenizer)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    tokens.save_pretrained(folder)
    return resolve(str(folder))


def tiny_pairs(count: int, *, start: int = 0) -> PairSet:
    """Questions of different lengths, answered by a word that is in them."""
    pairs = []
    for number in range(start, start + count):
        word = WORDS[number % len(WORDS)]
        text = f"{number} " + " ".join(WORDS[(number * 3 + i) % len(WORDS)] for i in range(2 + number % 7))
        pairs.append(Pair((Message("user", f"{text}: {word}?"),), f"It is a {word}.", "closed_qa"))
    return PairSet(tuple(pairs))
