"""How far a response overlaps with a reference, in words, labels or characters: 0 to 1 each, 1 for the same text.

Pure functions of (reference, response), shared by the offline judge and by the reference metrics beside every judge.
They read words, not meaning: a good answer in other words scores low, and a wrong one that is worded like the
reference scores high. Any text can be scored. `rouge_l` and `edit_similarity` cost the product of both lengths.

`label_match` has no list of labels to go by, only two texts. It takes off what people and models write around a label
("Label: ...", "The category is ...", an explanation after it) and then compares sets, all or nothing. Whoever names
another label beside the right one has not decided; a label that is denied is not named. Where the list in the
instruction can be read, `service_llm/offline/classification_judge` tells more.
"""

import re
from collections import Counter
from collections.abc import Iterator

from rapidfuzz.distance import Levenshtein

from mlflow_llamaduo.core.likeness import rouge_l as rouge_l_of_words
from mlflow_llamaduo.core.text import words as all_words

ARTICLES = frozenset({"a", "an", "the"})

LABEL_WORDS = 6
"""What is longer is a sentence, not a label; so many words may lead up to one."""

LABEL_CHARACTERS = 20_000
"""What is read of a text for its labels."""

Label = tuple[str, ...]

_PART = re.compile(r"[.!?](?=\s|$)|\n")
_BULLET = re.compile(r"(?:^|\n)[ \t]*(?:[-*\u2022]|\d{1,3}[.)])[ \t]")
_LINE_AFTER = re.compile(r":[*\s]*\n\s*")
_IT_IS = re.compile(r"\b(it|this|that)['\u2019]s\b")
# C is not C++, A- is not A, -1 is not 1; 12:30 and 1,000 are one label each.
_TOKEN = re.compile(r"(?:(?<!\w)-(?=\d))?[^\W_]+(?:[-+#]+(?!\w))?|[;|/&=]|[,:](?!\d)")
_COLONS = frozenset(":=")
_BETWEEN = frozenset({*",;|/&", "and"})
_CALLED = frozenset({"label", "labels", "category", "categories", "class", "classes", "classification", "answer"})
_VERBS = frozenset({"is", "are", "was", "were", "belongs", "belong", "goes", "falls", "fits", "comes"})
_JOINTS = frozenset({"as", "about", "from", "in", "into", "on", "to", "under", "classified", "labeled", "labelled"})
_DENIALS = frozenset({"not", "no", "none", "never", "neither", "nor", "t"})  # "isn't" is two words here


def words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles, as SQuAD's evaluation has them.

    Punctuation parts words here and vanishes there: 3.5 is not 35, and 1,000 is not 1000.
    """
    return [w for w in re.findall(r"\w+", text.lower()) if w not in ARTICLES]


def exact_match(reference: str, response: str) -> float:
    """1 if the words are the same. Of a text without any, its articles or its signs: "A" is no empty answer."""
    return float(_words_or_signs(reference) == _words_or_signs(response))


def _words_or_signs(text: str) -> list[str]:
    return words(text) or all_words(text) or text.split()


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
    return rouge_l_of_words(all_words(reference), all_words(response))


def edit_similarity(reference: str, response: str) -> float:
    """1 less the Levenshtein distance of the characters as a share of the longer text, white space around set aside.

    Levenshtein, not Indel: two unrelated functions of the coding project share 38 % by Indel, which pairs off letters
    wherever they stand, and 25 % by this; the first half of a reference scores 66 and 50.
    """
    return float(Levenshtein.normalized_similarity(reference.strip(), response.strip()))


def label_match(reference: str, response: str) -> float:
    """1 if the response names the reference's label, or all of its labels in any order, and no other."""
    wanted, given = labels(reference), labels(response)
    if not wanted or not given:  # labels may be "+" and "-"
        return float(reference.strip() == response.strip())
    return float(wanted == given)


def labels(text: str) -> frozenset[Label]:
    """The labels that a text gives, each as its words in lower case; empty where it has no words."""
    plain = _LINE_AFTER.sub(": ", _BULLET.sub(" , ", _IT_IS.sub(r"\1 is", text[:LABEL_CHARACTERS].casefold())))
    parts = [tokens for part in _PART.split(plain) if _size(tokens := _TOKEN.findall(part))]
    if called := [tail for part in parts if (tail := _after_call(part))]:
        parts = called
    elif any(_size(part) > LABEL_WORDS for part in parts[1:]):
        parts = parts[:1]  # the label, and why
    return frozenset(label for part in parts for label in _split(_bare(part)))


def _after_call(tokens: list[str]) -> list[str]:
    """What follows "Label:"; empty where nothing is called a label."""
    for at, token in enumerate(tokens[1:], 1):
        if token in _COLONS and tokens[at - 1] in _CALLED:
            return tokens[at + 1 :]
    return []


def _bare(tokens: list[str]) -> list[str]:
    """The part without what leads up to its labels."""
    colon = next((at for at, token in enumerate(tokens) if token in _COLONS), None)
    if colon is not None:
        head, tail = tokens[:colon], tokens[colon + 1 :]
        explained = _size(tail) > LABEL_WORDS  # "Billing: the customer was charged twice this month"
        tokens = head if not _size(tail) or (explained and _size(head)) else tail
    verb = next((at for at, token in enumerate(tokens[: LABEL_WORDS + 1]) if token in _VERBS), None)
    if verb is None or not _DENIALS.isdisjoint(tokens[:verb]):  # "None of them is spam" does not say spam
        return tokens
    tail = tokens[verb + 1 :]
    while len(tail) > 1 and tail[0] in _JOINTS:
        tail = tail[1:]
    return tail if _size(tail) else tokens


def _split(tokens: list[str]) -> Iterator[Label]:
    """The labels of a list; articles are no part of them, unless there is nothing else."""
    label: list[str] = []
    for token in (*tokens, ","):
        if token not in _BETWEEN:
            label.append(token)
        elif named := [word for word in label if _is_word(word)]:
            yield tuple([word for word in named if word not in ARTICLES] or named)
            label = []


def _size(tokens: list[str]) -> int:
    return sum(map(_is_word, tokens))


def _is_word(token: str) -> bool:
    return token[-1].isalnum() or len(token) > 1
