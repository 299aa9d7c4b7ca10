"""Which tokens of a pair are kept, and which are learned."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_llamaduo.chat_template import prompt_ids
from mlflow_llamaduo.finetune.tokens import GAP, Row, TooLong, encode, mask_report
from tests.unit.families import OWN, PLAIN, family
from tests.unit.test_chat_template import ALL, WILD, ask, controls, prepared, ready

STRIPS = {"llama3-instruct", "gemma-it"}
LONG = 100_000


def row(tokenizer: Any, prompt: list[dict[str, str]], response: str, length: int = LONG) -> Row:
    made = encode(tokenizer, prompt, response, max_length=length, too_long="shorten")
    assert isinstance(made, Row)
    return made


def shown(tokenizer: Any, ids: Any) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None)
@given(text=WILD, response=WILD)
def test_the_prompt_is_what_is_asked_and_one_end_token_is_learned_last(name: str, text: str, response: str) -> None:
    tokenizer = ready(name)
    made = row(tokenizer, ask(text), response)
    assert list(made.ids[: made.prompt]) == prompt_ids(tokenizer, ask(text))
    learned = made.ids[made.prompt :]
    assert learned[-1] == tokenizer.eos_token_id
    opening = [tokenizer.convert_tokens_to_ids("<|assistant|>")] if name == "header-with-answer" else []
    assert controls(tokenizer, learned) == [*opening, tokenizer.eos_token_id]
    assert made.dropped == 0


@pytest.mark.parametrize("name", ["llama3-instruct", "gemma-it", "qwen2.5", "qwen3-hybrid", "granite", *PLAIN])
@settings(max_examples=25, deadline=None)
@given(response=WILD)
def test_the_learned_text_is_the_response(name: str, response: str) -> None:
    tokenizer = ready(name)
    clean = response.encode("utf-8", "replace").decode()
    made = row(tokenizer, ask("q"), response)
    text = shown(tokenizer, made.ids[made.prompt : -1])
    if name == "mistral":  # its decoder takes the first space for one that was put there
        assert text.strip() == clean.strip() or text == clean.removeprefix(" ")
    else:
        assert text == (clean.strip() if name in STRIPS else clean)


@pytest.mark.parametrize("name", [*OWN, *PLAIN])
@settings(max_examples=20, deadline=None)
@given(text=WILD, response=st.sampled_from(["", "the fox", "</s> <|im_end|>"]), room=st.integers(0, 120))
def test_a_row_too_long_loses_prompt_text_and_nothing_else(name: str, text: str, response: str, room: int) -> None:
    tokenizer = ready(name)
    chat = [{"role": "system", "content": "be a fox"}, *ask(f"which sea? {text * 30} which sea?")]
    whole = row(tokenizer, chat, response)
    bare = row(tokenizer, [{**message, "content": ""} for message in chat], response)
    length = len(bare.ids) + room
    made = encode(tokenizer, chat, response, max_length=length, too_long="shorten")
    assert isinstance(made, Row)
    assert len(made.ids) <= length
    assert made.ids[made.prompt :] == whole.ids[whole.prompt :]
    assert controls(tokenizer, made.ids) == controls(tokenizer, whole.ids)
    assert made.prompt + made.dropped == whole.prompt
    roles = ("<|im_start|>system", "<|im_start|>user", "<|im_start|>assistant")
    opened = [shown(tokenizer, bare.ids).count(role) for role in roles]
    if name in PLAIN:
        assert all(shown(tokenizer, made.ids).count(role) >= n for role, n in zip(roles, opened, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_both_ends_of_the_longest_user_text_stay(name: str) -> None:
    tokenizer = ready(name)
    chat = [{"role": "system", "content": "be brief"}, *ask("which sea? " + "the lazy dog " * 200 + " is it a fox?")]
    made = row(tokenizer, chat, "the fox", 200)
    text = shown(tokenizer, made.ids)
    plain = text.replace(" ", "")
    assert "whichsea?" in plain and "isitafox?" in plain and "bebrief" in plain
    assert "[...]" in plain
    assert made.dropped > 100
    assert len(made.ids) > 180, "it drops no more than it must"


def test_instructions_stay_longer_than_what_users_wrote() -> None:
    tokenizer = ready("qwen2.5")
    system = "You are a fox. " * 10
    chat = [
        {"role": "system", "content": system},
        *ask("dog " * 20),
        {"role": "assistant", "content": "It is."},
        *ask("the sea " * 50),
    ]
    made = row(tokenizer, chat, "the fox", 160)
    text = shown(tokenizer, made.ids)
    assert system in text and "dog " * 20 in text and "It is." in text
    assert text.count(GAP) == 1


@pytest.mark.parametrize("name", ALL)
def test_what_does_not_fit_even_bare_is_left_out_with_its_reason(name: str) -> None:
    tokenizer = ready(name)
    bare = row(tokenizer, ask(""), "the lazy dog")
    assert isinstance(row(tokenizer, ask("which sea? " * 9), "the lazy dog", len(bare.ids)), Row)
    made = encode(tokenizer, ask("which sea?"), "the lazy dog", max_length=len(bare.ids) - 1, too_long="shorten")
    assert isinstance(made, TooLong)
    assert "the response and the template alone are too long" in made.reason
    assert f"of at most {len(bare.ids) - 1}" in made.reason


def test_reject_leaves_a_long_row_out_and_takes_one_that_just_fits() -> None:
    tokenizer = ready("granite")
    whole = row(tokenizer, ask("which sea? " * 30), "the fox")
    for length, kind in ((len(whole.ids), Row), (len(whole.ids) - 1, TooLong)):
        made = encode(tokenizer, ask("which sea? " * 30), "the fox", max_length=length, too_long="reject")
        assert isinstance(made, kind)


@pytest.mark.parametrize("name", ["qwen2.5", "gemma", "llama3"])
def test_the_response_after_the_prompt_is_text_that_goes_on(name: str) -> None:
    """No space is put before it, as SentencePiece does before what it takes for a beginning."""
    tokenizer = ready(name)
    made = row(tokenizer, ask("q"), "fox")
    assert shown(tokenizer, made.ids).endswith(f"assistant\nfox{tokenizer.eos_token}")


def test_the_space_that_mistral_writes_before_an_answer_is_learned() -> None:
    tokenizer = prepared("mistral-instruct")
    made = row(tokenizer, ask("q"), "fox")
    assert tokenizer.convert_ids_to_tokens(made.ids[made.prompt])[0] == "▁"


def test_a_person_can_read_what_is_learned() -> None:
    tokenizer = ready("llama3-instruct")
    rows = [row(tokenizer, ask(f"which sea {n}?\n```"), "A fox|\n👧") for n in range(4)]
    rows[1] = row(tokenizer, ask("which sea? " * 90), "the fox", 60)
    report = mask_report(tokenizer, rows)
    assert report.count("\n## Row ") == 3
    assert "⟦A fox|⏎\n👧<|eot_id|>⟧" in report
    assert "````text" in report, "a fence that the text cannot close"
    assert f"{rows[1].dropped} dropped" in report
    table = [line for line in report.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert len(table) == sum(len(made.ids) for made in rows[:3])
    assert sum(line.endswith("| yes |") for line in table) == sum(len(r.ids) - r.prompt for r in rows[:3])
    assert all(line.count("|") == 5 for line in table), "no token breaks its line"


def test_families_differ_where_the_real_ones_do() -> None:
    assert family("mistral").decode(family("mistral").encode("fox")).count("<s>") == 1
    assert family("gemma").encode("fox", add_special_tokens=False) != family("gemma").encode(
        " fox", add_special_tokens=False
    )
