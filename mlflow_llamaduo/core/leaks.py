"""Which rows give a held-out prompt away.

A row leaks a prompt when the two are the same words, or when at least 0.27 of the prompt's words stand in the row in
runs of six or more (in a prompt of 4 or 5 words: all of them). That holds whenever 0.3 of the prompt's 8-grams are in
the row, the usual rule, which misses a quoted third of a prompt of 60 words. A row also leaks when half of its own
words, twelve at least, are such runs.

Runs that many rows share are the template of the task ("Answer from the passage below."), not a leak: what stands in
more than 0.05 % of the rows (in more than 8 at least, and 100 at most) counts neither as shared nor as the prompt's
own. Of a prompt that has no words of its own, then, 0.8 of its runs must be there.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mlflow_llamaduo.core.tokens import Hashes, Numbers, Tokens, tokenize

GRAM, SHORTEST = 6, 4
SHARE = 0.27
OWN_SHARE, OWN_WORDS = 0.5, 12
COMMON_SHARE, COMMON_ROWS, COMMON_MOST = 0.0005, 8, 100
NEARLY_ALL = 0.8
"""Of a prompt that is nothing but runs that many rows share (many rows quote it, or it is all template) this much."""


@dataclass(frozen=True)
class Hits:
    """Runs of words that rows share with held-out prompts: row, place of its first word there, number of the run."""

    rows: Numbers
    places: Numbers
    runs: Numbers
    sizes: Numbers
    """Words of each row, found or not."""


Flags = NDArray[np.bool_]


class LeakIndex:
    """The runs of some prompts, to be looked for in rows."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self.tokens = tokenize(prompts)
        self._lengths = np.diff(self.tokens.starts)
        self._whole = _whole(self.tokens)
        tables = [self._table(size) for size in range(SHORTEST, GRAM + 1)]
        self._sizes = [
            size for size, (hashes, _) in zip(range(SHORTEST, GRAM + 1), tables, strict=True) if len(hashes)
        ]
        hashes = np.concatenate([hashes for hashes, _ in tables])
        places = np.concatenate([places for _, places in tables])
        order = np.argsort(hashes, kind="stable")
        self.runs, begins = np.unique(hashes[order], return_index=True)
        self._begins = np.append(begins, len(hashes))
        self._places = places[order]

    def _table(self, size: int) -> tuple[Hashes, Numbers]:
        """The runs of `size` words that count: all of six, and those that are a whole shorter prompt."""
        hashes, places = self.tokens.windows(size)
        wanted = self._lengths[self.tokens.rows[places]] == size if size < GRAM else np.ones(len(places), bool)
        return _tagged(hashes[wanted], size), places[wanted]

    def hits(self, rows: Tokens) -> Hits:
        """What the prompts share with rows."""
        found = [np.empty((3, 0), np.int64)]
        for size in self._sizes:
            hashes, places = rows.windows(size)
            hashes = _tagged(hashes, size)
            number = np.searchsorted(self.runs, hashes).clip(max=len(self.runs) - 1)
            same = self.runs[number] == hashes
            row = rows.rows[places[same]]
            found.append(np.stack([row, places[same] - rows.starts[row], number[same]]))
        row, place, run = np.concatenate(found, axis=1)
        return Hits(row, place, run, np.diff(rows.starts))

    def same(self, rows: Tokens) -> Numbers:
        """For each row the number of a prompt of the same words, or -1."""
        if not len(self._whole):
            return np.full(len(rows), -1)
        order = np.argsort(self._whole, kind="stable")
        wanted = _whole(rows)
        prompts = order[np.searchsorted(self._whole[order], wanted).clip(max=len(order) - 1)]
        return np.where((self._whole[prompts] == wanted) & (np.diff(rows.starts) > 0), prompts, -1)

    def counts(self, hits: Hits) -> Numbers:
        """In how many rows each run is."""
        pairs = np.unique(hits.runs * max(1, len(hits.sizes)) + hits.rows)
        return np.bincount(pairs // max(1, len(hits.sizes)), minlength=len(self.runs))

    def links(self, hits: Hits, common: Flags) -> Iterator[tuple[int, int, float]]:
        """Every row with every prompt that it leaks, and the share of the prompt's own words that it gives away.

        Args:
            hits: what `hits` found.
            common: for each run whether it is a template's; see `template_runs`.
        """
        template = self._covered(np.flatnonzero(common))
        own = np.bincount(self.tokens.rows[~template], minlength=len(self.tokens))
        rows, prompts, theirs, ours = self._shared(hits, ~common[hits.runs])
        edges = np.flatnonzero((np.diff(rows) != 0) | (np.diff(prompts) != 0)) + 1
        for first, last in pairwise([0, *edges.tolist(), len(rows)]) if len(rows) else ():
            row, prompt = int(rows[first]), int(prompts[first])
            size = min(GRAM, int(self._lengths[prompt]))
            share = int((~template[_span(theirs[first:last], size)]).sum()) / max(1, own[prompt])
            mine = len(_span(ours[first:last], size))
            if share >= SHARE or mine >= max(OWN_WORDS, OWN_SHARE * hits.sizes[row]):
                yield row, prompt, min(1.0, share)
        yield from self._repeated(hits, np.flatnonzero((own == 0) & (self._lengths >= OWN_WORDS)))

    def _repeated(self, hits: Hits, prompts: Numbers) -> Iterator[tuple[int, int, float]]:
        """Rows that hold nearly all of prompts whose every word stands in many rows."""
        order = np.argsort(hits.runs, kind="stable")
        rows, runs = hits.rows[order], hits.runs[order]
        run_of = np.repeat(np.arange(len(self.runs)), np.diff(self._begins))
        for prompt in prompts.tolist():
            wanted = np.unique(run_of[self.tokens.rows[self._places] == prompt])
            first, last = np.searchsorted(runs, wanted), np.searchsorted(runs, wanted, side="right")
            found = [np.unique(rows[one:end]) for one, end in zip(first, last, strict=True)]
            row, count = np.unique(np.concatenate(found), return_counts=True)
            for number in np.flatnonzero(count >= NEARLY_ALL * len(wanted)):
                yield int(row[number]), prompt, count[number] / len(wanted)

    def _shared(self, hits: Hits, which: Flags) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Row, prompt, place in the prompt's words, place in the row, of every shared run; by row and prompt."""
        rows, places, runs = hits.rows[which], hits.places[which], hits.runs[which]
        counts = self._begins[runs + 1] - self._begins[runs]
        hit = np.repeat(np.arange(len(runs)), counts)
        theirs = self._places[
            np.repeat(self._begins[runs] - np.cumsum(counts) + counts, counts) + np.arange(len(hit))
        ]
        prompts = self.tokens.rows[theirs]
        order = np.lexsort((prompts, rows[hit]))
        return rows[hit][order], prompts[order], theirs[order], places[hit][order]

    def _covered(self, runs: Numbers) -> Flags:
        """For each word of the prompts whether it stands in one of these runs."""
        covered = np.zeros(len(self.tokens.hashes), bool)
        for run in runs:
            for place in self._places[self._begins[run] : self._begins[run + 1]]:
                covered[place : place + min(GRAM, self._lengths[self.tokens.rows[place]])] = True
        return covered


def leaked(rows: Sequence[str], prompts: Sequence[str]) -> dict[int, tuple[int, float]]:
    """The rows that leak a prompt: number of the row to number of the prompt and the share that is given away."""
    index = LeakIndex(prompts)
    words = tokenize(rows)
    hits = index.hits(words)
    return worst(index.links(hits, template_runs(index.counts(hits), len(rows))), index.same(words))


def worst(links: Iterable[tuple[int, int, float]], same: Numbers) -> dict[int, tuple[int, float]]:
    """Of each row the prompt that it gives away most of; one of the same words before all."""
    found: dict[int, tuple[int, float]] = {}
    for row, prompt, share in links:
        if row not in found or share > found[row][1]:
            found[row] = prompt, share
    return found | {int(row): (int(same[row]), 1.0) for row in np.flatnonzero(same >= 0)}


def template_runs(counts: Numbers, rows: int) -> Flags:
    """Which runs are in so many of `rows` rows that they are a template's."""
    return counts > max(COMMON_ROWS, min(COMMON_MOST, COMMON_SHARE * rows))


def _span(places: Numbers, size: int) -> Numbers:
    """The words that runs of `size` words cover."""
    return np.unique(places[:, None] + np.arange(size))


def _tagged(hashes: Hashes, size: int) -> Hashes:
    return hashes ^ np.uint64(size)


def _whole(tokens: Tokens) -> Hashes:
    """One hash for the words of each text."""
    weights = np.arange(len(tokens.hashes)) - tokens.starts[tokens.rows]
    mixed = (tokens.hashes ^ (tokens.hashes >> np.uint64(29))) * (
        weights.astype(np.uint64) * np.uint64(2) + np.uint64(1)
    )
    totals = np.zeros(len(mixed) + 1, np.uint64)
    np.cumsum(mixed, out=totals[1:])
    ends: Hashes = totals[tokens.starts[1:]] - totals[tokens.starts[:-1]]
    return ends
