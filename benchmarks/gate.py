"""How often a gate errs, whether its intervals keep their promise, and what adaptive judging saves: a simulation.

A prompt is as hard for a model as a draw from a Beta distribution says; the service LLM and the candidate share half
of what makes it hard. Each of K = 4 responses succeeds or fails by that; a success is worth 98 points and a failure
28, give or take 3 and 15, and each of M = 10 judgings adds the judge's noise of 7 points (standard deviations; scores
stay from 0 to 100). That makes means and coverage like those of Table 1: mostly high, some low, little between.

    gates      the default gate beside the same on the mean alone, candidates from 10 points under the line to 8 over
               it; the line is 90 % of a service LLM that scores 92
    intervals  how many 95 % intervals hold the true mean, beside Student's t, the percentile bootstrap and BCa
    adaptive   calls saved by asking a judge until the decision is settled, and decisions that are the same

    python -m benchmarks.gate [--quick]
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy import stats

from benchmarks.row import COLUMNS, Row, of_mean, of_share, table_line
from mlflow_llamaduo.config import DEFAULT_GATE, rules_of
from mlflow_llamaduo.core.adaptive import FIRST, settled
from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.gate import decide
from mlflow_llamaduo.core.interval import Floats, of_ratio, of_scores
from mlflow_llamaduo.core.records import Judgement, Response, Unjudged, Verdict
from mlflow_llamaduo.core.rules import GateRule
from mlflow_llamaduo.core.scoring import Scorecard, Scored, score

K, M, PROMPTS = 4, 10, 15
GOOD, BAD, NOISE = (98.0, 3.0), (28.0, 15.0), 7.0
CLUSTER, SHARED = 0.5, 0.5
"""Correlation of the K successes on one prompt, and of a prompt's difficulty for two models."""
SERVICE = 92.0
LINE = 0.9 * SERVICE
AUTHORS = [GateRule("precision_mean", 90), GateRule("similarity_mean", 90)]
FALSE_PASSES, HELD, SAVED, SAME = 5.0, (92.0, 98.0), 50.0, 99.0
"""What must be reached, in percent."""


@dataclass(frozen=True)
class World:
    """Where judgings come from."""

    rng: np.random.Generator
    cluster: float = CLUSTER

    def judgings(self, prompts: int, means: Sequence[float]) -> list[Floats]:
        """Scores of models with these true means on the same prompts, each (prompts, K, M, 2)."""
        common = self.rng.standard_normal(prompts)
        drawn = []
        for mean in means:
            own = np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * self.rng.standard_normal(prompts)
            share, whole = _success(mean), 1 / self.cluster - 1
            chance = stats.beta.ppf(stats.norm.cdf(own), share * whole, (1 - share) * whole)
            succeeded = self.rng.random((prompts, K)) < chance[:, None]
            drawn.append(_judged(self.rng, succeeded))
        return drawn


def _judged(rng: np.random.Generator, succeeded: np.ndarray) -> Floats:
    """Judgings of two scores for responses that succeeded or failed."""
    shape = (*succeeded.shape, 2)
    worth = np.where(succeeded[..., None], rng.normal(*GOOD, shape), rng.normal(*BAD, shape)).clip(0, 100)
    noise = rng.normal(0, NOISE, (*succeeded.shape, M, 2))
    return np.asarray((worth[..., None, :] + noise).clip(0, 100))


def _levels() -> tuple[float, float]:
    """What a judged failure and a judged success are worth on average: clipping moves both."""
    rng = np.random.default_rng(1)
    failed, succeeded = (_judged(rng, np.full((20_000, 1), kind)).mean() for kind in (False, True))
    return float(failed), float(succeeded)


FAILED, SUCCEEDED = _levels()


def _success(mean: float) -> float:
    return (mean - FAILED) / (SUCCEEDED - FAILED)


def card(judgings: Floats, repeats: int = M) -> Scorecard:
    """The scorecard of the first `repeats` judgings of each response."""
    means = judgings[:, :, :repeats].mean(axis=2)
    rows = [
        Scored(f"p{prompt:03d}/{sample}", float(means[prompt, sample, 1]), float(means[prompt, sample, 0]), repeats)
        for prompt, sample in np.ndindex(means.shape[:2])
    ]
    return Scorecard("judge", len(judgings), len(rows), repeats * len(rows), 0, tuple(rows))


