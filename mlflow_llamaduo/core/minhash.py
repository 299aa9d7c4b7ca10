"""Which of many rows may be near copies: MinHash signatures in bands (LSH), for sets of words at a Jaccard of 0.9.

128 permutations in two halves. Seven bands of nine are made of all words of a row, and seven more of the words that
are its own: those that stand in at most 5 % of the rows. (What a fixed instruction and the language bring along would
make every row of a task alike; and what is left of a row may be too little to be found by alone.) Two rows that share
a band are compared by 64 marks, one byte of a permutation each, and are candidates from 0.8 on.

A pair of rows at a Jaccard of 0.95 shares one of the seven bands of all words with a probability of 0.999, at 0.9 of
0.97, at 0.8 of 0.63, at 0.5 of 0.01.
"""

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from mlflow_llamaduo.core.tokens import STEP, Hashes, Numbers, Tokens

PERMUTATIONS = 64
"""Of each half."""
HALF, ROWS = 7, 9
BANDS = 2 * HALF
WIDTH = BANDS + PERMUTATIONS // 8
"""Keys of a row: its bands, and its marks, eight in a key."""
ALIKE = 0.8
"""The least share of marks that candidates have in common."""
TEMPLATE_SHARE, TEMPLATE_ROWS = 0.05, 20
"""A word is not a row's own when it is in more than this share of rows, and in more than so many."""
FEWEST = 4
"""A prompt with fewer words of its own keeps all."""
_PAIRS = 100_000
WINDOW = 8
"""In a bucket of more than so many rows each is compared with the first and with so many before it."""
_CHUNK = 8192
_RESPONSE = np.uint64(0x5851F42D4C957F2D)


def template_words(tokens: Tokens) -> Hashes:
    """The hashes of the words that are a template's, or simply the language's, in ascending order."""
    order = np.lexsort((tokens.rows, tokens.hashes))
    hashes, rows = tokens.hashes[order], tokens.rows[order]
    first = np.ones(len(hashes), bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
    found, counts = np.unique(hashes[first], return_counts=True)
    return found[counts > max(TEMPLATE_ROWS, TEMPLATE_SHARE * len(tokens))]


def bands(prompts: Tokens, responses: Tokens, template: Hashes) -> Hashes:
    """The keys of n rows, n by `WIDTH`: bands of a row's own words, bands of all its words, and marks of all."""
    rest = responses.hashes ^ _RESPONSE  # a word of the response is another than one of the prompt
    own, everything = (_joined(text, rest, responses.rows) for text in (_without(prompts, template), prompts))
    keys = np.empty((len(prompts), WIDTH), np.uint64)
    for first in range(0, len(keys), _CHUNK):
        chunk = keys[first : first + _CHUNK]
        _banded(_signatures(*own, first, 42), chunk[:, :HALF])
        signatures = _signatures(*everything, first, 43)
        _banded(signatures, chunk[:, HALF:BANDS])
        chunk[:, BANDS:] = np.ascontiguousarray(signatures.astype(np.uint8)).view(np.uint64)
    return keys


def candidates(keys: Hashes, first_new: int, earlier_than: int | None = None) -> tuple[Numbers, Numbers]:
    """The pairs of rows (i, j), i < j, that share a band and most marks; sorted by j, then i.

    Args:
        keys: n by `WIDTH`; what is to win over a copy comes first.
        first_new: j is this or a later row.
        earlier_than: i is a row before this one.
    """
    total = np.uint64(len(keys))
    found = [_in_buckets(keys[:, band], first_new, earlier_than) for band in range(BANDS)]
    codes = np.unique(np.concatenate([later * total + earlier for earlier, later in found]))
    earlier, later = (codes % total).astype(np.int64), (codes // total).astype(np.int64)
    near = likeness(keys, earlier, later) >= ALIKE
    return earlier[near], later[near]


def likeness(keys: Hashes, one: Numbers, other: Numbers) -> NDArray[np.float64]:
    """The share of marks that pairs of rows have in common: about their Jaccard."""
    marks = np.ascontiguousarray(keys[:, BANDS:]).view(np.uint8)
    shares = [
        (marks[one[first : first + _PAIRS]] == marks[other[first : first + _PAIRS]]).mean(axis=1)
        for first in range(0, len(one), _PAIRS)
    ]
    return np.concatenate([np.empty(0), *shares])


def _without(words: Tokens, template: Hashes) -> Tokens:
    """The words of prompts that are no template's; a prompt of too few others keeps all."""
    own = ~np.isin(words.hashes, template)
    left = np.bincount(words.rows[own], minlength=len(words))
    keep = own | (left < FEWEST)[words.rows]
    return Tokens(words.hashes[keep], np.concatenate([[0], np.cumsum(keep)])[words.starts])


def _joined(prompts: Tokens, rest: Hashes, rest_rows: Numbers) -> tuple[Hashes, Numbers]:
    rows = np.concatenate([prompts.rows, rest_rows])
    order = np.argsort(rows, kind="stable")
    return np.concatenate([prompts.hashes, rest])[order], np.searchsorted(rows[order], np.arange(len(prompts) + 1))


def _signatures(hashes: Hashes, starts: Numbers, first: int, seed: int) -> Hashes:
    own = starts[first : first + _CHUNK + 1]
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        np.ascontiguousarray(hashes[own[0] : own[-1]]), (own - own[0]).astype(np.uint64), PERMUTATIONS, seed
    )
    return np.array(matrix.to_rows(), np.uint64).reshape(len(own) - 1, PERMUTATIONS)


def _banded(signatures: Hashes, keys: Hashes) -> None:
    for band in range(keys.shape[1]):
        key = np.full(len(signatures), band + 1, np.uint64)
        for column in range(band * ROWS, (band + 1) * ROWS):
            key = (key ^ signatures[:, column]) * STEP
            key ^= key >> np.uint64(31)
        keys[:, band] = key


def _in_buckets(keys: Hashes, first_new: int, earlier_than: int | None) -> tuple[Hashes, Hashes]:
    """Pairs (earlier, later) of one band."""
    order = np.argsort(keys, kind="stable").astype(np.uint64)
    ordered = keys[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])
    first = np.repeat(begins, np.diff(np.append(begins, len(ordered))))
    place = np.arange(len(ordered))
    pairs = []
    for back in range(1, WINDOW + 1):
        later = place[place - back >= first]
        if not len(later):
            break
        pairs.append((order[later - back], order[later]))
    later = place[place - first > WINDOW]
    pairs.append((order[first[later]], order[later]))
    earlier, new = (np.concatenate(side) for side in zip(*pairs, strict=True))
    wanted = new >= first_new if earlier_than is None else (new >= first_new) & (earlier < earlier_than)
    return earlier[wanted], new[wanted]
