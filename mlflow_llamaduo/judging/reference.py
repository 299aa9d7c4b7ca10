"""Reference metrics beside the judge: what a response shares with the reference, with no model in between.

A judge may err, or be changed under our feet; these say the same of the same texts for ever. They only tell how a
response is worded, so they stand beside the judge's scores and no gate asks for them. Which of them say something
depends on the task: an exact match of two summaries is chance.

`judging.metrics` offers the same functions as `evaluate.Metric`. The loop reckons with these here: `import evaluate`
imports torch and transformers, 8 seconds and 350 MB in a process that needs neither.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING

from mlflow_llamaduo.core.overlap import edit_similarity, exact_match, label_match, rouge_l, token_f1, words
from mlflow_llamaduo.core.records import Response
from mlflow_llamaduo.service_llm.replies import whole

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF

COMPARED = 20_000
"""Characters of a text that are compared, some 5,000 tokens. Edit similarity of a million takes a minute."""

Score = Callable[[str, str], float]


def chrf(reference: str, response: str) -> float:
    """The chrF2 of sacrebleu for one sentence, 0 to 1; two texts of nothing but white space are alike."""
    if not reference.split() and not response.split():  # sacrebleu gives them 0
        return 1.0
    points: float = _chrf().sentence_score(response, [reference]).score
    return points / 100


@cache
def _chrf() -> "CHRF":
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def _in_words(score: Score) -> Score:
    """The score; but where neither text has a word only the same counts: "+" is not "-", and "A" no empty answer."""
    return lambda one, other: score(one, other) if words(one) or words(other) else exact_match(one, other)


SCORES: Mapping[str, Score] = {
    "exact_match": exact_match,
    "token_f1": _in_words(token_f1),
    "rouge_l": _in_words(rouge_l),
    "chrf": chrf,
    "label_accuracy": label_match,
    "edit_similarity": edit_similarity,
}
"""Every metric by name: a function of (reference, response), 0 to 1."""

_OF_TASK: Mapping[str, tuple[str, ...]] = {
    "closed_qa": ("exact_match", "token_f1", "rouge_l"),
    "summarization": ("rouge_l", "chrf"),
    "classification": ("label_accuracy", "exact_match"),
    "coding": ("edit_similarity", "chrf"),
}
_OF_OTHERS = ("token_f1", "rouge_l", "chrf")


def for_task(task: str) -> tuple[str, ...]:
    """The metrics that say something about a task."""
    return _OF_TASK.get(task, _OF_OTHERS)


def measure(responses: Sequence[Response], names: Sequence[str]) -> dict[str, float]:
    """The mean of each metric over the responses, 0 to 100; nothing for no responses.

    Raises:
        KeyError: there is no metric of that name.
    """
    if not responses:
        return {}
    references, texts = [each.reference for each in responses], [each.text for each in responses]
    return {name: mean(name, references, texts) for name in names}


def mean(name: str, references: Sequence[str], texts: Sequence[str]) -> float:
    """The mean of one metric over pairs of texts, 0 to 100, the same in any order.

    Raises:
        ValueError: there are no texts.
    """
    if not texts:
        raise ValueError(f"{name}: there are no predictions to take a mean of")
    score = SCORES[name]
    pairs = zip(references, texts, strict=True)
    return 100 * fmean(score(_read(reference), _read(text)) for reference, text in pairs)


def _read(text: str) -> str:
    read: str = whole(text)[:COMPARED]
    return read