def passes(trials: int, prompts: int, mean: float, gates: Sequence[Sequence[GateRule]]) -> list[float]:
    """Percent of trials in which each gate passes a candidate of this true mean, all on the same judgings."""
    world, passed = World(np.random.default_rng(prompts)), np.zeros(len(gates))
    for _ in range(trials):
        service, candidate = world.judgings(prompts, [SERVICE, mean])
        own, against = card(candidate), Against({"service_llm": card(service)})
        passed += [decide(own, gate, against).passed for gate in gates]
    return list(100 * passed / trials)


def held(trials: int, mean: float, cluster: float = CLUSTER) -> dict[str, float]:
    """Percent of the 95 % intervals at 15 prompts that hold the true mean, by kind."""
    world = World(np.random.default_rng(int(mean)), cluster)
    values = np.array([world.judgings(PROMPTS, [mean])[0][..., 0].mean(axis=(1, 2)) for _ in range(trials)])
    kinds: dict[str, tuple[Floats, Floats]] = {}
    ours = of_scores(values, PROMPTS * K)
    kinds["ours"] = ours.low, ours.high
    t = stats.ttest_1samp(values, 0.0, axis=1).confidence_interval()
    kinds["Student's t"] = t.low, t.high
    for method, name in (("percentile", "percentile bootstrap"), ("BCa", "BCa bootstrap")):
        kinds[name] = _bootstrap(values, method)
    return {name: 100 * float(((low <= mean) & (mean <= high)).mean()) for name, (low, high) in kinds.items()}


def matched(trials: int, mean: float) -> float:
    """Percent of the 95 % intervals of Perf. Matching at 15 prompts that hold the true ratio."""
    world = World(np.random.default_rng(int(mean)))
    drawn = [world.judgings(PROMPTS, [mean, SERVICE]) for _ in range(trials)]
    own, its = (np.array([models[number][..., 0].mean(axis=(1, 2)) for models in drawn]) for number in (0, 1))
    ratio, true = of_ratio(own, its), 100 * mean / SERVICE
    return 100 * float(((ratio.low <= true) & (true <= ratio.high)).mean())


def _bootstrap(values: Floats, method: str) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(2)
    found = [
        stats.bootstrap((row,), np.mean, n_resamples=999, method=method, rng=rng).confidence_interval
        for row in values
    ]
    return np.array([at.low for at in found]), np.array([at.high for at in found])


def adaptive(trials: int, mean: float, failing: float = 0.0) -> tuple[list[float], float]:
    """Percent of the judge calls saved at 15 prompts, by trial; and percent of decisions that are those of all M.

    Args:
        trials: how many.
        mean: the candidate's true one.
        failing: share of the judgings that give no scores.
    """
    world, gate = World(np.random.default_rng(int(10 * mean))), rules_of(DEFAULT_GATE)
    responses = [Response(f"p{n:03d}", k, "", "", f"{n} {k}", 1) for n, k in np.ndindex(PROMPTS, K)]
    same, saved = 0, list[float]()
    for _ in range(trials):
        service, candidate = world.judgings(PROMPTS, [SERVICE, mean])
        against = Against({"service_llm": card(service)})
        waves = _waves(candidate, responses, world.rng.random((M, PROMPTS * K)) < failing)
        asked = FIRST
        while asked < M and not settled(_first(waves, asked), responses, repeats=M, gate=gate, against=against):
            asked += 1
        saved.append(100 - 100 * asked / M)
        early, late = (decide(score(_first(waves, m), responses), gate, against).passed for m in (asked, M))
        same += early == late
    return saved, 100 * same / trials


def _first(waves: Sequence[Sequence[Judgement]], asked: int) -> list[Judgement]:
    return [judgement for wave in waves[:asked] for judgement in wave]


