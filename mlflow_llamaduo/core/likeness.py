"""When two pairs say the same: what decides about the candidates that MinHash finds.

ROUGE-L F1 above 0.7, on the response and on the prompt, and nearly all words. What the two prompts have sentence for
sentence in common is then set aside: of the rest, every question, and what stands first or last, must be found again
in what the other prompt has besides. A long passage that two prompts share so does not make their different questions
one, and equal short answers ("Education") to different prompts do not make those one either.
"""

from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import Indel, LCSseq

from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.core.text import Sentence, sentences, words

NEAR = 0.7
SHORT = 8
"""A response of fewer words says little about whether two questions are the same."""
SHARED, LABELLED, LABEL = 0.85, 0.9, 4
"""The least Jaccard of prompt and response, and that where both have one response of fewer than so many words."""
HALF = 0.5
"""The least ROUGE-L F1 of what the prompts do not have sentence for sentence in common."""
LONG, REPLACED = 16, 0.1
"""In a question of so many words (a list of labels, say) this share of them may be replaced."""


def rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    """ROUGE-L F1 of two lists of words, 0 to 1: twice their longest common subsequence over the sum of lengths."""
    return float(Indel.normalized_similarity(one, other))


def near_pairs(one: Pair, other: Pair) -> bool:
    """True when prompt *and* response say the same in nearly the same words."""
    left, right = words(one.response), words(other.response)
    if left != right and rouge_l(left, right) <= NEAR:
        return False
    asked, also = words(one.instruction), words(other.instruction)
    least = LABELLED if left == right and len(left) < LABEL else SHARED
    if _jaccard([*asked, *left], [*also, *right]) < least or rouge_l(asked, also) <= NEAR:
        return False
    return _same_sentences(one.instruction, other.instruction, strict=max(len(left), len(right)) < SHORT)


def _jaccard(one: Sequence[str], other: Sequence[str]) -> float:
    left, right = frozenset(one), frozenset(other)
    return len(left & right) / len(left | right) if left or right else 1.0


def _same_sentences(one: str, other: str, *, strict: bool) -> bool:
    all_left, all_right = sentences(one), sentences(other)
    left, right = Counter(all_left), Counter(all_right)
    only_left, only_right = [*(left - right).elements()], [*(right - left).elements()]
    words_left, words_right = _joined(only_left), _joined(only_right)
    if words_left == words_right:  # the punctuation differs
        return True
    alone = left != Counter(only_left) and all(sentence.question for sentence in (*only_left, *only_right))
    if strict and alone:  # one passage, two questions, and the answer Yes to both
        return _same_question(words_left, words_right)
    if words_left and words_right and rouge_l(words_left, words_right) <= HALF:  # a list of labels, two texts
        return False
    return _held(_asking(only_left, all_left), words_right) and _held(_asking(only_right, all_right), words_left)


def _asking(wanted: list[Sentence], everything: list[Sentence]) -> list[Sentence]:
    """Questions, and what stands first or last: the rest of a prompt is the text that it is about."""
    return [each for each in wanted if each.question or each in (everything[0], everything[-1])]


def _same_question(one: list[str], other: list[str]) -> bool:
    """Whether words were only put in; in a long question some may be replaced as well."""
    shared = int(LCSseq.similarity(one, other))
    less, more = sorted((len(one) - shared, len(other) - shared))
    if not less:
        return more <= (1 - NEAR) * shared
    return shared + less >= LONG and more <= REPLACED * (shared + less)


def _held(wanted: list[Sentence], words_there: list[str]) -> bool:
    """Whether every sentence is there, but for one word or for three in ten."""
    return all(_missing(sentence, words_there) <= max(1, (1 - NEAR) * len(sentence.words)) for sentence in wanted)


def _missing(sentence: Sentence, words_there: list[str]) -> int:
    return len(sentence.words) - int(LCSseq.similarity(sentence.words, words_there))


def _joined(parts: list[Sentence]) -> list[str]:
    return [word for sentence in parts for word in sentence.words]
