"""English-like text without end, from a seed: function words and made-up words in the frequencies of Zipf's law.

Two texts share what two English texts share: frequent words, and stock phrases of four to eight words, some of which
stand in one text of twenty and others in one of a thousand. A run of six words that is in two texts is then no proof
that one was copied from the other, as in life.
"""

import random
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate

import numpy as np

_FUNCTION = """
the of and to a in is that it was for on with as at by from his her their they be this have are or not but had which
one were all we when there can an said who more if no out so up into them then its only some could time these two may
than other do first any my now such like our over man me even most made after also did many before
"""
_STOCK = """
at the end of the day
on the other hand
as a matter of fact
for the first time in years
in the middle of the night
one of the most important parts of
the rest of the world
by the time they got there
in the second half of the year
there is no doubt that the
it goes without saying that this is
a large number of people in the
from the beginning to the end of
as soon as it was possible
in spite of all that had been said
to the best of my knowledge
with the help of some of the
more or less the same as before
"""
_SOUNDS = """
b br c ch cl d dr f fl g gr h j k l m n p pl pr qu r s sc sh sl sp st t th tr v w
a e i o u ai ea ee ie oa ou
- - - n r l s t nd ck m st ng rd
"""
FUNCTION_WORDS = tuple(_FUNCTION.split())
STOCK = tuple(_STOCK.strip().splitlines())
WORDS, PHRASES = 24_000, 300
_ONSETS, _NUCLEI, _CODAS = (line.replace("-", "").split(" ") for line in _SOUNDS.strip().splitlines())


class Prose:
    """Words, sentences and texts, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)  # noqa: S311
        self._numbers = np.random.default_rng(seed)
        self.vocabulary = [*FUNCTION_WORDS, *_made_up(self.draw, WORDS - len(FUNCTION_WORDS))]
        self._shares = np.cumsum(1 / (np.arange(WORDS) + 2.7))
        self._ids = self._stream()
        frequent = self.vocabulary[: len(FUNCTION_WORDS) * 4]
        more = (" ".join(self.draw.choices(frequent, k=self.draw.randint(4, 8))) for _ in range(PHRASES - len(STOCK)))
        self._phrases = [*STOCK, *more]
        self._phrase_shares = [*accumulate(1 / (rank + 5) for rank in range(PHRASES))]

    def _stream(self) -> Iterator[int]:
        while True:
            points = self._numbers.random(1 << 18) * self._shares[-1]
            yield from np.searchsorted(self._shares, points).tolist()

    def words(self, count: int) -> list[str]:
        """So many words, without punctuation."""
        return [self.vocabulary[number] for number, _ in zip(self._ids, range(count), strict=False)]

    def topic(self) -> str:
        """A content word: one that is not among the most frequent."""
        return self.draw.choice(self.vocabulary[len(FUNCTION_WORDS) :])

    def name(self) -> str:
        """A word as the name of a person or a place."""
        return self.topic().title()

    def sentence(self, count: int) -> str:
        """One of about so many words; one in six has a stock phrase in it."""
        found = self.words(count)
        if self.draw.random() < 1 / 6:
            place = self.draw.randrange(len(found) + 1)
            found[place:place] = self._phrases[
                bisect(self._phrase_shares, self.draw.random() * self._phrase_shares[-1])
            ].split()
        if len(found) > 8 and self.draw.random() < 0.4:
            found[self.draw.randrange(3, len(found) - 3)] += ","
        return found[0].capitalize() + " " + " ".join(found[1:]) + "."

    def text(self, count: int) -> str:
        """Sentences of 6 to 18 words, `count` words in all, or a few more."""
        sentences, left = [], count
        while left > 0:
            size = min(max(6, left), self.draw.randint(6, 18))
            sentences.append(self.sentence(size))
            left -= size
        return " ".join(sentences)


def _made_up(draw: random.Random, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        syllables = draw.choices((1, 2, 3), (2, 5, 3))[0]
        parts = (draw.choice(_ONSETS) + draw.choice(_NUCLEI) + draw.choice(_CODAS) for _ in range(syllables))
        word = "".join(parts)
        if word not in FUNCTION_WORDS:
            found[word] = None
    return sorted(found, key=lambda word: len(word) + 6 * draw.random())  # what is frequent is short
