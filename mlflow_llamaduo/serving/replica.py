"""A Ray Serve replica: one loaded base, the adapters on it, and many answers written at once.

What goes wrong with a request is a value (`Refusal`) all the way: exceptions that cross Ray lose their shape.
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from mlflow_llamaduo.config import Serving
from mlflow_llamaduo.core.catalogue import Pick
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.inference.engine import Chosen, Sampling
from mlflow_llamaduo.inference.voice import Voice
from mlflow_llamaduo.pyfunc_model import Package, read_package
from mlflow_llamaduo.quiet import hush
from mlflow_llamaduo.serving.protocol import ChatRequest, Delta, Refusal, Together, Usage
from mlflow_llamaduo.serving.seats import SPARE, Seat, Seats
from mlflow_llamaduo.serving.shelf import Shelf, hurried
from mlflow_llamaduo.serving.spoken import Spoken
from mlflow_llamaduo.serving.writer import TransformersWriter, Writer

MOMENT_S = 0.04
"""Between two messages of a stream: nobody reads faster."""
LEAST_LOGPROB = -9999.0
"""OpenAI's logarithm of what cannot be: JSON has no infinity."""
AGAIN_AFTER_S = 30
"""When to ask again for a version that could not be loaded."""
log = logging.getLogger("ray.serve")


class Replica:
    """Writes answers of any version on its base; none waits for another's end.

    Args:
        shelf: where versions come from.
        first: a version whose base is loaded.
        serving: engine, sizes, the most tokens of an answer.
        lora_rank: the highest rank of the adapters to come; only vLLM must know it beforehand.
    """

    def __init__(self, shelf: Shelf, first: Pick, serving: Serving, lora_rank: int) -> None:
        hush()
        hurried()
        package = read_package(shelf.folder(first))
        self._max_new_tokens = serving.max_new_tokens
        self._writer = _writer(shelf.base(package), serving, lora_rank)
        self._seats = Seats(self._writer, shelf, package.base_digest, most=serving.adapters)

    async def load(self, pick: Pick) -> str | None:
        """Load a version, if it is not loaded; why it cannot be, or None."""
        seat = await self._seat(pick)
        return seat.message if isinstance(seat, Refusal) else None

    def check_health(self) -> None:
        """Ray asks now and then, and starts the replica again where it raises."""
        if self._writer.broken is not None:
            raise RuntimeError("what writes the answers has ended") from self._writer.broken

    async def answer(self, pick: Pick, request: ChatRequest) -> tuple[tuple[Delta, ...], Usage] | Refusal:
        """Whole answers: the pieces of a stream, and the usage."""
        deltas: list[Delta] = []
        async for piece in self.stream(pick, request):
            if isinstance(piece, Refusal):
                return piece
            if isinstance(piece, Usage):
                return tuple(deltas), piece
            deltas.append(piece)
        raise RuntimeError("a stream ended without its usage")

    async def stream(self, pick: Pick, request: ChatRequest) -> AsyncIterator[Delta | Usage | Refusal]:
        """Pieces of the answers as they are written, and at the end the usage."""
        began, first = time.monotonic(), 0.0
        seat = await self._seat(pick)
        if isinstance(seat, Refusal):
            yield seat
            return
        voice, sampling = seat.voice, self._sampling(seat.package, request)
        ids = self._prompt(voice, request, sampling)
        if isinstance(ids, Refusal):
            yield ids
            return
        conversation = self._writer.ask(
            ids,
            sampling,
            stops=voice.stops,
            slot=seat.slot,
            samples=request.n,
            likeliest=(request.top_logprobs or 0) if request.logprobs else None,
        )
        answers = [Spoken(voice.text, request.stops) for _ in range(request.n)]
        together, written = Together(MOMENT_S), 0
        async with aclosing(conversation.steps()) as steps:
            async for step in steps:
                first = first or time.monotonic() - began
                written += 1
                answer, chosen = answers[step.sample], step.chosen
                text = answer.take(chosen.token)
                text += answer.end() if step.ended else ""
                if answer.stopped:
                    conversation.stop(step.sample)
                over = step.ended or answer.stopped
                finish = _finish(voice, answer, chosen.token) if over else None
                tokens = (_told(voice, chosen),) if request.logprobs else ()
                if text or tokens or finish:
                    for piece in together.take(Delta(step.sample, text, tokens, finish)):
                        yield piece
        yield Usage(len(ids), written, first, time.monotonic() - began)

    async def _seat(self, pick: Pick) -> Seat | Refusal:
        """A loaded version; one that cannot be loaded is refused, and nothing else answers in its place."""
        try:
            return await self._seats.seat(pick)
        except DataError as error:
            log.error("llamaduo: %s", error)  # noqa: TRY400 - its text is for the log, not for the client
            message = f"version {pick.number} of {pick.name} cannot be loaded; the service's log says why"
            return Refusal(503, message, "model", "model_not_loaded", AGAIN_AFTER_S)

    def _sampling(self, package: Package, request: ChatRequest) -> Sampling:
        """How to decode; what the request leaves open is as the gate's answers were made."""
        asked = request.max_completion_tokens or request.max_tokens or self._max_new_tokens
        return Sampling(
            max_new_tokens=min(asked, self._max_new_tokens),
            temperature=package.temperature if request.temperature is None else request.temperature,
            top_p=package.top_p if request.top_p is None else request.top_p,
            seed=request.seed,
        )

    def _prompt(self, voice: Voice, request: ChatRequest, sampling: Sampling) -> list[int] | Refusal:
        """The prompt's tokens, with room for the answer behind them."""
        chat = [{"role": message.role, "content": message.text} for message in request.messages]
        try:
            ids = voice.prompt_ids(chat)
        except DataError as error:  # the template takes no such roles
            return Refusal(400, f"messages: {error}", param="messages")
        room = self._writer.context_tokens
        if len(ids) + sampling.max_new_tokens <= room:
            return ids
        return Refusal(
            400,
            f"the prompt has {len(ids)} tokens and the answer may have {sampling.max_new_tokens}: more than {room}",
            param="messages",
            code="context_length_exceeded",
        )


def _writer(base: Path, serving: Serving, lora_rank: int) -> Writer:
    adapters = serving.adapters + SPARE
    if serving.engine == "vllm":
        from mlflow_llamaduo.serving.vllm_writer import VllmWriter

        rows, gpus = serving.batch_size, serving.gpus
        return VllmWriter(str(base), lora_rank=lora_rank, adapters=adapters, rows=rows, gpus=gpus)
    return TransformersWriter(base, adapters=adapters, rows=serving.batch_size)


def _finish(voice: Voice, answer: Spoken, token: int) -> str:
    return "stop" if answer.stopped or token in voice.stops else "length"


def _told(voice: Voice, chosen: Chosen) -> dict[str, Any]:
    """OpenAI's entry of a token: text, bytes, natural logarithm, and those of the likeliest ones."""
    likeliest = [_entry(voice, token, logprob) for token, logprob in chosen.likeliest]
    own = LEAST_LOGPROB if chosen.logprob is None else chosen.logprob
    return {**_entry(voice, chosen.token, own), "top_logprobs": likeliest}


def _entry(voice: Voice, token: int, logprob: float) -> dict[str, Any]:
    text = voice.token_text(token)
    return {"token": text, "logprob": max(logprob, LEAST_LOGPROB), "bytes": list(text.encode())}
