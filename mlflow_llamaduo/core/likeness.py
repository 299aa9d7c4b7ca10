"""When two pairs say the same: what decides about the candidates that MinHash finds.

ROUGE-L F1 above 0.7, on the response and on the prompt, and nearly all words of the prompt. What the two prompts have
sentence for sentence in common is then set aside, and every other sentence must be found again in what the other
prompt has besides: a long passage that two prompts share so does not make their different questions one. Equal short
answers ("Education") to different prompts do not make those one either.
"""

from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import Indel, LCSseq

from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.core.text import Sentence, sentences, words

NEAR = 0.7
SHORT = 4
"""A response of fewer words says little about whether two prompts ask for the same."""
SHARED, LABELLED = 0.85, 0.9
"""The least Jaccard of the prompts' words, and that where both have the same short response."""


def rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    """ROUGE-L F1 of two lists of words, 0 to 1: twice their longest common subsequence over the sum of lengths."""
    return float(Indel.normalized_similarity(one, other))


def near_pairs(one: Pair, other: Pair) -> bool:
    """True when prompt *and* response say the same in nearly the same words."""
    left, right = words(one.response), words(other.response)
    if left != right and rouge_l(left, right) <= NEAR:
        return False
    strict = left == right and len(left) < SHORT
    left, right = words(one.instruction), words(other.instruction)
    if _jaccard(left, right) < (LABELLED if strict else SHARED) or rouge_l(left, right) <= NEAR:
        return False
    return _same_sentences(one.instruction, other.instruction, strict=strict)


def _jaccard(one: Sequence[str], other: Sequence[str]) -> float:
    left, right = frozenset(one), frozenset(other)
    return len(left & right) / len(left | right) if left or right else 1.0


def _same_sentences(one: str, other: str, *, strict: bool) -> bool:
    left, right = Counter(sentences(one)), Counter(sentences(other))
    only_left, only_right = [*(left - right).elements()], [*(right - left).elements()]
    words_left, words_right = _joined(only_left), _joined(only_right)
    if words_left == words_right:  # the punctuation differs
        return True
    alone = left != Counter(only_left) and all(sentence.question for sentence in (*only_left, *only_right))
    if strict and alone:  # one passage, two questions, and the answer Yes to both
        return False
    return _held(only_left, words_right) and _held(only_right, words_left)


def _held(wanted: list[Sentence], words_there: list[str]) -> bool:
    """Whether every sentence is there, but for one word or for three in ten."""
    return all(_missing(sentence, words_there) <= max(1, (1 - NEAR) * len(sentence.words)) for sentence in wanted)


def _missing(sentence: Sentence, words_there: list[str]) -> int:
    return len(sentence.words) - int(LCSseq.similarity(sentence.words, words_there))


def _joined(parts: list[Sentence]) -> list[str]:
    return [word for sentence in parts for word in sentence.words]
