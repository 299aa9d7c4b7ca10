"""What curation keeps of a row instead of its text: arrays of n rows, about 200 bytes each.

A row's texts are read once, for its sketch, and again only where a candidate for a copy has to be looked at. Sketches
of parts are joined, so that the parts may be made in several processes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from mlflow_llamaduo.core.leaks import Hits, LeakIndex
from mlflow_llamaduo.core.minhash import WIDTH, bands, template_words
from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.core.tokens import Hashes, Numbers, tokenize

SAMPLE = 10_000
"""Rows from which the template's words are found out."""
_CHUNK = 16_384


@dataclass(frozen=True)
class Sketch:
    """n rows: hashes of the exact texts, keys (n by `WIDTH`, see `core.minhash`), the held-out prompt of the same
    words or -1, and the runs of words shared with held-out prompts.
    """

    exact: Hashes
    bands: Hashes
    same: Numbers
    hits: Hits

    def __len__(self) -> int:
        return len(self.exact)


def template(sample: Sequence[Pair]) -> Hashes:
    """The words that a task's prompts have in common, from a sample of its rows; see `core.minhash`."""
    return template_words(tokenize(pair.instruction for pair in sample[:: max(1, -(-len(sample) // SAMPLE))]))


def sketch(pairs: Iterable[Pair], *, without: Hashes, leaks: LeakIndex) -> Sketch:
    """The sketch of some rows.

    Args:
        pairs: the rows; they are not kept.
        without: the template's words.
        leaks: the held-out prompts.
    """
    parts, texts, responses = [_empty()], [], []
    for pair in pairs:
        texts.append(pair.instruction)
        responses.append(pair.response)
        if len(texts) == _CHUNK:
            parts.append(_sketch(texts, responses, without, leaks))
            texts, responses = [], []
    return join([*parts, _sketch(texts, responses, without, leaks)])


def join(parts: Sequence[Sketch]) -> Sketch:
    """One sketch of all rows, in the order of the parts."""
    begins = np.cumsum([0, *(len(part) for part in parts)])
    return Sketch(
        np.concatenate([part.exact for part in parts]),
        np.concatenate([part.bands for part in parts]),
        np.concatenate([part.same for part in parts]),
        Hits(
            np.concatenate([part.hits.rows + begin for part, begin in zip(parts, begins, strict=False)]),
            *(np.concatenate([getattr(part.hits, name) for part in parts]) for name in ("places", "runs", "sizes")),
        ),
    )


def _sketch(texts: list[str], responses: list[str], without: Hashes, leaks: LeakIndex) -> Sketch:
    prompts = tokenize(texts)
    return Sketch(
        np.array([_exact(*row) for row in zip(texts, responses, strict=True)], np.uint64),
        bands(prompts, tokenize(responses), without),
        leaks.same(prompts),
        leaks.hits(prompts),
    )


def _exact(prompt: str, response: str) -> int:
    text = f"{len(prompt)} {prompt}{response}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def _empty() -> Sketch:
    none = np.empty(0, np.int64)
    return Sketch(np.empty(0, np.uint64), np.empty((0, WIDTH), np.uint64), none, Hits(none, none, none, none))
