"""Small tokenizers of the kinds that base models have, each with a template of its family's shape.

Trained in a moment on a few lines; what is like the real ones is where they differ: byte-level or SentencePiece, a
space before the text, bos set by the tokenizer or by the template, which token is eos, who may speak in which order.
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "system user assistant model the quick brown fox jumps over the lazy dog. What is it? It is a fox, the fox.",
    "Answer the question from the passage:\n\nThe Danube flows into the Black Sea.\nQuestion: which sea? 0 1 2 3 4",
    "def add(a, b):\n    return a + b\n\n\nYou are a helpful assistant <think>\n\n</think>\n\n[INST] [...]",
]
GPT4_SPLIT = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a fox.<|im_end|>\n' }}{% endif %}"
    + CHATML
)
THINKING = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% if loop.last %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m['content'].split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and not "
    "enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + "
    "m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + "
    "m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (  # opens no answer, and leaves system messages out without a word
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
GRANITE = (
    "{% for m in messages %}{{ '<|start_of_role|>' + m['role'] + '<|end_of_role|>' + m['content'] + "
    "'<|end_of_text|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
HEADER_WITH_ANSWER = (  # the header of the answer comes only with the answer, and a line's end before its end
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '\n<|end|>\n' }}{% endfor %}"
)


def byte_level(specials: list[str], *, bos: str | None = None, ignore_merges: bool = False) -> str:
    """À la Llama 3 and Qwen: merges over bytes; special tokens are added behind the vocabulary."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(GPT4_SPLIT, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS * 3, trainers.BpeTrainer(vocab_size=450, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    return _begun(tokenizer, bos)


def sentence_piece(specials: list[str], *, bos: str | None, dummy_prefix: bool) -> str:
    """À la Gemma (no space before the text), Mistral and Llama 2 (with one): special tokens are in the vocabulary."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always" if dummy_prefix else "never")
    trained.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    names = ["<pad>", "<unk>", *specials, *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    space = normalizers.Replace(" ", "▁")
    steps = [normalizers.Prepend("▁"), space] if dummy_prefix else [space]
    tokenizer.normalizer = normalizers.Sequence(steps)
    strip = [decoders.Strip(content=" ", left=1)] if dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ("<unk>", *specials)])
    if not dummy_prefix:
        tokenizer.add_tokens([AddedToken("\n\n", normalized=False)])  # as Gemma's runs of whitespace
    return _begun(tokenizer, bos)


def unigram(specials: list[str]) -> str:
    """À la T5: the model itself makes `</s>` of plain text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS * 3,
        trainers.UnigramTrainer(
            vocab_size=150, special_tokens=["<unk>", *specials], unk_token="<unk>", show_progress=False
        ),
    )
    return str(tokenizer.to_str())


def _begun(tokenizer: Tokenizer, bos: str | None) -> str:
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return str(tokenizer.to_str())


LLAMA3_SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
LLAMA3_SPECIALS += [f"<|reserved_special_token_{number}|>" for number in range(250)]
CHATML_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def _llama3() -> str:
    return byte_level(LLAMA3_SPECIALS, bos="<|begin_of_text|>", ignore_merges=True)


def _gemma() -> str:
    return sentence_piece(["<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"], bos="<bos>", dummy_prefix=False)


def _mistral() -> str:
    return sentence_piece(["<s>", "</s>", "[INST]", "[/INST]"], bos="<s>", dummy_prefix=True)


Family = tuple[Callable[[], str], str, dict[str, str]]
LLAMA3_NAMES = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
GEMMA_NAMES = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
MISTRAL_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

OWN: dict[str, Family] = {
    "llama3-instruct": (_llama3, LLAMA3, LLAMA3_NAMES),
    "gemma-it": (_gemma, GEMMA, GEMMA_NAMES),
    "mistral-instruct": (_mistral, MISTRAL, MISTRAL_NAMES),
    "qwen2.5": (lambda: byte_level(CHATML_SPECIALS), WITH_DEFAULT_SYSTEM, {"eos_token": "<|im_end|>"}),
    "qwen3-instruct": (lambda: byte_level(CHATML_SPECIALS), CHATML, {"eos_token": "<|im_end|>"}),
    "qwen3-hybrid": (lambda: byte_level(CHATML_SPECIALS), THINKING, {"eos_token": "<|im_end|>"}),
    "smollm2": (
        lambda: byte_level(CHATML_SPECIALS),
        WITH_DEFAULT_SYSTEM,
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
    ),
    "granite": (
        lambda: byte_level(["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"]),
        GRANITE,
        {"bos_token": "<|end_of_text|>", "eos_token": "<|end_of_text|>"},
    ),
    "header-with-answer": (
        lambda: byte_level(["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]),
        HEADER_WITH_ANSWER,
        {"eos_token": "<|endoftext|>"},
    ),
    "unigram": (
        lambda: unigram(["<pad>", "</s>"]),
        CHATML.replace("'<|im_end|>'", "'</s>'"),
        {"eos_token": "</s>", "unk_token": "<unk>"},
    ),
}
"""Families with a template of their own."""

PLAIN: dict[str, Family] = {
    "llama3": (_llama3, "", LLAMA3_NAMES),
    "gemma": (_gemma, "", GEMMA_NAMES),
    "mistral": (_mistral, "", MISTRAL_NAMES),
    "qwen-base": (lambda: byte_level(CHATML_SPECIALS), "", {"eos_token": "<|endoftext|>"}),
}
"""Plain bases, which get ChatML; the last one's vocabulary has its tokens."""


@cache
def _built(name: str) -> str:
    return {**OWN, **PLAIN}[name][0]()


def family(name: str) -> Any:
    """A fresh tokenizer of a family, as it would come from the model hub."""
    _, template, names = {**OWN, **PLAIN}[name]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_built(name)), **names)
    if template:
        tokenizer.chat_template = template
    return tokenizer
