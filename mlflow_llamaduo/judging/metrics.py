"""The reference metrics as `evaluate.Metric`: for notebooks, `evaluate.combine`, and whatever else takes one.

    ExactMatch().compute(predictions=["the old mill"], references=["Old mill."])    # {"exact_match": 100.0}

They are classes, not scripts on a hub: `evaluate.load("rouge")` downloads its code, and fails without a network. Each
gives the mean over all texts, 0 to 100, by the function of its name in `judging.reference`.

Predictions and references stay in memory. By default `evaluate` writes them to a file below the user's cache, under
a lock that all processes share, and leaves folders there; here two processes have nothing in common.
"""

from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import evaluate
from datasets import Features, Value

from mlflow_llamaduo.judging import reference
from mlflow_llamaduo.service_llm.replies import whole

SQUAD = "Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, EMNLP 2016."

INPUTS = """
Args:
    predictions: the responses, a list of texts.
    references: as many texts, each the answer that is known to be good.
Returns:
    A dict with one key, the metric's name: the mean over all responses, 0 to 100; 100 for the references themselves.
"""


class ReferenceMetric(evaluate.Metric):
    """A mean over pairs of texts; what a metric adds is in its class variables."""

    key: ClassVar[str]
    text: ClassVar[str]
    source: ClassVar[str]

    def __init__(self) -> None:
        with TemporaryDirectory() as folder:  # made for a cache in any case, and never used
            super().__init__(keep_in_memory=True, cache_dir=folder)
        self.info.module_name = self.key  # evaluate would call ChrF chr_f

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=f"{self.text} The mean over all responses, 0 to 100.",
            citation=self.source,
            inputs_description=INPUTS,
            features=Features({"predictions": Value("string"), "references": Value("string")}),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **others: Any) -> None:
        """Adds texts; half characters (lone surrogates) are replaced, as Arrow holds none.

        Raises:
            ValueError: something else than two lists of texts, equally long.
        """
        super().add_batch(predictions=_texts(predictions), references=_texts(references), **others)

    def add(self, *, prediction: Any = None, reference: Any = None, **others: Any) -> None:
        """Adds one pair of texts; half characters (lone surrogates) are replaced, as Arrow holds none."""
        super().add(prediction=whole(prediction), reference=whole(reference), **whole(others))

    def _compute(self, *, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {self.key: reference.mean(self.key, references, predictions)}


class ExactMatch(ReferenceMetric):
    """The words are the same, whatever their case, punctuation and articles."""

    key = "exact_match"
    text = "Share of responses with the words of the reference; case, punctuation and articles do not count."
    source = SQUAD


class TokenF1(ReferenceMetric):
    """F1 of the words, in any order."""

    key = "token_f1"
    text = "F1 of the words that response and reference share, in any order; articles do not count."
    source = SQUAD


class RougeL(ReferenceMetric):
    """F1 of the longest common subsequence of words."""

    key = "rouge_l"
    text = "ROUGE-L F1: the longest common subsequence of words, not stemmed; a letter where a script has no spaces."
    source = "Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004."


class ChrF(ReferenceMetric):
    """F2 of character n-grams, as sacrebleu has it."""

    key = "chrf"
    text = "chrF2 of each response by sacrebleu: character n-grams up to 6, recall twice as important as precision."
    source = (
        "Popovi\u0107, chrF: character n-gram F-score for automatic MT evaluation, WMT 2015; "
        "Post, A Call for Clarity in Reporting BLEU Scores, WMT 2018 (sacrebleu)."
    )


class LabelAccuracy(ReferenceMetric):
    """The response names the reference's label, or all of its labels, and no other."""

    key = "label_accuracy"
    text = "Share of responses that name the reference's label, or the same set of labels, whatever leads up to it."
    source = "mlflow_llamaduo.core.overlap.label_match; of several labels the set must be the same (subset accuracy)."


class EditSimilarity(ReferenceMetric):
    """One less the normalised Levenshtein distance of the characters."""

    key = "edit_similarity"
    text = "One less the Levenshtein distance of the characters, as a share of the longer text."
    source = "Levenshtein, Binary codes capable of correcting deletions, insertions, and reversals, 1966."


METRICS: Mapping[str, type[ReferenceMetric]] = {
    metric.key: metric for metric in (ExactMatch, TokenF1, RougeL, ChrF, LabelAccuracy, EditSimilarity)
}
"""Every metric by name, in the order of `reference.SCORES`."""

for_task, measure = reference.for_task, reference.measure


def _texts(given: Any) -> list[str]:
    """As a list. evaluate looks at the first alone, takes 3 for "3", and a text for a list of its letters."""
    if given is None or isinstance(given, str) or not all(isinstance(text, str) for text in given):
        raise ValueError("predictions and references must be lists of texts")
    return [whole(text) for text in given]
