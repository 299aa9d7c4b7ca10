"""What the offline teacher answers to plain prompts, and how it tells them from a request for pairs."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.core.records import TaskPrompt
from mlflow_llamaduo.service_llm.client import Budget, Purpose, ReplyStore, ServiceLLM
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request
from mlflow_llamaduo.service_llm.offline.answers import answer
from mlflow_llamaduo.service_llm.offline.llm import ORDER
from mlflow_llamaduo.synthesis.prompt import SYSTEM, ask
from tests.unit.builders import pair

MAIL = "Hello, two cups were broken when the parcel came, so the delivery should be paid back to me. Yours, Ida"
TALE = "Arn lies on the Senna. In 1820 a bridge was built, which fell in 1851. Nobody has counted the bats below it."

# The rule


@pytest.mark.parametrize(
    "asks",
    [
        "Choose one: billing, repairs, delivery.",
        "Labels: billing, delivery",
        "Is it about a billing, a repair or a delivery?",
        "Choose from billing | repairs | delivery.",
        'Which label fits, "billing" or "delivery"?',
        "Queues:\n- billing\n- repairs\n- delivery",
        "Desk:\n1. billing\n2. delivery\n3. repairs",
        "Queue (billing, repairs, delivery):",
        "The queue: [billing] [repairs] [delivery]",
        "Sort into billing / delivery.",
    ],
)
@pytest.mark.parametrize("text_first", [True, False])
def test_of_labels_it_takes_the_one_with_the_most_words_in_the_text(asks: str, text_first: bool) -> None:
    assert answer(f"{MAIL}\n\n{asks}" if text_first else f"{asks}\n\n{MAIL}") == "delivery"


def test_of_labels_that_are_all_as_far_off_it_takes_the_first() -> None:
    assert answer(f"Mood? Choose between sad, glad or bored.\n\n{MAIL}") == "sad"


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("On which river lies Arn?", "Arn lies on the Senna."),
        ("When was the bridge built?", "In 1820 a bridge was built"),
        ("Question: How many bats were counted?", "Nobody has counted the bats below it."),
    ],
)
def test_to_a_question_it_gives_the_shortest_piece_with_the_most_of_its_words(question: str, found: str) -> None:
    assert answer(f"{TALE}\n\n{question}") == answer(f"{question}\n\n{TALE}") == found
    assert answer(f"{TALE} {question.removeprefix('Question: ')}") == found


def test_a_question_in_the_text_is_not_the_question_and_no_answer() -> None:
    text = f"Is it still the same bridge? Some say so, as its stones were kept. {TALE}"

    assert answer(f"{text}\n\nWhat was kept of the bridge?") == "as its stones were kept."


@pytest.mark.parametrize(
    "asks",
    [
        "Sum this up in one sentence.",
        "In short?",
        "tl;dr, please",
        "Summarise it in one or two sentences.",
        "Give the gist, in one sentence, please.",
    ],
)
def test_else_it_gives_the_first_sentence(asks: str) -> None:
    assert answer(f"{asks}\n\n{TALE}") == answer(f"{TALE}\n\n{asks}") == "Arn lies on the Senna."


def test_a_heading_over_the_text_is_not_its_first_sentence() -> None:
    assert answer(f"Sum up.\n\nText:\n{TALE}") == "Arn lies on the Senna."


def test_to_a_request_for_code_it_repeats_the_first_sentence_and_writes_none() -> None:
    asks = "Write a Python function add(a, b) that adds two numbers. Code only, no explanation, no example."

    assert answer(asks) == "Write a Python function add(a, b) that adds two numbers."


def test_an_initial_ends_no_sentence() -> None:
    assert answer("Driver M. Roche fell ill. He went home.\n\nSum up.") == "Driver M. Roche fell ill."


@given(st.text() | st.text(st.sampled_from("ab.?!:,;/|[]()\"'-1\n #or"), max_size=60))
@example("?")
@example("a, b, or c")
@example("Why?\n\nWhat?")
@example("- \n- \n- ")
@example(": a, \"\", 'b'")
def test_any_prompt_that_says_something_is_answered_in_its_own_letters(prompt: str) -> None:
    given_ = answer(prompt)

    assert bool(given_) == bool(prompt.strip())
    assert set(given_) <= {*prompt, " "}
    assert answer(prompt) == given_


# Through the door


def replies(*contents: str, system: str | None = None) -> Reply | Failure:
    store = ReplyStore(":memory:")
    llm = ServiceLLM(
        ServiceModel(model="offline/teacher", retries=0),
        store=store,
        budget=Budget(0.0),
        purpose=Purpose("run", "answer"),
    )
    roles = ["user", "assistant"] * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    try:
        ((_, reply),) = llm.complete_many([Request(tuple(messages))])
    finally:
        store.close()
    return reply


def text(reply: Reply | Failure) -> str:
    assert isinstance(reply, Reply), reply
    return reply.text


def test_the_teacher_answers_a_plain_prompt() -> None:
    reply = replies(f"{TALE}\n\nIn short?")

    assert text(reply) == "Arn lies on the Senna."
    assert isinstance(reply, Reply)
    assert (reply.usd, reply.cut, reply.output_tokens) == (0, False, 5)


def test_labels_that_the_system_message_lists_and_turns_before_the_last_are_read_too() -> None:
    assert text(replies(MAIL, system="Name the queue: billing, repairs, delivery.")) == "delivery"
    assert text(replies(TALE, "I have read it.", "On which river lies Arn?")) == "Arn lies on the Senna."


ASKED: dict[str, Any] = {
    "task": "closed_qa",
    "example": {"instruction": "q", "response": "a"},
    "count": 2,
    "batch": 0,
}


def test_a_request_for_pairs_as_the_generator_sends_it_goes_to_the_grammar() -> None:
    _, data = ask(pair(), count=2, batch=1, prompt=TaskPrompt("closed_qa", SYSTEM))

    assert json.loads(data["content"]).keys() >= ORDER
    assert len(json.loads(text(replies(data["content"])))["contents"]) == 2


def test_an_order_that_no_grammar_can_fill_is_a_failure_and_not_answered() -> None:
    assert isinstance(replies(json.dumps({**ASKED, "task": "haiku"})), Failure)
    assert isinstance(replies(json.dumps({**ASKED, "count": "many"})), Failure)


@pytest.mark.parametrize("missing", sorted(ORDER))
def test_json_that_is_no_order_is_somebodys_prompt(missing: str) -> None:
    rest = json.dumps({key: value for key, value in ASKED.items() if key != missing})

    assert "contents" not in text(replies(rest))


@pytest.mark.parametrize(
    "content", ["{}", "[]", "7", "null", '"text"', '{"count": 3}', '{"question": "Why?"}', "[" * 9_999]
)
def test_a_prompt_that_happens_to_be_json_is_answered(content: str) -> None:
    assert text(replies(content))
