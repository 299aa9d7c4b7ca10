"""What of a generator's pairs is not wanted, and why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.synthesis.screen import Screen, language, languages
from tests.unit.builders import pair

EXAMPLE = pair("The mill at Arn burnt down in 1902. A school stands there today.\n\nWhat burnt down?", "The mill")
ENGLISH = Screen(frozenset({"en"}), 500)

GERMAN = "Die Bibliothek in der Hauptstrasse hat am Montag geschlossen. Wann kann ich die Buecher zurueckbringen?"
FRENCH = "La bibliotheque de la rue principale est fermee le lundi. Quand puis-je rapporter les livres ?"
PLAIN = "The library on Main Street is closed on Mondays. On which day is it closed?"


def objection(response: str, prompt: str = PLAIN, *, example: Pair = EXAMPLE, screen: Screen = ENGLISH) -> str | None:
    """The reason by which a pair is counted."""
    why = screen.objection(pair(prompt, response), example)
    return why[0] if why else None


@pytest.mark.parametrize(
    "response",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m very sorry, I cannot write this.",
        "Sorry, I am unable to answer questions about that.",
        "I cannot assist with this request.",
        "I can't provide that information.",
        "I am not able to create such text.",
        "Unfortunately, I won't be able to do so.",
        "I apologize, but I must decline.",
    ],
)
def test_a_response_that_declines_is_a_refusal(response: str) -> None:
    assert objection(response) == "refusal"


@pytest.mark.parametrize(
    "response",
    [
        "Monday",
        "The passage does not say.",
        "He was sorry that he could not come.",
        "The shop cannot help before noon.",
        "Sorry is the first word of the letter.",
        "I can see the mill from here.",
        "Unfortunately, the mill burnt down.",
    ],
)
def test_an_answer_that_only_sounds_like_one_is_none(response: str) -> None:
    assert objection(response) is None


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        (PLAIN, "As an AI language model, I would say Monday."),
        (PLAIN, "As an AI, I think it is Monday."),
        (PLAIN, "My training data ends before that Monday."),
        (PLAIN, "Here is a new example: Monday"),
        (PLAIN, "Response: Monday"),
        (f"Here are three new pairs: {PLAIN}", "Monday"),
        (f"Instruction: {PLAIN}", "Monday"),
        (f"{PLAIN} (This is unlike the given example.)", "Monday"),
    ],
)
def test_a_pair_that_speaks_of_itself_is_meta_text(prompt: str, response: str) -> None:
    assert objection(response, prompt) == "meta_text"


def test_a_task_whose_answers_decline_or_speak_of_models_may_go_on_doing_so() -> None:
    declining = pair("How do I pick a lock?", "I'm sorry, but I can't help with that.")
    speaking = pair("Who are you?", "As an AI language model, I have no name.")

    assert objection("I cannot help with that.", example=declining) is None
    assert objection("As an AI I have none.", example=speaking) is None


def test_the_example_again_is_a_copy_whatever_its_answer() -> None:
    assert objection("The mill.", EXAMPLE.instruction) == "copy_of_example"
    assert objection("The old school", EXAMPLE.instruction.upper()) == "copy_of_example"
    assert objection("A school", EXAMPLE.instruction.replace("What burnt down", "What stands there")) is None


@pytest.mark.parametrize(("prompt", "code"), [(GERMAN, "de"), (FRENCH, "fr")])
def test_a_pair_in_another_language_than_the_tasks_is_told_with_both(prompt: str, code: str) -> None:
    why = ENGLISH.objection(pair(prompt, "Montag"), EXAMPLE)

    assert why is not None
    assert why[0] == "wrong_language"
    assert code in why[1]
    assert "en" in why[1]
    assert objection("Montag", prompt, screen=Screen(frozenset({"en", code}), 500)) is None
    assert objection("Montag", prompt, screen=Screen(frozenset(), 500)) is None


def test_few_words_and_code_are_in_no_language() -> None:
    assert language(pair("Wie heisst die Stadt?", "Arn")) is None
    assert (
        language(pair("```python\ndef summe(zahlen):\n    return sum(zahl * zahl for zahl in zahlen)\n```", "ok"))
        is None
    )
    assert language(pair(PLAIN, "Monday")) == "en"


def test_a_tasks_languages_are_those_of_more_than_a_few_pairs() -> None:
    rows = [pair(f"{PLAIN} {n}", "Monday") for n in range(60)]

    assert languages([*rows, pair(GERMAN, "Montag")]) == {"en"}
    assert languages([*rows, *[pair(f"{GERMAN} {n}", "Montag") for n in range(6)]]) == {"en", "de"}
    assert languages([pair("Arn?", "Arn")]) == frozenset()


def test_a_pair_that_is_too_long_is_told_with_its_length() -> None:
    why = ENGLISH.objection(pair("x" * 400, "y" * 101), EXAMPLE)

    assert why == ("too_long", "501 characters, more than 500")
    assert objection("y" * 100, "x" * 400) is None


@given(st.text(), st.text())
def test_any_pair_can_be_screened_and_keeps_a_reason_that_is_known(prompt: str, response: str) -> None:
    known = {None, "refusal", "meta_text", "copy_of_example", "wrong_language", "too_long"}

    assert objection(response, prompt) in known
