"""One way to turn a conversation into token ids, for training, inference, parity and serving alike.

A template writes roles and ends of turns as tokens of their own. What people write is text, also where it reads
`<|im_end|>`: it is encoded as letters, so that nobody ends a turn, or opens another's, from within a message.

    with_template   the tokenizer gets the template that it is trained, saved and asked with
    prompt_ids      the ids of a prompt, up to where the answer begins
    text_ids        the ids of text that goes on after a prompt
    turn            how the template writes an answer, and the token that ends it

Why ChatML adds no tokens to a base: docs/decisions/0015-chatml-adds-no-tokens.md.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from mlflow_llamaduo.errors import ConfigError, DataError

CHATML_END = "<|im_end|>"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

Chat = Sequence[dict[str, str]]
"""Messages of `role` and `content`."""


@dataclass(frozen=True, slots=True)
class Turn:
    """How a template writes an answer behind the prompt: `before`, the text, `after`, and the token `end`.

    `before` and `after` are the template's text, mostly empty. `left`, `right`: it strips the answer there. `system`:
    it takes system messages.
    """

    before: str
    after: str
    end: int
    left: bool
    right: bool
    system: bool


def with_template(tokenizer: Any, template: Literal["own", "chatml"]) -> Any:
    """The tokenizer itself, with a chat template and with the token that ends a turn as its `eos_token`.

    `own` is the template that the tokenizer brings. `chatml` is ChatML without a new token: a turn ends with
    `<|im_end|>` where the vocabulary has it, else with the base's own eos token. A tokenizer without a pad token pads
    with the end token. `save_pretrained` keeps all of it.

    Raises:
        ConfigError: `own`, and there is none; or there is no token that could end a turn.
    """
    if template == "chatml":
        _chatml(tokenizer)
    elif not tokenizer.chat_template:
        raise ConfigError("the base model's tokenizer has no chat template: set finetune.chat_template: chatml")
    _end_with(tokenizer, turn(tokenizer).end)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def prompt_ids(tokenizer: Any, messages: Chat) -> list[int]:
    """The ids of a prompt, up to and with the template's opening of the answer.

    A template that refuses or drops system messages gets their text at the head of the first user turn. A template
    that can think is told not to.

    Raises:
        DataError: the template refuses these roles in this order.
    """
    if not messages:
        raise DataError("a conversation without messages has no prompt")
    from jinja2 import TemplateError

    chat = [{"role": message["role"], "content": _clean(message["content"])} for message in messages]
    chat = chat if turn(tokenizer).system else _folded(chat)
    try:
        return _encoded(tokenizer, chat)
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(f"the base model's chat template refuses a conversation of {roles}: {error}") from error


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of text that follows other text; special tokens in it are letters.

    It is encoded behind an anchor that is taken off again: tokenizers of the SentencePiece kind put a space before
    what they take for the beginning.
    """
    ids: list[int] = []
    for piece in _apart(_clean(text), _specials(tokenizer, tokenizer.eos_token)):
        ids += _after_anchor(tokenizer, piece)
    return ids


def turn(tokenizer: Any) -> Turn:
    """What the tokenizer's template does around an answer, found by trying it.

    Raises:
        ConfigError: nothing ends a turn: the template has no token for it, and the tokenizer no eos token.
    """
    return _turn(tokenizer, str(tokenizer.chat_template), tokenizer.eos_token)


def _chatml(tokenizer: Any) -> None:
    if CHATML_END in tokenizer.get_vocab():
        _end_with(tokenizer, tokenizer.convert_tokens_to_ids(CHATML_END))
    if tokenizer.eos_token is None:
        raise ConfigError("the base model's tokenizer has no eos token to end a turn with: take another base model")
    begun = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id is not None
    tokenizer.chat_template = ("{{ bos_token }}" if begun else "") + CHATML


def _end_with(tokenizer: Any, end: int) -> None:
    """The eos token is what generation stops at."""
    if tokenizer.eos_token_id != end:
        tokenizer.add_special_tokens({"eos_token": tokenizer.convert_ids_to_tokens(end)})


