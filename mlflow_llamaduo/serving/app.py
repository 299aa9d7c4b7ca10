"""The Ray Serve application: an HTTP ingress that checks requests, and replicas that hold the model.

What goes wrong with a request is a value (`Refusal`) all the way: exceptions that cross Ray lose their shape.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from mlflow_llamaduo.config import Serving
from mlflow_llamaduo.errors import DataError
from mlflow_llamaduo.quiet import hush
from mlflow_llamaduo.serving.keys import Gatekeeper, Key
from mlflow_llamaduo.serving.protocol import (
    MAX_BODY_BYTES,
    ChatRequest,
    Chunks,
    Delta,
    Refusal,
    Usage,
    completion,
    read,
)
from mlflow_llamaduo.serving.spoken import Spoken

if TYPE_CHECKING:
    from mlflow_llamaduo.inference.continuous import Chosen
    from mlflow_llamaduo.inference.engine import Sampling

READY_WITHIN_S = 2.0
WAITING = 4
"""Requests that a replica takes, by the answers that it writes at once: the others wait in it for a slot."""
LEAST_LOGPROB = -9999.0
"""OpenAI's logarithm of what cannot be: JSON has no infinity."""

web = FastAPI(title="llamaduo", docs_url=None, redoc_url=None)


class Replica:
    """One loaded champion; it writes many answers at once, and none waits for another's end."""

    def __init__(self, name: str, number: int, max_new_tokens: int, slots: int) -> None:
        hush()
        from mlflow_llamaduo.champion import fetch
        from mlflow_llamaduo.inference.continuous import Batch
        from mlflow_llamaduo.pyfunc_model import unpack
        from mlflow_llamaduo.serving.writer import Writer

        self._max_new_tokens = max_new_tokens
        self._package, self._engine = unpack(fetch(name, number))
        engine = self._engine
        self._writer = Writer(Batch(engine.model, engine.adapters, engine.context_tokens, slots))

    async def ready(self) -> bool:
        """Answers once the model is loaded."""
        return True

    def check_health(self) -> None:
        """Ray asks now and then, and starts the replica again where it raises."""
        if self._writer.broken is not None:
            raise RuntimeError("the thread that writes answers has ended") from self._writer.broken

    async def answer(self, request: ChatRequest) -> tuple[tuple[Delta, ...], Usage] | Refusal:
        """Whole answers: the pieces of a stream, and the usage."""
        deltas: list[Delta] = []
        async for piece in self.stream(request):
            if isinstance(piece, Refusal):
                return piece
            if isinstance(piece, Usage):
                return tuple(deltas), piece
            deltas.append(piece)
        raise RuntimeError("a stream ended without its usage")

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta | Usage | Refusal]:
        """Pieces of the answers as they are written, and at the end the usage."""
        chat = [{"role": message.role, "content": message.text} for message in request.messages]
        sampling = self._sampling(request)
        try:
            (ids,) = self._engine.prompt_ids([chat])
        except DataError as error:  # the template takes no such roles
            yield Refusal(400, f"messages: {error}", param="messages")
            return
        if refusal := self._too_long(len(ids), sampling):
            yield refusal
            return
        likeliest = request.top_logprobs or 0
        conversation = self._writer.ask(
            ids, sampling, stops=self._engine.stops, slot=0, samples=request.n, likeliest=likeliest
        )
        answers = [Spoken(self._engine.text, request.stops) for _ in range(request.n)]
        written = 0
        async with aclosing(conversation.steps()) as steps:
            async for step in steps:
                written += 1
                answer, chosen = answers[step.sample], step.chosen
                text = answer.take(chosen.token)
                text += answer.end() if step.ended else ""
                if answer.stopped:
                    conversation.stop(step.sample)
                over = step.ended or answer.stopped
                finish = self._finish(answer, chosen.token) if over else None
                tokens = (self._told(chosen),) if request.logprobs else ()
                if text or tokens or finish:
                    yield Delta(step.sample, text, tokens, finish)
        yield Usage(len(ids), written)

    def _finish(self, answer: Spoken, token: int) -> str:
        return "stop" if answer.stopped or token in self._engine.stops else "length"

    def _told(self, chosen: "Chosen") -> dict[str, Any]:
        """OpenAI's entry of a token: text, bytes, natural logarithm, and those of the likeliest ones."""
        likeliest = [self._entry(token, logprob) for token, logprob in chosen.likeliest]
        return {**self._entry(chosen.token, chosen.logprob), "top_logprobs": likeliest}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._engine.token_text(token)
        return {"token": text, "logprob": max(logprob, LEAST_LOGPROB), "bytes": list(text.encode())}

    def _sampling(self, request: ChatRequest) -> "Sampling":
        """How to decode; what the request leaves open is as the gate's answers were made."""
        from mlflow_llamaduo.inference.engine import Sampling

        package = self._package
        asked = request.max_completion_tokens or request.max_tokens or self._max_new_tokens
        return Sampling(
            max_new_tokens=min(asked, self._max_new_tokens),
            temperature=package.temperature if request.temperature is None else request.temperature,
            top_p=package.top_p if request.top_p is None else request.top_p,
            seed=request.seed,
        )

    def _too_long(self, prompt: int, sampling: "Sampling") -> Refusal | None:
        room = self._engine.context_tokens
        if prompt + sampling.max_new_tokens <= room:
            return None
        return Refusal(
            400,
            f"the prompt has {prompt} tokens and the answer may have {sampling.max_new_tokens}: more than {room}",
            param="messages",
            code="context_length_exceeded",
        )


