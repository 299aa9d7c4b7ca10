"""Every metric that an alignment writes to MLflow: its name, its unit, the runs that have it, what it says.

Other programs rely on these names. The page of metrics is made of this table (`make reference`), and a test holds it
against what the code writes. A name may have places: `judge/precision_coverage_<t>` is one metric for each threshold.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from mlflow_llamaduo.core.ledger import PAID, STAGES
from mlflow_llamaduo.core.redact import KINDS
from mlflow_llamaduo.core.rules import BASELINES, OPPONENTS, SCORES

Runs = Literal["both", "parent", "round"]
"""`both`: the run of the whole alignment, with the round as step, and the round's own nested run; `parent`: the first
of them only, at step 0; `round`: the other only, with the epoch as step."""

_SCORE = "|".join(SCORES)
_THRESHOLD = r"(?:100|\d{1,2})(?:\.\d+)?"
PLACES = {
    "t": _THRESHOLD,
    "figure": rf"(?:{_SCORE})_(?:mean|mean_low|mean_high|coverage_{_THRESHOLD})|judged_share",
    "mean_or_coverage": rf"(?:{_SCORE})_(?:mean|coverage_{_THRESHOLD})",
    "judge": r"[\w\-. :/]+",
    "baseline": "|".join(BASELINES),
    "opponent": "|".join(OPPONENTS),
    "reference": "exact_match|token_f1|rouge_l|chrf|label_accuracy|edit_similarity",
    "reason": "malformed|too_long|refusal|meta_text|copy_of_example|wrong_language|leak|duplicate|near_duplicate",
    "kind": "|".join(KINDS),
    "stage": "|".join(STAGES),
    "paid": "|".join(PAID),
}
"""What may stand in a place."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table: metrics of one unit and meaning."""

    names: tuple[str, ...]
    unit: str
    meaning: str
    runs: Runs = "both"


def _row(names: str, unit: str, meaning: str, runs: Runs = "both") -> Metric:
    return Metric(tuple(names.split()), unit, meaning, runs)


METRICS = (
    _row("judge/precision_mean judge/similarity_mean", "0 to 100", "the gate's judge, the mean of both scores"),
    _row(
        "judge/precision_mean_low judge/precision_mean_high judge/similarity_mean_low judge/similarity_mean_high",
        "0 to 100",
        "bounds of the 95 % interval",
    ),
    _row(
        "judge/precision_coverage_<t> judge/similarity_coverage_<t>",
        "% of responses",
        "of at least so many points; the thresholds are `judging.thresholds`, by default 50 and 70",
    ),
    _row("judge/judged_share", "% of judgings", "that gave scores"),
    _row("judge/unjudged", "judgings", "without usable scores"),
    _row("judge/calls_saved", "judgings", "that were not asked for, as the decision was settled"),
    _row(
        "judges/<judge>/<figure>",
        "as the figure",
        "the figures by each of the other judges, judged twice; in a judge's name `_` stands for what MLflow does "
        "not take, such as `@`",
    ),
    _row(
        "perf_matching/<mean_or_coverage>",
        "%",
        "100 x the round's figure over the service LLM's own; missing beside a 0",
    ),
    _row(
        "pairwise/<opponent>/win_rate pairwise/<opponent>/win_rate_low pairwise/<opponent>/win_rate_high",
        "0 to 100",
        "against an opponent, with the bounds of the 95 % interval: a win counts 100, a tie or a flip 50",
    ),
    _row("pairwise/<opponent>/flip_rate", "% of judged pairs", "in which the two orders disagree"),
    _row(
        "pairwise/<opponent>/first_preference",
        "% of decided askings",
        "that the answer in the first place won; 50 is fair; missing where none was decided",
    ),
    _row("pairwise/<opponent>/unjudged", "pairs", "without an outcome in one of the orders"),
    _row("reference/<reference>", "0 to 100", "a reference metric"),
    _row("train/loss", "nats per response token", "mean of the training"),
    _row("train/eval_loss", "nats per response token", "on the dev pairs, of the epoch that was kept"),
    _row("train/best_epoch", "epoch", "the one that was kept"),
    _row("train/tokens_per_second", "tokens a second", "without padding, evaluation not counted"),
    _row("train/epoch_loss train/epoch_eval_loss", "nats per response token", "of each epoch", "round"),
    _row("data/coverage_rows", "rows", "of the source", "parent"),
    _row("data/coverage_kept", "pairs", "that came of them", "parent"),
    _row("data/redacted_<kind>", "places", "redacted in these pairs", "parent"),
    _row("data/train_rows", "pairs", "trained on"),
    _row("data/synthetic_kept data/synthetic_rejected", "pairs", "of this round's new ones"),
    _row("data/rejected_<reason>", "pairs", "of the rejected ones, by reason; missing where it does not occur"),
    _row(
        "data/synthetic_redacted_<kind>",
        "places",
        "redacted in new pairs, before curation; missing where the kind does not occur",
    ),
    _row(
        "synthesis/distinct_1 synthesis/distinct_2 synthesis/distinct_3",
        "0 to 1",
        "different n-grams over all, of the kept pairs",
    ),
    _row(
        "synthesis/nearest_seed_mean synthesis/nearest_seed_max",
        "0 to 1",
        "Jaccard with the most similar coverage pair of train",
    ),
    _row(
        "synthesis/prompt_length_ratio synthesis/response_length_ratio",
        "ratio",
        "mean number of words, new over coverage pairs of train",
    ),
    _row(
        "baseline/<baseline>/<figure> baseline/<baseline>/<reference>",
        "as the figure",
        "what a round is compared with, on the same test prompts by the same judge",
        "parent",
    ),
    _row(
        "baseline/<baseline>/perf_matching/<mean_or_coverage>",
        "%",
        "100 x the baseline's figure over the service LLM's own",
        "parent",
    ),
    _row("baseline/<baseline>/usd", "dollars", "what answering and judging the baseline cost", "parent"),
    _row("cost/service_llm_usd", "dollars", "paid to the service LLM in this round"),
    _row("cost/training_usd", "dollars", "of fine-tuning, in this round: all workers, by the hour"),
    _row(
        "cost/inference_usd",
        "dollars",
        "of our own machines for answers and for the check of what is packed, in this round",
    ),
    _row("cost/total_usd", "dollars", "of the whole alignment so far, baselines and rounds"),
    _row("cost/breakeven_months", "months", "until the local model is cheaper; missing where that never comes"),
    _row("ledger/<stage>_usd", "dollars", "what a stage cost, in this round"),
    _row(
        "ledger/<stage>_seconds",
        "seconds",
        "of the machine where one worked; else the waiting for replies, summed over the calls",
    ),
    _row("ledger/<paid>_input_tokens ledger/<paid>_output_tokens", "tokens", "that a stage's calls read and wrote"),
)


def known(name: str) -> Metric | None:
    """The row that a metric's name belongs to."""
    return next((metric for metric in METRICS if any(form(each).fullmatch(name) for each in metric.names)), None)


@cache
def form(name: str) -> re.Pattern[str]:
    """A name of the table as a pattern."""
    parts = re.split(r"<(\w+)>", name)  # text, place, text, place ... text
    return re.compile("".join(f"(?:{PLACES[part]})" if at % 2 else re.escape(part) for at, part in enumerate(parts)))
