"""How near a response is to a reference, each from 0 to 1; what `offline/judge` scores by."""

import re
from collections import Counter
from dataclasses import dataclass

from mlflow_llamaduo.core.likeness import rouge_l as of_words
from mlflow_llamaduo.core.text import words as text_words

ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True, slots=True)
class Given:
    """A score as a share, 0 to 1, and what it was reckoned from."""

    share: float
    why: str


def words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles, as SQuAD's evaluation has them."""
    return [w for w in re.findall(r"\w+", text.lower()) if w not in ARTICLES]


def token_f1(reference: str, response: str) -> float:
    """Harmonic mean of the words' precision and recall; two texts without words are alike."""
    wanted, given = words(reference), words(response)
    if not wanted or not given:
        return float(wanted == given)
    shared = (Counter(wanted) & Counter(given)).total()
    return 2 * shared / (len(wanted) + len(given))


def containment(reference: str, response: str) -> float:
    """1 if the reference's words stand together in the response, else the share of them found there."""
    wanted, given = words(reference), words(response)
    if not wanted:
        return float(not given)
    if f" {' '.join(wanted)} " in f" {' '.join(given)} ":
        return 1.0
    return (Counter(wanted) & Counter(given)).total() / len(wanted)


def rouge_l(reference: str, response: str) -> float:
    """ROUGE-L F1 (longest common subsequence of words), articles included."""
    return of_words(text_words(reference), text_words(response))
