"""How `offline/judge` compares two answers: by their distance from the reference, and by next to nothing without one.

With a reference, the answer with the higher precision by its task's own metric wins. Without one (the reference is
then one of the two) nothing here can tell a right answer from a wrong one. What is left is how many of an answer's
words the instruction holds: it prefers what is copied from the passage to what is made up, the right answer or not,
and every reason says that this is no opinion. It runs the code around a comparison; it says nothing of the answers.
"""

from typing import Any

from mlflow_llamaduo.core.text import words
from mlflow_llamaduo.service_llm.offline.judges import assess

TIE = 5.0
"""So many points, or percentage points, apart is a tie."""


def prefer(asked: dict[str, Any]) -> dict[str, Any]:
    """The winner of two answers and why: the reply to a request that has the fields `first` and `second`."""
    task, instruction = str(asked.get("task", "")), str(asked.get("instruction", ""))
    answers = [str(asked[place]) for place in ("first", "second")]
    if "reference" in asked:
        reference = str(asked["reference"])
        first, second = (100 * assess(task, reference, answer, instruction)[1].share for answer in answers)
        why = f"precision {first:.1f} and {second:.1f} by the task's metric"
    else:
        first, second = (100 * _held(answer, instruction) for answer in answers)
        why = f"no opinion: the instruction holds {first:.0f} % and {second:.0f} % of the words"
    ahead = round(first - second, 6)  # 55 is as far from 50 as 30 from 25, but not in binary
    winner = "tie" if abs(ahead) <= TIE else "first" if ahead > 0 else "second"
    return {"winner": winner, "reason": f"offline stand-in: {why}"}


def _held(answer: str, instruction: str) -> float:
    """The share of an answer's words that the instruction has too, 0 to 1; 0 for an answer without words."""
    said, known = words(answer), set(words(instruction))
    return sum(word in known for word in said) / len(said) if said else 0.0
