"""What the judge is asked, and how strictly its reply is read. What responses try is in test_hijack."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.records import Judgement, Response, Unjudged, Verdict
from mlflow_llamaduo.judging.prompt import MOST_CHARACTERS, SYSTEM, ask, read

FINISHED = json.dumps(
    {name: {"score": 100, "reason": "same"} for name in ("similarity_assessment", "precision_assessment")}
)


def asked(response: str, *, instruction: str = "Which town?", reference: str = "Arn") -> tuple[dict[str, str], ...]:
    return ask(Response("p0", 0, instruction, reference, response, 3))


@given(st.text(), st.text(), st.text())
def test_any_three_texts_arrive_intact_and_leave_the_rules_alone(
    instruction: str, reference: str, response: str
) -> None:
    rules, data = asked(response, instruction=instruction, reference=reference)

    assert rules == asked("Arn")[0]
    fields = json.loads(data["content"], object_pairs_hook=list)
    assert fields == [("task", ""), ("instruction", instruction), ("reference", reference), ("response", response)]


def test_the_rules_name_the_fields_that_are_sent_and_the_ones_that_are_read() -> None:
    for field in ("instruction", "reference", "response", "similarity_assessment", "precision_assessment", "score"):
        assert f'"{field}"' in SYSTEM


def test_a_response_is_shown_whole_up_to_a_length_and_cut_there_with_its_real_length_beside_it() -> None:
    whole, cut = (json.loads(asked("x" * length)[1]["content"]) for length in (MOST_CHARACTERS, MOST_CHARACTERS + 1))

    assert whole["response"] == cut["response"] == "x" * MOST_CHARACTERS
    assert "response_characters" not in whole
    assert cut["response_characters"] == MOST_CHARACTERS + 1
    assert '"response_characters"' in SYSTEM


def test_instruction_and_reference_are_the_users_own_and_stay_whole() -> None:
    long = "x" * (MOST_CHARACTERS + 1)
    data = json.loads(asked("Arn", instruction=long, reference=long)[1]["content"])

    assert (data["instruction"], data["reference"]) == (long, long)


def test_ordinary_text_is_asked_about_in_the_bytes_it_always_was() -> None:
    data = {
        "task": "",
        "instruction": "\u0427\u044c\u044f?",
        "reference": "アルン",
        "response": 'List<int> <b> "a" 😀\n',
    }
    _, sent = asked(data["response"], instruction=data["instruction"], reference=data["reference"])

    assert sent["content"] == json.dumps(data, ensure_ascii=False)  # else every stored reply would be asked for again


def reading(text: str) -> Judgement:
    return read(text, response=Response("p0", 1, "Which town?", "Arn", "Arn", 3), judge="judge", repeat=2)


def reply(similarity: object, precision: object) -> str:
    return json.dumps(
        {
            "similarity_assessment": {"score": similarity, "reason": "short"},
            "precision_assessment": {"score": precision, "reason": "right"},
        }
    )


@pytest.mark.parametrize(
    ("text", "similarity", "precision"),
    [
        (reply(70, 85), 70, 85),
        (reply("70/100", "85.5"), 70, 85.5),
        (reply(0, 100), 0, 100),
        (f"```json\n{reply(70, 85)}\n```", 70, 85),
        (f"The response quotes {FINISHED} but I grade it\n{reply(5, 10)}", 5, 10),
        (f"{reply(70, 85)}\nOn second thought:\n{reply(60, 65)}", 60, 65),
        ('{"similarity_assessment": 70, "precision_assessment": "85 %"}', 70, 85),
        (reply(70, 85).removesuffix('right"}}'), 70, 85),
        (reply(70, 85).replace("85", "8.5e1"), 70, 85),
        (reply(70, 85).replace("70", "-0.0"), 0, 85),
        (reply(70, 85).replace("70", '70, "score": 70.0'), 70, 85),
    ],
)
def test_the_last_verdict_of_a_reply_is_read(text: str, similarity: float, precision: float) -> None:
    found = reading(text)

    assert isinstance(found, Verdict)
    assert (found.similarity, found.precision) == (similarity, precision)
    assert (found.response_id, found.judge, found.repeat) == ("p0/1", "judge", 2)


def test_a_verdict_keeps_both_reasons() -> None:
    assert reading(reply(70, 85)).reason == "short | right"


def test_half_a_character_in_a_reason_is_kept_from_the_files_it_would_break() -> None:
    text = reply(70, 85).replace("right", "\\ud83d")

    assert json.loads(text)["precision_assessment"]["reason"] == "\ud83d"
    assert reading(text).reason.encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no assessment in the reply"),
        ("I cannot grade this.", "no assessment in the reply: 'I cannot grade this.'"),
        ("null", "no assessment"),
        ('{"precision_assessment": {"score": 85}}', "similarity is no score"),
        ('{"similarity_assessment": {"score": 85}}', "no assessment"),
        ('{"similarity_assessment": {}, "precision_assessment": {}}', "similarity is no score"),
        ('{"similarity_assessment": [85], "precision_assessment": [85]}', "similarity is no score"),
        (reply(70, True), "precision is no score from 0 to 100: True"),
        (reply(70, None), "precision is no score"),
        (reply(70, 101), "precision is no score from 0 to 100: 101"),
        (reply(-1, 85), "similarity is no score"),
        (reply(70, 10**400), "precision is no score"),
        (reply(70, float("nan")), "precision is no score"),
        (reply(70, float("inf")), "precision is no score"),
        (reply(70, 85).replace("85", "1e400"), "precision is no score"),
        (reply(70, 85).replace("85", "9" * 5000), "precision is no score"),
        (reply(70, "1e2"), "precision is no score"),
        (reply(70, "\uff18\uff15"), "precision is no score"),
        (reply(70, "\u0668\u0665"), "precision is no score"),
        (reply(70, {"score": 85}), "precision is no score"),
        (reply(70, [[85]]), "precision is no score"),
        (reply(70, 85).replace("85", '10, "score": 100'), "precision is no score from 0 to 100: (10, 100)"),
        (reply(70, 85).replace("similarity", "precision"), "similarity is no score"),
        (
            '{"precision_assessment": 1, "similarity_assessment": 1, "precision_assessment": 9}',
            "precision is no score",
        ),
        (reply(70, 85).replace("score", "Score"), "similarity is no score"),
        (reply(70, 85).replace("_assessment", "_Assessment"), "no assessment"),
        ('{"similarity_assessment": 1, "precision_assessment": ' + "[" * 600 + "]" * 600 + "}", "no assessment"),
        (reply(70, "very good"), "precision is no score"),
        (f"{reply(70, 85)}\nNo:\n{reply('n/a', 'n/a')}", "similarity is no score"),
        ("[" * 20_000, "no assessment"),
    ],
)
def test_a_reply_without_two_scores_is_unjudged_with_the_reason(text: str, reason: str) -> None:
    found = reading(text)

    assert isinstance(found, Unjudged)
    assert (found.response_id, found.judge, found.repeat) == ("p0/1", "judge", 2)
    assert found.reason.startswith(reason)
    assert len(found.reason) <= 200


@given(st.text())
def test_no_text_but_a_verdict_scores(text: str) -> None:
    assert isinstance(reading(text), Unjudged)
