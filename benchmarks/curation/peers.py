"""What people write instead: near copies by MinHash LSH over the words of prompt and response, from the same file.

128 permutations, a threshold of 0.9. Neither looks for leaks, and neither knows a question from a passage.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

PERMUTATIONS, THRESHOLD, BANDS = 128, 0.9, 8
Parted = tuple[list[str], dict[str, str]]
"""Names of the rows that are kept; those of the others, each with a reason."""


def rensa_one_shot(rows: Path) -> Parted:
    """Rensa's flags for all rows at once: whatever is flagged goes."""
    from rensa import RMinHash, RMinHashLSH

    names, words = zip(*_rows(rows), strict=True)
    matrix = RMinHash.digest_matrix_from_token_sets(words, PERMUTATIONS, 42)
    flags = RMinHashLSH(THRESHOLD, PERMUTATIONS, BANDS).query_duplicate_flags_matrix_one_shot(matrix)
    gone = {name: "copy" for name, flag in zip(names, flags, strict=True) if flag}
    return [name for name in names if name not in gone], gone


def datasketch_lsh(rows: Path) -> Parted:
    """The index of datasketch, asked for each row before the row is put in: the first of its copies stays."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    kept, gone = [], {}
    for name, words in _rows(rows):
        row = MinHash(num_perm=PERMUTATIONS)
        row.update_batch([word.encode() for word in words])
        if index.query(row):
            gone[name] = "copy"
        else:
            index.insert(name, row)
            kept.append(name)
    return kept, gone


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    with path.open() as lines:
        for row in map(json.loads, lines):
            text = " ".join(turn["content"] for turn in row["messages"])
            yield row["id"], sorted(set(re.findall(r"\w+", text.lower())))
