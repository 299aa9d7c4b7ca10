"""From tokens to text as they come: what has been said is never taken back.

A token may be half a letter, and a stop string may come in pieces; what could become either is held back. Space
around an answer is not said, as it is not when the gate judges it. So the pieces of a streamed answer, laid together,
are the answer that is not streamed, which is made of them.
"""

from collections.abc import Callable, Sequence

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer writes for a letter that has not come whole."""


class Spoken:
    """One answer's text.

    Args:
        decode: token ids to text, special tokens left out.
        stops: the answer ends before the first of them.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(stop for stop in stops if stop)
        self._ids: list[int] = []
        self._from = self._to = 0
        self._held = ""
        self._space = ""
        self._begun = False
        self.stopped = False

    def take(self, token: int) -> str:
        """What another token lets be said; nothing after a stop string."""
        if self.stopped:
            return ""
        self._ids.append(token)
        # Some tokenizers write a token with a space before it or without, by what comes before: so the last piece
        # is decoded along.
        known, text = self._decode(self._ids[self._from : self._to]), self._decode(self._ids[self._from :])
        if text.endswith(BROKEN) or len(text) <= len(known):
            return ""
        self._from, self._to = self._to, len(self._ids)
        return self._heard(text[len(known) :])

    def end(self) -> str:
        """What was held back, now that nothing more comes."""
        if self.stopped:
            return ""
        rest = self._decode(self._ids[self._from :])[len(self._decode(self._ids[self._from : self._to])) :]
        text = self._heard(rest)
        if not self.stopped:
            text, self._held = text + self._trimmed(self._held), ""
        return text

    def _heard(self, text: str) -> str:
        """Text after the stop strings have been looked for."""
        text = self._held + text
        places = [(text.index(stop)) for stop in self._stops if stop in text]
        if places:
            self.stopped, self._held = True, ""
            return self._trimmed(text[: min(places)])
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return self._trimmed(text[: len(text) - held])

    def _trimmed(self, text: str) -> str:
        text = self._space + text
        if not self._begun:
            text = text.lstrip()
        said = text.rstrip()
        self._space = text[len(said) :]
        self._begun = self._begun or bool(said)
        return said


def _overlap(text: str, stop: str) -> int:
    """How many of the text's last characters could be the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