def _encoded(tokenizer: Any, chat: Chat) -> list[int]:
    written = _control(tokenizer, str(tokenizer.chat_template), tokenizer.eos_token)
    hostile = any(written.search(text) for message in chat for text in message.values())
    asked = {"add_generation_prompt": True, "enable_thinking": False}
    # To mark control tokens takes as long again as the encoding; nearly all texts have none.
    asked |= {"tokenize": True, "return_dict": False, "sanitize_control_tokens": hostile}
    try:
        return list(tokenizer.apply_chat_template(list(chat), **asked))
    except ValueError as error:
        if "Can't sanitize" not in str(error):
            raise
    # A Unigram model makes `</s>` even of plain text. A space in it makes it what it should be: not that token.
    specials = _specials(tokenizer, tokenizer.eos_token)
    spaced = [{**message, "content": " ".join(_apart(message["content"], specials))} for message in chat]
    return list(tokenizer.apply_chat_template(spaced, **asked))


def _folded(messages: Chat) -> list[dict[str, str]]:
    told = [message["content"] for message in messages if message["role"] == "system"]
    chat = [message for message in messages if message["role"] != "system"]
    if not told:
        return chat
    if not chat or chat[0]["role"] != "user":
        return [{"role": "user", "content": "\n\n".join(told)}, *chat]
    return [{**chat[0], "content": "\n\n".join([*told, chat[0]["content"]])}, *chat[1:]]


@lru_cache(maxsize=8)
def _control(tokenizer: Any, template: str, eos: str | None) -> re.Pattern[str]:
    """All that transformers might mark in a text, and its two marks. Template and eos are arguments for the cache."""
    names = [token.content for token in tokenizer.added_tokens_decoder.values() if not token.content.isspace()]
    return _pattern((*names, "\U000f0000", "\U000f0001"))


@lru_cache(maxsize=8)
def _specials(tokenizer: Any, eos: str | None) -> tuple[str, ...]:
    """Eos is an argument for the cache alone: looking through all added tokens takes as long as encoding a prompt."""
    return tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)


def _clean(text: str) -> str:
    """JSON can hold half a surrogate pair, which no tokenizer takes: it becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


@lru_cache(maxsize=8)
def _pattern(specials: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(specials, key=len, reverse=True))) or "(?!)")


def _apart(text: str, specials: tuple[str, ...]) -> list[str]:
    """The text in pieces, none of which holds a special token: each is cut behind its first character."""
    pieces, start = [], 0
    while found := _pattern(specials).search(text, start):
        pieces.append(text[start : found.start() + 1])
        start = found.start() + 1
    return [*pieces, text[start:]]


def _after_anchor(tokenizer: Any, text: str) -> list[int]:
    if not text:
        return []
    for anchor in ("\n", ":", "a"):  # "\n\n" is one token in many vocabularies, ":\n" in some: then another
        head, ids = (_plain(tokenizer, part) for part in (anchor, anchor + text))
        if ids[: len(head)] == head:
            return ids[len(head) :]
    return _plain(tokenizer, text)


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


@lru_cache(maxsize=8)
def _turn(tokenizer: Any, template: str, eos: str | None) -> Turn:
    """The template and eos are arguments for the cache alone."""
    probe, space = "probe9317", "\t\t"
    asked = [{"role": "user", "content": "q"}]
    opened = _written(tokenizer, asked, answered=False)
    whole = _written(tokenizer, [*asked, {"role": "assistant", "content": f"{space}{probe}{space}"}], answered=True)
    head, _, rest = whole.rpartition(probe)
    left, right = not head.endswith(space), not rest.startswith(space)
    head, rest = head.removesuffix(space), rest.removeprefix(space)
    after, end = _ending(tokenizer, rest)
    before = head.removeprefix(opened) if head.startswith(opened) else ""
    return Turn(before, after, end, left, right, _takes_system(tokenizer))


def _ending(tokenizer: Any, rest: str) -> tuple[str, int]:
    """The first token of its own behind an answer; with other text before it, it is not the answer's end."""
    names = [token.content for token in tokenizer.added_tokens_decoder.values() if not token.content.isspace()]
    found = _pattern(tuple(names)).search(rest)
    if found and not rest[: found.start()].strip():
        return rest[: found.start()], int(tokenizer.convert_tokens_to_ids(found.group()))
    if tokenizer.eos_token_id is None:
        raise ConfigError("neither the base model's chat template nor its tokenizer has a token that ends an answer")
    return "", int(tokenizer.eos_token_id)


def _takes_system(tokenizer: Any) -> bool:
    from jinja2 import TemplateError

    told = "probe2281"
    try:
        text = _written(
            tokenizer, [{"role": "system", "content": told}, {"role": "user", "content": "q"}], answered=False
        )
    except TemplateError:
        return False
    return told in text


def _written(tokenizer: Any, messages: Iterable[dict[str, str]], *, answered: bool) -> str:
    return str(
        tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=not answered, enable_thinking=False
        )
    )
