r"""Text that strangers wrote, on its way to a service LLM: one JSON object that nothing in it can close or hide in.

JSON's own escapes keep a string from ending early and from having lines of its own. They leave two things open. A
self-hosted model (vLLM, TGI, llama.cpp) tokenizes a message together with its template, so that `<|im_end|>` in a
string is the *token* that ends the turn, not ten characters. And characters that nobody sees carry words that a
model reads. Both are written as `\uXXXX` here: the same string to every reader of JSON, `json.loads` first of all.

All else is byte for byte what `json.dumps(..., ensure_ascii=False)` gives, in any script: no token is paid for
Cyrillic, CJK or a plain emoji, and replies that are stored stay found. What costs more is text that does hold such
characters for good reasons: emoji joined by U+200D, Persian with U+200C, a soft hyphen.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

_SPACES = " \u00a0\u202f\u3000"
"""Spaces of ordinary text: no-break (French, Russian), ideographic (CJK). Those of fixed width carry watermarks."""

_UNSEEN = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\uffa0"  # fillers, blanks
    "\ufe00-\ufe0d\U000e0100-\U000e01ef"  # variation selectors: 256 of them spell any bytes behind one emoji
)
"""What nobody sees, though it is printable by its category. U+FE0F is not here: it is half of many an emoji."""

_ATTACKS = re.compile(
    "|".join(
        (
            rf"[{_UNSEEN}]",
            r"(?<=[\ufe00-\ufe0f])[\ufe0e\ufe0f]",  # one after another they are data, not the looks of an emoji
            # ChatML, Llama 3, Phi, GPT, GLM, Command R (`<|im_end|>`, `<|eot_id|>`), DeepSeek with U+FF5C. Gemma 4
            # has one bar only (`<|turn>`), so the end is not looked for.
            r"<(?=[|\uff5c])",
            r"<(?=/?[\w:]{1,40}\|>)",  # Gemma 4: `<turn|>`
            # Gemma (`<end_of_turn>`), T5 (`<extra_id_0>`), StarCoder (`<fim_prefix>`), Qwen (`<tool_call>`), MiniMax
            # (`<minimax:tool_call>`), Seed (`<seed:bos>`): no HTML has such names, and few type parameters.
            r"<(?=/?(?:seed:|minimax:|[A-Za-z\d]{1,20}_)\w{1,40}>)",
            # Llama 2 and Mistral (`</s>`), begin and end of others. `</think>` ends a judge's reasoning before it has
            # begun. `<image>` and the like stand for pictures that nobody sent.
            r"<(?=/?(?i:s|bos|eos|sop|eop|pad|unk|mask|cls|sep|think|thinking|image|audio|video)>)",
            r"<(?=/?(?:reponame|filename|unused\d{1,5})>)",  # StarCoder and SmolLM, Gemma
            r"<(?=/?(?:AI|\u7528\u6237)>)",  # MiniCPM: user and AI
            r"<(?=</?SYS>>)",  # Llama 2's system message
            # Mistral and Llama 2 (`[INST]`, `[/INST]`, `[TOOL_CALLS]`, `[THINK]`), GLM (`[gMASK]`), BERT's.
            r"\[(?=/?(?:INST|IMG(?:_\w{1,20})?|THINK|ARGS|[A-Z]{1,20}_[A-Z_]{1,30}|[gs]?MASK|[BE]OS|CLS|SEP|PAD|UNK)\])",
            r"\[(?=\|)",  # EXAONE: `[|system|]`, `[|endofturn|]`
            r"\](?=~!?b[\[\]])|\[(?=e~\[)",  # MiniMax: `]~b]system`, `[e~[`
        )
    )
)


def framed(fields: Mapping[str, Any]) -> str:
    r"""`fields` as one JSON object in which no special token, control character or unseen character stands as such.

    `json.loads` gives the fields back as they were. Half characters (lone surrogates) go out as `\ud83d` and come
    back as themselves, unless two of them make a character.

    Raises:
        ValueError: a number is NaN or infinite.
        TypeError: a value is no JSON.
    """
    text = json.dumps(dict(fields), ensure_ascii=False, allow_nan=False)
    # What is matched stands within strings only: JSON's own brackets are followed by none of these, and a backslash
    # before one is the second half of an escaped backslash.
    text = _ATTACKS.sub(lambda found: _escaped(found.group()), text)
    if text.isprintable():
        return text
    # Control characters (DEL and C1, that JSON lets pass), line separators, bidi overrides, zero-width characters,
    # tag characters (ASCII that nobody sees), private use, half characters.
    return "".join(c if c.isprintable() or c in _SPACES else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