# Before the class: serve.ingress pickles the routes as they are here, with the names that are known by then.
def _refused(refusal: Refusal) -> Response:
    return JSONResponse(refusal.body(), status_code=refusal.status, headers=refusal.headers)


async def _body(http: Request) -> bytes | Refusal:
    """The body, as far as it is not too long: no more is kept."""
    parts, size = [], 0
    async for part in http.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            return Refusal(413, f"the body has more than {MAX_BODY_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


@serve.ingress(web)
class Ingress:
    """HTTP in front of the replicas."""

    def __init__(self, task: str, number: int, replica: DeploymentHandle, keys: tuple[Key, ...]) -> None:
        self._task = task
        self._number = number
        self._replica = replica
        self._gate = Gatekeeper(keys)

    @web.get("/healthz")
    async def healthz(self) -> Response:
        """200 when a replica has loaded the model and answers, else 503: Ray starts the ingress before that."""
        body = {"status": "ok", "model": self._task, "version": str(self._number)}
        try:
            await asyncio.wait_for(self._replica.ready.remote(), READY_WITHIN_S)
        except TimeoutError:
            return JSONResponse({**body, "status": "loading"}, status_code=503)
        return JSONResponse(body)

    @web.get("/v1/models")
    async def models(self, http: Request) -> Response:
        """The one model that is served."""
        key = self._gate.who(http.headers.get("authorization"))
        if isinstance(key, Refusal):
            return _refused(key)
        return JSONResponse(
            {"object": "list", "data": [{"id": self._task, "object": "model", "owned_by": "llamaduo"}]}
        )

    @web.post("/v1/chat/completions")
    async def chat(self, http: Request) -> Response:
        """Answer a conversation, whole or as server-sent events."""
        key = self._gate.who(http.headers.get("authorization"))  # before the body is read
        if isinstance(key, Refusal):
            return _refused(key)
        body = await _body(http)
        request = body if isinstance(body, Refusal) else read(body, model=self._task)
        if isinstance(request, Refusal):
            return _refused(request)
        if refusal := self._gate.admit(key, self._task):
            return _refused(refusal)
        return await (self._streamed(request, key) if request.stream else self._whole(request, key))

    async def _whole(self, request: ChatRequest, key: Key | None) -> Response:
        answer = await self._replica.answer.remote(request)
        if isinstance(answer, Refusal):
            return _refused(answer)
        deltas, usage = answer
        self._gate.spent(key, usage.total)
        body = completion(self._task, deltas, usage, logprobs=request.logprobs)
        return JSONResponse(body, headers={"x-llamaduo-version": str(self._number)})

    async def _streamed(self, request: ChatRequest, key: Key | None) -> Response:
        pieces = self._replica.options(stream=True).stream.remote(request)
        first = await anext(pieces)  # what is refused is refused before the 200
        if isinstance(first, Refusal):
            return _refused(first)
        options = request.stream_options
        chunks = Chunks(self._task, logprobs=request.logprobs, usage=bool(options and options.include_usage))
        return StreamingResponse(
            self._events(chunks, first, pieces, key),
            media_type="text/event-stream",
            headers={"x-llamaduo-version": str(self._number), "cache-control": "no-cache"},
        )

    async def _events(self, chunks: Chunks, first: Delta | Usage, pieces: Any, key: Key | None) -> AsyncIterator[str]:
        piece, ended, tokens = first, False, 0
        try:
            while not ended:
                ended = isinstance(piece, Usage)
                tokens = piece.total if isinstance(piece, Usage) else tokens + 1
                yield chunks.end(piece) if isinstance(piece, Usage) else chunks.event(piece)
                if not ended:
                    piece = await anext(pieces)
        except RayError as error:  # the 200 is out: the stream must say it, and end
            yield chunks.failed(Refusal(500, f"the replica failed: {type(error).__name__}; ask again"))
        finally:
            self._gate.spent(key, tokens)  # of a client that has gone as many as it has got
            if not ended:  # and it stops the generation
                pieces.cancel()


def application(*, task: str, name: str, number: int, serving: Serving, keys: tuple[Key, ...] = ()) -> Application:
    """The application for one version of a task's registered model; without keys everybody may ask."""
    gpus, kind = serving.gpus, serving.accelerator_type
    resources = {
        "num_cpus": 0 if gpus else 1,
        "num_gpus": gpus,
        **({"accelerator_type": kind} if gpus and kind else {}),
    }
    most = serving.batch_size * WAITING
    replica = serve.deployment(Replica, max_ongoing_requests=most, ray_actor_options=resources)
    ingress = serve.deployment(Ingress, max_ongoing_requests=256)
    writer = replica.bind(name, number, serving.max_new_tokens, serving.batch_size)
    return ingress.bind(task, number, writer, keys)
