"""A round of synthesis, from the train pairs to the new ones that are kept.

train -> (seeds.draw) -> examples -> (generate) -> pairs -> (screen) -> (redact) -> (curate) -> kept
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_llamaduo.core.records import Grown, Pair, PairSet, Rejected, TaskPrompt
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.synthesis.curate import curate
from mlflow_llamaduo.synthesis.diversity import diversity
from mlflow_llamaduo.synthesis.generate import synthesize
from mlflow_llamaduo.synthesis.prompt import GENERAL
from mlflow_llamaduo.synthesis.screen import Screen, languages
from mlflow_llamaduo.synthesis.seeds import draw

if TYPE_CHECKING:
    from mlflow_llamaduo.service_llm.client import ServiceLLM

Redact = Callable[[Pair], tuple[Pair, Mapping[str, int]]]

NOBODY: PairSet = PairSet(())


@dataclass(frozen=True)
class Order:
    """What is asked for: `rows` pairs, `per_call` in a call, each of at most `max_characters`, in round `batch`.

    `failed` says how badly each pair of `dev` fails, 0 to 1, and so which kinds of examples are shown more often.
    """

    rows: int
    per_call: int
    batch: int
    max_characters: int
    prompt: TaskPrompt = GENERAL
    redact: Redact | None = None
    dev: PairSet = NOBODY
    failed: Mapping[str, float] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """Calls to the generator."""
        return -(-self.rows // self.per_call)


def grow(
    train: PairSet,
    order: Order,
    *,
    test: PairSet,
    llm: "ServiceLLM",
    done: Callable[[int], object],
    index: Path | None = None,
) -> Grown:
    """New pairs like the train pairs.

    Args:
        train: the examples are the pairs of people in here; nothing like any of these pairs is kept.
        order: what is asked for.
        test: the held-out pairs; nothing that gives one of them away is kept.
        llm: the generator.
        done: told the number of pairs asked for by every call that has ended.
        index: a file in which curation keeps what it has reckoned of the train pairs.

    Raises:
        DataError: `train` has no pair that could be an example.
        BudgetError: the next call would pass the budget.
    """
    seeds = [pair for pair in train if not pair.synthetic]
    if not seeds:
        raise DataError("no pair to take as an example: synthesis needs at least one that is not synthetic itself")
    new, unusable = synthesize(
        draw(seeds, order.calls, batch=order.batch, dev=order.dev, failed=order.failed),
        llm=llm,
        per_call=order.per_call,
        batch=order.batch,
        screen=Screen(languages(seeds), order.max_characters),
        done=done,
        prompt=order.prompt,
    )
    counts: Counter[str] = Counter()
    if order.redact:
        new = [_redacted(pair, order.redact, counts) for pair in new]
        unusable = [_hidden(rejected, order.redact) for rejected in unusable]
    grown = curate(new, known=train, test=test, index=index)
    figures = {**diversity(grown.kept, seeds), **{f"redacted_{kind}": float(n) for kind, n in counts.items()}}
    return Grown(grown.kept, (*unusable, *grown.rejected), figures)


def _redacted(pair: Pair, redact: Redact, counts: Counter[str]) -> Pair:
    clean, found = redact(pair)
    counts.update(found)
    return clean


def _hidden(rejected: Rejected, redact: Redact) -> Rejected:
    """A pair that is kept as a warning only; its detail, which may quote it, goes."""
    if rejected.pair is None:
        return rejected
    return replace(rejected, pair=redact(rejected.pair)[0], detail="")
