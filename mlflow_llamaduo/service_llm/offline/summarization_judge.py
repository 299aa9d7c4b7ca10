"""How near a summary is to the reference summary: what `offline/judge` scores summarization by.

Two good summaries of one passage share their names, numbers and main verbs, but rarely their grammar. So only words
that carry facts are compared (no "the", "of", "was"), without their endings: "closes" and "closing" are one word.

similarity  the mean of ROUGE-L (the same facts in the same order) and ROUGE-1 (the same facts), each as a share of
            the longer text: the lower of precision and recall. F1 forgives too much: the first half of the reference,
            and nothing else, would get 0.67, more than most paraphrases. ROUGE-2 finds next to nothing in those.
precision   the share of the reference's words that the response holds, times a length term. The length term is what
            keeps a copied passage, which holds every word, from the top: a response may be a quarter longer than the
            reference, and beyond that loses in proportion. A short one loses by what it leaves out.

The order this gives: the reference itself 1, a close paraphrase, half of the facts, a sentence of the passage that
happens to share a name with the reference, off topic 0. It reads words, not meaning: "will not close" scores like
"will close", and synonyms count for nothing.
"""

import re
from collections import Counter

from rapidfuzz.distance import LCSseq

from mlflow_llamaduo.service_llm.offline.metrics import Given

COMPARED = 2000
"""Words of a text that are read. The subsequence costs the product of both lengths, and no summary is longer."""

ALLOWANCE = 1.25
"""How much longer than the reference a response may be for nothing."""

EMPTY = frozenset(
    re.findall(
        r"\w+",
        """a about after all also an and any are as at be because been before being both but by can could did do does
        during each for from had has have he her here him his how i if in into is it its me more most my now of on or
        other our out over she should since so some such than that the their them then there these they this those
        through to too under until up us was we were what when where which while who whose why will with would you
        your""",
    )
)
"""Words that carry no fact of their own. "no" and "not" do."""

_WORD = re.compile(r"\w+(?:[.,:]\d+)*")  # 90,000 and 7.30 and 19:00 are one word each
_ENDING = re.compile(r"(?<=\w\w\w)(?:ings?|e[dsr]?|s)$")
_DOUBLED = re.compile(r"(?<=\w\w)([b-df-hj-np-tv-z])\1$")


def by_facts(reference: str, response: str, _instruction: str = "") -> tuple[Given, Given]:
    """Similarity and precision of a summary, 0 to 1 each; any text can be scored, in time linear in its length."""
    said, meant = _all_words(response), _all_words(reference)
    wanted, given = _facts(meant), _facts(said)
    if not wanted or not given:
        alike = Given(float(meant == said), "one of the texts has no words")
        return alike, alike
    shared = (Counter(wanted) & Counter(given)).total()
    longer = max(len(wanted), len(given))
    rouge_1, rouge_l = shared / longer, int(LCSseq.similarity(wanted, given)) / longer
    held, length = shared / len(wanted), min(1.0, ALLOWANCE * len(meant) / len(said))
    return (
        Given((rouge_1 + rouge_l) / 2, f"ROUGE-1 {rouge_1:.2f}, ROUGE-L {rouge_l:.2f}"),
        Given(held * length, f"facts held {held:.2f}, length term {length:.2f}"),
    )


def _all_words(text: str) -> list[str]:
    found = (match[0] for match, _ in zip(_WORD.finditer(text.casefold()), range(COMPARED), strict=False))
    return [word.replace(",", "") for word in found]


def _facts(words: list[str]) -> list[str]:
    """The words that carry facts, without their endings; of a text that has none of them, all its words."""
    return [_stem(word) for word in words if word not in EMPTY] or words


def _stem(word: str) -> str:
    """A word without the ending of its number, tense or person. Crude, and the same for both texts."""
    if word.endswith(("ies", "ied")) and len(word) > 4:
        return f"{word[:-3]}y"
    return _DOUBLED.sub(r"\1", _ENDING.sub("", word))
