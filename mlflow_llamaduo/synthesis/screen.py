"""What a service LLM writes and no training set should hold: refusals, talk about itself, copies, another language.

Each check leaves alone what the example itself does: a task whose good answers decline, or speak of language models,
is no mistake of the generator.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from mlflow_llamaduo.core.likeness import near_pairs
from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.core.text import words

CANNOT = (
    r"(?:can(?:no|['\u2019])t|can not|(?:am |['\u2019]m )?(?:unable|not able)|won['\u2019]t|will not|must decline)"
)
HELP = "(?:help|assist|comply|provide|fulfil+|create|generate|write|answer|engage|support|continue|do that)"
REFUSAL = re.compile(
    rf"^\W*(?:(?:i(?:['\u2019]m| am) (?:very |so )?sorry|sorry|i apologi[sz]e|unfortunately)\b"
    rf"[^.!?\n]{{0,60}}?\b{CANNOT}\b"
    rf"|i ?{CANNOT} (?:to )?{HELP}\b)",
    re.IGNORECASE,
)
META = re.compile(
    r"\bas an? (?:ai|artificial intelligence)(?: (?:language )?(?:model|assistant))?\b"
    r"|\bas a (?:large )?language model\b|\bi(?:['\u2019]m| am) (?:only |just )?an? (?:ai|language model)\b"
    r"|\bmy (?:training data|knowledge cut-?off)\b"
    r"|\b(?:here|below) (?:is|are) (?:an?|the|your|some|\d+|two|three|four|five|ten) (?:new |more |other )?"
    r"(?:pairs?|examples?|instructions?|training (?:data|pairs?))\b"
    r"|\b(?:the|your) (?:given|provided) example\b"
    r"|\bthis (?:new )?(?:instruction|pair) is (?:different|similar|unlike)\b"
    r"|^\s*(?:instruction|response)\s*:",
    re.IGNORECASE,
)
CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
FEWEST_WORDS, SURE = 8, 0.95
"""A language is believed from so many words on, and with this probability."""
RARE = 0.02
"""A language in no more than this share of the train pairs is not one of the task's."""

Reason = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Screen:
    """What new pairs are held against.

    Args:
        languages: ISO 639 codes of the task's languages; none: any language will do.
        max_characters: of prompt and response together.
    """

    languages: frozenset[str]
    max_characters: int

    def objection(self, pair: Pair, example: Pair) -> Reason | None:
        """Why a pair that was written after `example` is not wanted, as a reason to count by and a detail."""
        checks: tuple[Callable[[Pair, Pair], Reason | None], ...] = (
            self._too_long,
            _refusal,
            _meta,
            _copy,
            self._language,
        )
        return next((why for check in checks if (why := check(pair, example))), None)

    def _too_long(self, pair: Pair, _: Pair) -> Reason | None:
        length = len(pair.instruction) + len(pair.response)
        if length <= self.max_characters:
            return None
        return "too_long", f"{length} characters, more than {self.max_characters}"

    def _language(self, pair: Pair, _: Pair) -> Reason | None:
        found = language(pair)
        if not self.languages or found is None or found in self.languages:
            return None
        return "wrong_language", f"{found}; the train pairs are in {', '.join(sorted(self.languages))}"


def languages(train: Iterable[Pair]) -> frozenset[str]:
    """The languages of a task: all that more than a few of its pairs are in."""
    found = Counter(code for pair in train if (code := language(pair)))
    return frozenset(code for code, count in found.items() if count > RARE * found.total())


def language(pair: Pair) -> str | None:
    """The ISO 639 code of a pair's language, or None where there is too little text to be sure; code is no text."""
    text = CODE.sub(" ", f"{pair.instruction}\n{pair.response}")
    if len(words(text)) < FEWEST_WORDS:
        return None
    code, probability = _identify()(text)
    return code if probability >= SURE else None


def _refusal(pair: Pair, example: Pair) -> Reason | None:
    found = REFUSAL.search(pair.response)
    if found is None or REFUSAL.search(example.response):
        return None
    return "refusal", f"the response begins {found[0].strip()[:60]!r}"


def _meta(pair: Pair, example: Pair) -> Reason | None:
    for text, same in ((pair.response, example.response), (pair.instruction, example.instruction)):
        if (found := META.search(text)) and not META.search(same):
            return "meta_text", f"it speaks of itself: {found[0].strip()[:60]!r}"
    return None


def _copy(pair: Pair, example: Pair) -> Reason | None:
    if words(pair.instruction) == words(example.instruction) or near_pairs(pair, example):
        return "copy_of_example", f"the example again, pair {example.id}"
    return None


@cache
def _identify() -> Callable[[str], tuple[str, float]]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # half a second, and only where pairs are written

    classify: Callable[[str], tuple[str, float]] = LanguageIdentifier.from_model_file(
        MODEL_FILE, norm_probs=True
    ).classify
    return classify
