"""How near code is to the reference code: what `offline/judge` scores coding by. Code is read, never executed.

similarity  edit similarity of the tokens (insertions and deletions, 1 when there are none), after comments, blank
            lines, fences and indentation are set aside. Quotes of either kind are one.
precision   where the reference is Python: the mean of that and of the same measure on the two syntax trees, in which
            a node counts by its kind and its parent's. A renamed variable changes tokens and no node; another
            algorithm changes both. A response that is no Python gets `BROKEN` of its edit similarity, and nothing for
            a tree. Where the reference is no Python (SQL, say): the edit similarity.

Both lose when there is prose around a fenced block (`WRAPPED` is left); the prose itself is cut off.

The order this gives: the reference itself 1, other names, another way to the same result, other code, prose. It knows
nothing of what code does: `<` for `<=` costs one token and one node.

A response is hostile text. `ast.parse` makes a tree and runs nothing, and it gets no more than `READ` characters: so
few neither take it long nor exhaust its stack, whatever they are.
"""

import ast
import re
import threading
import warnings
from collections.abc import Iterator
from textwrap import dedent

from rapidfuzz.distance import Indel

from mlflow_llamaduo.service_llm.offline.metrics import Given

READ = 8_000
"""Characters of a text that are read. Longer code counts as no Python, as its end is missing."""

BROKEN = 0.4
"""What is left of the precision of a response that does not parse where the reference does."""

WRAPPED = 0.85
"""What is left of a score when there is prose around a fenced block."""

_FENCE = "```"
_STRING_OR_COMMENT = (
    re.compile(  # a string that is not closed ends with its line, or the text: no start is tried twice
        r"""((?s:'''.*?(?:'''|\Z)|\"\"\".*?(?:\"\"\"|\Z))|'(?:[^'\\\n]|\\.)*'?|"(?:[^"\\\n]|\\.)*"?)|[#][^\n]*"""
    )
)
_TOKEN = re.compile(r"\w+|[^\w\s]|\n")
_warnings_are_global = threading.Lock()


def by_code(reference: str, response: str, _instruction: str = "") -> tuple[Given, Given]:
    """Similarity and precision of code, 0 to 1 each; any text can be scored, in time linear in its length."""
    (wanted, _), (given, prose) = _code(reference), _code(response)
    edit = _alike(_tokens(wanted), _tokens(given))
    kept = WRAPPED if prose else 1.0
    around = ", prose around it" if prose else ""
    similarity = Given(edit * kept, f"edit similarity {edit:.2f}{around}")
    tree = _tree(wanted)
    if tree is None:
        return similarity, Given(edit * kept, f"edit similarity {edit:.2f}, reference is no Python{around}")
    found = _tree(given)
    if found is None:
        return similarity, Given(BROKEN * edit * kept, f"edit similarity {edit:.2f}, does not parse{around}")
    shape = _alike(tree, found)
    return similarity, Given(
        (edit + shape) / 2 * kept, f"edit similarity {edit:.2f}, syntax tree {shape:.2f}{around}"
    )


def _code(text: str) -> tuple[str, bool]:
    """The first fenced block, or the whole text where there is none; and whether other text stands around it."""
    text = text[: READ + 1].replace("\r\n", "\n")
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if line.strip().startswith(_FENCE)]
    if not fences:
        return text, False
    first, last = fences[0], fences[1] if len(fences) > 1 else len(lines)
    around = lines[:first] + lines[last + 1 :]
    return "\n".join(lines[first + 1 : last]), any(line.strip() for line in around)


def _tokens(code: str) -> list[str]:
    bare = _STRING_OR_COMMENT.sub(lambda found: found[1] or "", code).replace("'", '"')
    lines = (line.strip() for line in bare.split("\n"))
    return _TOKEN.findall("\n".join(line for line in lines if line))


def _tree(code: str) -> list[str] | None:
    """The syntax tree from the top and from the left, each node by its kind and its parent's; None for no Python."""
    if len(code) > READ or not code.strip():
        return None
    try:
        with _warnings_are_global, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a response is not ours to be warned of
            tree = ast.parse(dedent(code).strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # NUL bytes, half a surrogate, deep nesting
        return None
    return list(_steps(tree))


def _steps(tree: ast.AST) -> Iterator[str]:
    """Not recursive: a tree may be deeper than the stack."""
    waiting = [("", tree)]
    while waiting:
        above, node = waiting.pop()
        kind = type(node).__name__
        yield f"{above} {kind}"
        below = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr_context)]
        waiting.extend((kind, child) for child in reversed(below))


def _alike(one: list[str], other: list[str]) -> float:
    return float(Indel.normalized_similarity(one, other))
