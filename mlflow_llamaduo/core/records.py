"""The values that travel through the pipeline.

    Pair -> (fine-tune) -> Adapter -> (infer) -> Response -> (judge) -> Verdict | Unjudged
         -> (register) -> Version

All are frozen, compare by value, and carry an id that is a digest of their content: two processes that see
the same rows see the same ids, which is what makes a finished stage findable again.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal


def digest(*parts: Any) -> str:
    """16 hexadecimal digits of the SHA-256 over `parts` as canonical JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: role is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class TaskPrompt:
    """What judge or generator is told of a task: the system message, and the task's name that goes with the data.

    `source` is where the text is from: a file, or a version in the MLflow Prompt Registry.
    """

    task: str
    text: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and the response that is held to be good (the paper's *coverage dataset*, section 3).

    `prompt` holds every turn before the answer and ends with a user turn.
    """

    prompt: tuple[Message, ...]
    response: str
    category: str = ""
    source: str = "coverage"

    @property
    def id(self) -> str:
        """Digest of prompt and response; where the pair came from does not count."""
        return digest([[m.role, m.content] for m in self.prompt], self.response)

    @property
    def synthetic(self) -> bool:
        """True for a pair that the service LLM wrote in some round."""
        return self.source.startswith("synthetic/")

    @property
    def instruction(self) -> str:
        """The prompt as one text, as judges and curation read it."""
        if len(self.prompt) == 1:
            return self.prompt[0].content
        return "\n\n".join(f"{m.role}: {m.content}" for m in self.prompt)

    def row(self) -> dict[str, Any]:
        """The row that other programs rely on: `messages`, `category`, `source`."""
        turns = [*self.prompt, Message("assistant", self.response)]
        messages = [{"role": m.role, "content": m.content} for m in turns]
        return {"messages": messages, "category": self.category, "source": self.source}


@dataclass(frozen=True)
class PairSet:
    """An ordered set of pairs."""

    pairs: tuple[Pair, ...]

    @cached_property
    def digest(self) -> str:
        """Digest over the ids, order included."""
        return digest([pair.id for pair in self.pairs])

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def with_(self, more: Iterable[Pair]) -> "PairSet":
        """These pairs and then `more`."""
        return PairSet((*self.pairs, *more))


@dataclass(frozen=True, slots=True)
class Response:
    """What a local model answered to one test prompt; `sample` counts the K answers from 0."""

    pair_id: str
    sample: int
    instruction: str
    reference: str
    text: str
    completion_tokens: int
    category: str = ""
    source: str = ""

    @property
    def id(self) -> str:
        """`pair_id/sample`."""
        return f"{self.pair_id}/{self.sample}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judging of one response: both scores 0 to 100 (paper, section 3.3)."""

    response_id: str
    judge: str
    repeat: int
    similarity: float
    precision: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A judging that gave no usable scores. It is counted; it is never a zero."""

    response_id: str
    judge: str
    repeat: int
    reason: str


Judgement = Verdict | Unjudged

Outcome = Literal["win", "tie", "loss"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One asking of a judge which of two answers is better, the response's own or its opponent's.

    `opponent` is `reference`, `service_llm` or `champion`; `first` says whether the response stood first. `outcome`
    is the response's, None where the reply had none: `reason` says why.
    """

    response_id: str
    opponent: str
    judge: str
    first: bool
    outcome: Outcome | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A synthetic pair that was not kept, and why: a reason to count by, what it was, and the id of its partner.

    Reasons: `malformed`, those of `synthesis.screen`, and `leak`, `duplicate` and `near_duplicate`, which have one.
    """

    pair: Pair | None
    reason: str
    detail: str = ""
    partner: str = ""


@dataclass(frozen=True, slots=True)
class Grown:
    """What one round of synthesis brought: pairs kept, pairs rejected, and figures of them by name.

    Figures are those of `synthesis.diversity` and `redacted_<kind>`, the places redacted in new pairs.
    """

    kept: tuple[Pair, ...]
    rejected: tuple[Rejected, ...]
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EpochLoss:
    """Mean losses of one epoch, in nats per response token."""

    epoch: float
    train: float | None
    dev: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """A trained LoRA adapter on disk (safetensors, tokenizer and chat template beside it).

    Losses are in nats per learned token, those of the best epoch; `mask` shows what is learned of three rows, and
    `probed` names the dev pairs that it was asked for the sake of parity.
    """

    path: str
    digest: str
    base_model: str
    base_digest: str
    train_loss: float
    eval_loss: float
    best_epoch: float
    tokens: int
    seconds: float
    losses: tuple[EpochLoss, ...] = ()
    mask: str = ""
    probed: tuple[str, ...] = ()

    @property
    def tokens_per_second(self) -> float:
        """Real (unpadded) training tokens per second, evaluation not counted."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the registered model in the MLflow Model Registry."""

    name: str
    number: int
    run_id: str
