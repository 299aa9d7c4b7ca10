"""Which of many rows may be near copies: MinHash signatures in bands (LSH), for word sets at a Jaccard of 0.9.

128 permutations, of which 14 bands of 9 are made. Two rows share a band, and so are compared, with a probability of
1.000 at a Jaccard of 0.95, 0.999 at 0.9, 0.87 at 0.8 and 0.03 at 0.5.

Sentences that very many rows share ("Answer from the passage below.") say nothing about any one of them: they are
left out of the sets. Otherwise every row of a task with a long fixed instruction would be compared with every other.
"""

import numpy as np
from rensa import RMinHash

from mlflow_llamaduo.core.tokens import END, Hashes, Numbers, Tokens

PERMUTATIONS = 128
BANDS, ROWS = 14, 9
TEMPLATE_SHARE, TEMPLATE_ROWS = 0.01, 20
"""A sentence is a template's when it is in more than this share of rows, and in more than so many."""
WINDOW = 8
"""In a bucket of more than so many rows each is compared with the first and with so many before it."""
_CHUNK = 8192
_RESPONSE = np.uint64(0x5851F42D4C957F2D)
_STEP = np.uint64(0x9E3779B97F4A7C15)


def template_sentences(tokens: Tokens) -> Hashes:
    """The hashes of the sentences and lines that are a template's, in ascending order."""
    hashes, firsts, sizes = tokens.sentences()
    rows = tokens.rows[firsts][sizes > 0]
    pairs = np.unique(np.stack([hashes[sizes > 0], rows.astype(np.uint64)]), axis=1)
    found, counts = np.unique(pairs[0], return_counts=True)
    return found[counts > max(TEMPLATE_ROWS, TEMPLATE_SHARE * len(tokens))]


def bands(prompts: Tokens, responses: Tokens, template: Hashes) -> Hashes:
    """The band keys of n rows, an array of n by `BANDS`; a word of the response is another than one of the prompt."""
    own = _without(prompts, template)
    mask = responses.hashes != END
    hashes = np.concatenate([own.hashes, responses.hashes[mask] ^ _RESPONSE])
    rows = np.concatenate([own.rows, responses.rows[mask]])
    order = np.argsort(rows, kind="stable")
    starts = np.searchsorted(rows[order], np.arange(len(prompts) + 1))
    return _keys(hashes[order], starts)


def candidates(keys: Hashes, first_new: int) -> tuple[Numbers, Numbers]:
    """The pairs of rows (i, j), i < j, that share a band, where j is a new row; sorted by j, then i.

    Args:
        keys: band keys, n by `BANDS`; what is to win over a copy comes first.
        first_new: the number of the first new row.
    """
    total = np.uint64(len(keys))
    found = [_in_buckets(keys[:, band], first_new) for band in range(keys.shape[1])]
    codes = np.unique(np.concatenate([later * total + earlier for earlier, later in found]))
    return (codes % total).astype(np.int64), (codes // total).astype(np.int64)


def _without(prompts: Tokens, template: Hashes) -> Tokens:
    """The words of prompts that stand in no template sentence; a prompt of nothing else keeps them all."""
    keep = prompts.hashes != END
    if len(template):
        hashes, firsts, _ = prompts.sentences()
        lengths = np.diff(np.append(firsts, len(prompts.hashes)))
        own = keep & np.repeat(~np.isin(hashes, template), lengths)
        left = np.bincount(prompts.rows[own], minlength=len(prompts))
        keep &= own | (left == 0)[prompts.rows]
    starts = np.concatenate([[0], np.cumsum(keep)])[prompts.starts]
    return Tokens(prompts.hashes[keep], starts)


def _keys(hashes: Hashes, starts: Numbers) -> Hashes:
    keys = np.empty((len(starts) - 1, BANDS), np.uint64)
    for first in range(0, len(keys), _CHUNK):
        own = starts[first : first + _CHUNK + 1]
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            np.ascontiguousarray(hashes[own[0] : own[-1]]), (own - own[0]).astype(np.uint64), PERMUTATIONS, 42
        )
        signatures = np.array(matrix.to_rows(), np.uint64).reshape(len(own) - 1, PERMUTATIONS)
        for band in range(BANDS):
            key = np.full(len(signatures), band + 1, np.uint64)
            for column in range(band * ROWS, (band + 1) * ROWS):
                key = (key ^ signatures[:, column]) * _STEP
                key ^= key >> np.uint64(31)
            keys[first : first + len(signatures), band] = key
    return keys


def _in_buckets(keys: Hashes, first_new: int) -> tuple[Hashes, Hashes]:
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
    wanted = new >= first_new
    return earlier[wanted], new[wanted]
