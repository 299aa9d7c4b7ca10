"""The Ray Serve application: an HTTP ingress that checks requests, and replicas that hold the model.

What goes wrong with a request is a value (`Refusal`) all the way: exceptions that cross Ray lose their shape.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from mlflow_llamaduo.quiet import hush
from mlflow_llamaduo.serving.protocol import ChatRequest, Chunks, Refusal, completion, read

Piece = tuple[str, str | None]
"""Some text, or the reason for the end."""

READY_WITHIN_S = 2.0

web = FastAPI(title="llamaduo", docs_url=None, redoc_url=None)


class Replica:
    """One loaded champion; it answers one request at a time."""

    def __init__(self, name: str, number: int, max_new_tokens: int) -> None:
        hush()
        from mlflow_llamaduo.champion import fetch
        from mlflow_llamaduo.pyfunc_model import unpack

        self._max_new_tokens = max_new_tokens
        self._package, self._engine = unpack(fetch(name, number))
        self._busy = asyncio.Lock()

    async def ready(self) -> bool:
        """Answers once the model is loaded."""
        return True

    async def answer(self, request: ChatRequest) -> dict[str, Any] | Refusal:
        """A whole answer: text, finish, prompt_tokens, completion_tokens."""
        chat, sampling = self._decoding(request)
        if refusal := self._too_long(chat, sampling):
            return refusal
        async with self._busy:
            ((made,),) = await asyncio.to_thread(self._engine.generate, [chat], sampling)
        return {
            "text": made.text,
            "finish": made.finish_reason,
            "prompt_tokens": made.prompt_tokens,
            "completion_tokens": made.completion_tokens,
        }

    async def stream(self, request: ChatRequest) -> AsyncIterator[Piece | Refusal]:
        """Pieces of text, then an empty one with the reason for the end."""
        chat, sampling = self._decoding(request)
        if refusal := self._too_long(chat, sampling):
            yield refusal
            return
        stopped = threading.Event()
        async with self._busy:
            pieces = self._engine.stream(chat, sampling, stopped)
            try:
                while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                    yield (piece, None) if isinstance(piece, str) else ("", piece.finish_reason)
            finally:  # a client that has gone stops the generation
                stopped.set()
                await asyncio.to_thread(pieces.close)

    def _decoding(self, request: ChatRequest) -> tuple[list[dict[str, str]], Any]:
        """The conversation and how to decode it; what the request leaves open is as the gate's answers were made."""
        from mlflow_llamaduo.inference.engine import Sampling

        package = self._package
        asked = request.max_completion_tokens or request.max_tokens or self._max_new_tokens
        return [message.model_dump() for message in request.messages], Sampling(
            max_new_tokens=min(asked, self._max_new_tokens),
            temperature=package.temperature if request.temperature is None else request.temperature,
            top_p=package.top_p if request.top_p is None else request.top_p,
            seed=request.seed,
        )

    def _too_long(self, chat: list[dict[str, str]], sampling: Any) -> Refusal | None:
        prompt, room = self._engine.count(chat), self._engine.context_tokens
        if prompt + sampling.max_new_tokens <= room:
            return None
        return Refusal(
            400,
            f"the prompt has {prompt} tokens and the answer may have {sampling.max_new_tokens}: more than {room}",
            param="messages",
            code="context_length_exceeded",
        )


@serve.ingress(web)
class Ingress:
    """HTTP in front of the replicas."""

    def __init__(self, task: str, number: int, replica: DeploymentHandle) -> None:
        self._task = task
        self._number = number
        self._replica = replica

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
    async def models(self) -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [{"id": self._task, "object": "model", "owned_by": "llamaduo"}]}

    @web.post("/v1/chat/completions")
    async def chat(self, http: Request) -> Response:
        """Answer a conversation, whole or as server-sent events."""
        request = read(await http.body(), model=self._task)
        if isinstance(request, Refusal):
            return JSONResponse(request.body(), status_code=request.status)
        return await (self._streamed(request) if request.stream else self._whole(request))

    async def _whole(self, request: ChatRequest) -> Response:
        answer = await self._replica.answer.remote(request)
        if isinstance(answer, Refusal):
            return JSONResponse(answer.body(), status_code=answer.status)
        body = completion(
            self._task, answer["text"], answer["finish"], answer["prompt_tokens"], answer["completion_tokens"]
        )
        return JSONResponse(body, headers={"x-llamaduo-version": str(self._number)})

    async def _streamed(self, request: ChatRequest) -> Response:
        pieces = self._replica.options(stream=True).stream.remote(request)
        first = await anext(pieces)  # what is refused is refused before the 200
        if isinstance(first, Refusal):
            return JSONResponse(first.body(), status_code=first.status)
        return StreamingResponse(
            self._events(first, pieces),
            media_type="text/event-stream",
            headers={"x-llamaduo-version": str(self._number)},
        )

    async def _events(self, first: Piece, pieces: AsyncIterator[Piece]) -> AsyncIterator[str]:
        chunks = Chunks(self._task)
        yield chunks.event(*first)
        async for piece in pieces:
            yield chunks.event(*piece)


def application(*, task: str, name: str, number: int, max_new_tokens: int, gpus: int) -> Application:
    """The application for one version of a task's registered model."""
    resources = {"num_cpus": 0 if gpus else 1, "num_gpus": gpus}
    replica = serve.deployment(Replica, max_ongoing_requests=8, ray_actor_options=resources)
    ingress = serve.deployment(Ingress, max_ongoing_requests=256)
    return ingress.bind(task, number, replica.bind(name, number, max_new_tokens))
