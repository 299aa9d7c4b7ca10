"""The ids of a prompt: the same in training and when asked, and no text can end a turn."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mlflow_llamaduo.chat_template import prompt_ids, text_ids, turn, with_template
from mlflow_llamaduo.errors import ConfigError, DataError
from tests.unit.families import OWN, PLAIN, family

ALL = [*OWN, *PLAIN]
STRINGS = ["<|im_end|>", "<|im_start|>", "</s>", "<eos>", "<end_of_turn>", "[/INST]", "<|eot_id|>", "<|end_of_text|>"]
STRINGS += [
    "<|end|>",
    "<|end_of_role|>",
    "<<",
    "|>",
    "\n",
    "\n\n",
    "  ",
    "\t",
    "👩‍👩‍👧",
    "é",
    "</think>",
    "\ud800",
    "\U000f0000",
    "a",
    "</",
]
WILD = st.lists(st.one_of(st.sampled_from(STRINGS), st.text(max_size=8)), max_size=8).map("".join)


def prepared(name: str) -> Any:
    return with_template(family(name), "own" if name in OWN else "chatml")


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def controls(tokenizer: Any, ids: Iterable[int]) -> list[int]:
    """Control tokens among ids; what is for text out of the vocabulary is none."""
    known = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.unk_token_id}
    return [i for i in ids if i in known]


@cache
def ready(name: str) -> Any:
    """A prepared tokenizer that no test changes."""
    return prepared(name)


ENDS = {
    "llama3-instruct": "<|eot_id|>",
    "gemma-it": "<end_of_turn>",
    "mistral-instruct": "</s>",
    "qwen2.5": "<|im_end|>",
    "qwen3-instruct": "<|im_end|>",
    "qwen3-hybrid": "<|im_end|>",
    "smollm2": "<|im_end|>",
    "granite": "<|end_of_text|>",
    "header-with-answer": "<|end|>",
    "unigram": "</s>",
    "llama3": "<|end_of_text|>",
    "gemma": "<eos>",
    "mistral": "</s>",
    "qwen-base": "<|im_end|>",
}


@pytest.mark.parametrize("name", ALL)
def test_generation_stops_at_the_token_that_ends_a_turn(name: str) -> None:
    tokenizer = prepared(name)
    assert tokenizer.eos_token == ENDS[name]
    assert turn(tokenizer).end == tokenizer.eos_token_id


@pytest.mark.parametrize("name", ALL)
def test_a_template_adds_no_token(name: str) -> None:
    before = family(name).get_vocab()
    assert prepared(name).get_vocab() == before


@pytest.mark.parametrize("name", ALL)
def test_what_is_saved_asks_as_what_was_trained(name: str, tmp_path: Path) -> None:
    tokenizer = prepared(name)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    chat = [{"role": "system", "content": "Be brief."}, *ask("Which sea? <|im_end|></s>")]
    assert prompt_ids(loaded, chat) == prompt_ids(tokenizer, chat)
    assert (loaded.eos_token, loaded.pad_token) == (tokenizer.eos_token, tokenizer.pad_token)
    assert turn(loaded) == turn(tokenizer)
    again = with_template(loaded, "own" if name in OWN else "chatml")
    assert prompt_ids(again, chat) == prompt_ids(tokenizer, chat), "to prepare twice is to prepare once"


@pytest.mark.parametrize("name", PLAIN)
def test_chatml_is_read_as_chatml(name: str) -> None:
    tokenizer = prepared(name)
    text = tokenizer.decode(prompt_ids(tokenizer, [{"role": "system", "content": "S"}, *ask("Q")]))
    end, bos = tokenizer.eos_token, "" if name == "qwen-base" else tokenizer.bos_token
    expected = f"{bos}<|im_start|>system\nS{end}\n<|im_start|>user\nQ{end}\n<|im_start|>assistant\n"
    assert text.replace(" ", "") == expected  # a decoder may put a space behind a special token


@pytest.mark.parametrize("name", PLAIN)
def test_bos_stands_once_and_first_where_the_tokenizer_would_put_it(name: str) -> None:
    tokenizer = prepared(name)
    ids = prompt_ids(tokenizer, ask("Q"))
    begun = tokenizer("Q")["input_ids"][0] == tokenizer.bos_token_id is not None
    assert begun == (name != "qwen-base")
    assert ids.count(tokenizer.bos_token_id) == int(begun)
    assert (ids[0] == tokenizer.bos_token_id) == begun


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None)
@given(text=WILD, system=WILD)
def test_no_text_makes_a_control_token(name: str, text: str, system: str) -> None:
    tokenizer = ready(name)
    chat = [{"role": "system", "content": f"s{system}"}, *ask(f"q{text}")]
    plain = [{"role": "system", "content": "s"}, *ask("q")]
    assert controls(tokenizer, prompt_ids(tokenizer, chat)) == controls(tokenizer, prompt_ids(tokenizer, plain))
    assert controls(tokenizer, text_ids(tokenizer, text)) == []


@pytest.mark.parametrize("name", ["llama3-instruct", "gemma-it", "qwen2.5", "granite", "gemma", "llama3"])
@settings(max_examples=25, deadline=None)
@given(text=WILD)
def test_hostile_text_is_still_the_text(name: str, text: str) -> None:
    tokenizer = ready(name)
    clean = text.encode("utf-8", "replace").decode()
    assert tokenizer.decode(text_ids(tokenizer, text), clean_up_tokenization_spaces=False) == clean


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("unigram", "gemma-it", "mistral-instruct")])
@settings(max_examples=25, deadline=None)
@given(text=WILD)
def test_text_without_control_tokens_is_encoded_as_text_with_them_is(name: str, text: str) -> None:
    tokenizer = ready(name)
    clean = [{"role": "user", "content": text.encode("utf-8", "replace").decode()}]
    marked = tokenizer.apply_chat_template(
        clean, add_generation_prompt=True, return_dict=False, enable_thinking=False, sanitize_control_tokens=True
    )
    assert prompt_ids(tokenizer, ask(text)) == list(marked)


def test_ten_thousand_end_tokens_in_a_text_are_letters() -> None:
    tokenizer = ready("qwen2.5")
    ids = prompt_ids(tokenizer, [{"role": "system", "content": "s"}, *ask("<|im_end|>" * 10_000)])
    assert ids.count(tokenizer.eos_token_id) == 2


@pytest.mark.parametrize("name", ["gemma-it", "mistral-instruct"])
def test_a_system_message_is_folded_into_the_first_user_turn_where_the_template_has_no_place(name: str) -> None:
    tokenizer = prepared(name)
    folded = prompt_ids(tokenizer, [{"role": "system", "content": "Be brief."}, *ask("Which sea?")])
    assert folded == prompt_ids(tokenizer, ask("Be brief.\n\nWhich sea?"))


@pytest.mark.parametrize("name", ["gemma-it", "mistral-instruct"])
def test_a_system_message_alone_is_asked_as_a_user(name: str) -> None:
    tokenizer = prepared(name)
    assert prompt_ids(tokenizer, [{"role": "system", "content": "Hi"}]) == prompt_ids(tokenizer, ask("Hi"))


def test_a_template_that_can_think_is_told_not_to() -> None:
    tokenizer = prepared("qwen3-hybrid")
    assert tokenizer.decode(prompt_ids(tokenizer, ask("Q"))).endswith("assistant\n<think>\n\n</think>\n\n")
    assert turn(tokenizer).before == ""


def test_roles_that_a_template_refuses_are_told() -> None:
    with pytest.raises(DataError, match="refuses a conversation of user, user: roles must alternate"):
        prompt_ids(prepared("gemma-it"), [*ask("a"), *ask("b")])


def test_a_conversation_needs_a_message() -> None:
    with pytest.raises(DataError, match="without messages"):
        prompt_ids(prepared("qwen2.5"), [])


def test_own_without_a_template_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"has no chat template: set finetune\.chat_template: chatml"):
        with_template(family("llama3"), "own")


@pytest.mark.parametrize("template", ["own", "chatml"])
def test_a_base_without_any_end_token_cannot_be_used(template: Any) -> None:
    tokenizer = family("llama3")
    tokenizer.eos_token = None
    if template == "own":
        tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ConfigError, match=r"eos token to end a turn|has a token that ends an answer"):
        with_template(tokenizer, template)


def test_chatml_takes_the_place_of_a_template_that_is_there() -> None:
    tokenizer = with_template(family("gemma-it"), "chatml")
    assert "<|im_start|>assistant" in tokenizer.decode(prompt_ids(tokenizer, ask("Q")))
    assert tokenizer.eos_token == "<eos>"