def _waves(judgings: Floats, responses: Sequence[Response], failed: np.ndarray) -> list[list[Judgement]]:
    """The judgings as the loop has them, all responses in each wave."""
    return [
        [
            Unjudged(response.id, "judge", wave, "no reply")
            if failed[wave, number]
            else Verdict(
                *(response.id, "judge", wave),
                similarity=float(judgings[number // K, number % K, wave, 1]),
                precision=float(judgings[number // K, number % K, wave, 0]),
            )
            for number, response in enumerate(responses)
        ]
        for wave in range(M)
    ]


def measure(trials: int = 2000, resampled: int = 1000) -> Iterator[Row]:
    """All rows."""
    default = rules_of(DEFAULT_GATE)
    on_mean = [GateRule(rule.figure, rule.at_least, "mean") for rule in default]
    for offset in (-10, -5, 0, 5, 8):
        at_mean, by_authors, by_default = passes(trials, PROMPTS, LINE + offset, [on_mean, AUTHORS, default])
        limit = ("at most", FALSE_PASSES) if offset == -5 else ("", 0.0)
        bar = of_share(by_default, trials)
        yield Row(_candidate(offset, PROMPTS), by_default, "%", "on the mean", at_mean, *limit, bar)
        yield Row(_candidate(offset, PROMPTS), by_default, "%", "the authors' 90 and 90", by_authors, bar=bar)
    for prompts in (25, 50, 100):
        for offset in (-5, 5):
            at_mean, by_default = passes(trials // 2, prompts, LINE + offset, [on_mean, default])
            bar = of_share(by_default, trials // 2)
            yield Row(_candidate(offset, prompts), by_default, "%", "on the mean", at_mean, bar=bar)
    for mean in (50.0, 60.0, 70.0, 80.0, 90.0, 94.0):
        found = held(resampled, mean)
        ours = found.pop("ours")
        for number, (peer, figure) in enumerate(found.items()):
            limit = ("least", HELD[0]) if mean <= 80 and not number else ("", 0.0)
            name, bar = f"95 % intervals that hold a mean of {mean:g}, 15 prompts", of_share(ours, resampled)
            yield Row(name, ours, "%", peer, figure, *limit, bar)
    apart = held(resampled, 87.0, cluster=0.999)  # the worst mean of those tried
    yield Row(
        *("95 % intervals that hold a mean of 87, whole prompts fail, 15 prompts", apart["ours"], "%"),
        *("Student's t", apart["Student's t"]),
        bar=of_share(apart["ours"], resampled),
    )
    for mean in (60.0, 70.0, LINE, 90.0):
        name, share = (
            f"95 % intervals of Perf. Matching that hold it, mean {mean:g}, 15 prompts",
            matched(trials, mean),
        )
        yield Row(name, share, "%", bar=of_share(share, trials))
    for offset in (-10, -5, 0, 5, 8):
        saved, same = adaptive(trials // 5, LINE + offset)
        where = "on the line" if not offset else f"{abs(offset)} points {'over' if offset > 0 else 'under'} it"
        yield from _settled(f"candidate {where}", saved, same)
    saved, same = adaptive(trials // 10, LINE + 8, failing=0.03)
    yield from _settled("candidate 8 points over it", saved, same, "3 % of the judgings fail, ", "3 % fail, ")


def _settled(candidate: str, saved: list[float], same: float, what: str = "", short: str = "") -> Iterator[Row]:
    yield Row(f"judge calls saved, {what}{candidate}", fmean(saved), "%", bar=of_mean(saved))
    name = f"decisions that are those of all {M} judgings, {short}{candidate}"
    yield Row(name, same, "%", bar=of_share(same, len(saved)))


def _candidate(offset: int, prompts: int) -> str:
    where = "on the line" if not offset else f"{abs(offset)} points {'over' if offset > 0 else 'under'} the line"
    return f"gate passes a candidate {where}, {prompts} prompts"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="A tenth of the trials.")
    run: Callable[[], Iterator[Row]] = (lambda: measure(200, 200)) if parser.parse_args().quick else measure
    print(table_line(*COLUMNS))
    for row in run():
        print(row, flush=True)


if __name__ == "__main__":
    main()
