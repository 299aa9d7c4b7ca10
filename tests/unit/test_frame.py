"""A frame is JSON that says exactly what it was given, in which nothing stands that a model or a terminal obeys."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_llamaduo.service_llm.frame import framed

TOKENS = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|end|>", "<|user|>",
    "<|turn>", "<turn|>", "<channel|>", '<|"|>', "<|START_OF_TURN_TOKEN|>", "<BOS_TOKEN>",
    "<\uff5cUser\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<unused42>",
    "<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
    "[AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[/TOOL_RESULTS]", "[THINK]", "[/THINK]", "[IMG]", "[IMG_BREAK]",
    "<think>", "</think>", "<tool_call>", "</tool_response>", "<fim_prefix>", "<extra_id_0>", "<SPECIAL_12>",
    "<image>", "<audio>", "<video>",
    "<reponame>", "<filename>", "[gMASK]", "<sop>", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "[BOS]", "[EOS]",
    "[|system|]", "[|endofturn|]", "]~b]", "]~!b[", "[e~[", "<seed:bos>", "<minimax:tool_call>", "<AI>",
    "<\u7528\u6237>", "<reserved_106>",
]  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
PIECES = st.lists(
    st.text(max_size=5) | st.sampled_from([*TOKENS, "\\", "\\u", '"', "<", "[", "]", "|", "~b", "\ufe0f", "\ufe0e"])
).map("".join)


@given(st.dictionaries(st.text(), JSON, max_size=5))
@example({"": {"[": ["|", "]~b]", [["INST"]]], "INST": ["[INST]"]}})
def test_what_is_framed_is_read_back_as_it_was(fields: dict[str, Any]) -> None:
    assert json.loads(framed(fields)) == fields


@given(PIECES, PIECES)
def test_tokens_quotes_and_backslashes_side_by_side_are_read_back_as_they_were(key: str, value: str) -> None:
    assert json.loads(framed({key: [value]})) == {key: [value]}


@given(PIECES)
def test_no_token_is_left_whole_whatever_stands_around_it(text: str) -> None:
    sent = framed({"text": text})

    assert [token for token in TOKENS if token in sent] == []


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("around", ["{}", "a{}b", "\\{}", "<{}>", "[{}]", "{}{}", '"{}"'])
def test_a_special_token_loses_its_first_character_to_an_escape(token: str, around: str) -> None:
    text = around.replace("{}", token)
    sent = framed({"text": text, token: 1})

    assert token not in sent
    assert json.loads(sent) == {"text": text, token: 1}


@given(st.text(st.characters(exclude_categories=[])))
@example("".join(map(chr, range(256))))
@example("".join(map(chr, range(0xE0000, 0xE0200))))
def test_no_character_is_left_that_nobody_sees(text: str) -> None:
    sent = framed({"text": text})

    assert {c for c in sent if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")} == set()


@pytest.mark.parametrize(
    "unseen",
    [
        pytest.param("\x00", id="NUL"),
        pytest.param("\x1b", id="escape of the terminal"),
        pytest.param("\x7f", id="DEL"),
        pytest.param("\x9b", id="C1: CSI in one character"),
        pytest.param("\u2028", id="line separator"),
        pytest.param("\u2029", id="paragraph separator"),
        pytest.param("\u202e", id="right-to-left override"),
        pytest.param("\u2067", id="right-to-left isolate"),
        pytest.param("\u200b", id="zero-width space"),
        pytest.param("\u200c", id="zero-width non-joiner"),
        pytest.param("\u200d", id="zero-width joiner"),
        pytest.param("\ufeff", id="byte order mark"),
        pytest.param("\u00ad", id="soft hyphen"),
        pytest.param("\u034f", id="grapheme joiner"),
        pytest.param("\u3164", id="Hangul filler"),
        pytest.param("\u2800", id="blank of Braille"),
        pytest.param("\u2003", id="em space"),
        pytest.param("\U000e0041", id="tag A"),
        pytest.param("\ufe00", id="variation selector 1"),
        pytest.param("\U000e0100", id="variation selector 17"),
        pytest.param("\ue000", id="private use"),
        pytest.param("\ud83d", id="half a character"),
    ],
)
def test_a_character_that_nobody_sees_goes_as_an_escape(unseen: str) -> None:
    sent = framed({"text": f"a{unseen}b"})

    assert sent == '{"text": ' + json.dumps(f"a{unseen}b").replace("\x7f", "\\u007f") + "}"
    assert json.loads(sent) == {"text": f"a{unseen}b"}


def test_of_variation_selectors_in_a_row_only_the_first_can_be_the_looks_of_an_emoji() -> None:
    assert framed({"text": "\u2764\ufe0f\ufe0e\ufe0f"}) == '{"text": "\u2764\ufe0f\\ufe0e\\ufe0f"}'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('The answer is 42: "yes", it\'s so (50 %) \\ / [1] {2} <3>\n\tTab.', id="English"),
        pytest.param("Съешь ещё этих мягких французских булок, «да»\u00a0— 5", id="Russian with a no-break space"),
        pytest.param("C\u2019est l\u2019\u00e9t\u00e9\u202f! Où\u00a0?", id="French with its spaces"),
        pytest.param("天地玄黄、宇宙洪荒。\u3000「日本語」カタカナ 한국어", id="CJK with its space"),
        pytest.param("שלום עולם مرحبا بالعالم हिन्दी ไทย", id="Hebrew, Arabic, Hindi, Thai"),
        pytest.param("😀👍🏽🇩🇪❤️☀️1️⃣", id="emoji, with colour, flags and variation selectors"),
        pytest.param("if a < b and c > d: x[i] = y[INDEX] | z; List<int>, Map<String, T>, a <= b << 2", id="code"),
        pytest.param('<div class="s"><p>Text</p><br/></div> <T> <my-tag> <!-- -->', id="HTML"),
        pytest.param("[TODO] [1] [NAME] [Inst] [link](url) - [x] done, [INST, [/INST", id="brackets"),
        pytest.param("a || b |> c, x <- y, | table | row |, ~~gone~~", id="bars"),
    ],
)
def test_ordinary_text_goes_in_the_bytes_it_always_went_in(text: str) -> None:
    assert framed({"text": text}) == json.dumps({"text": text}, ensure_ascii=False)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        framed({"number": number})
