"""The Ray Serve application: an HTTP ingress that checks requests, and replicas that hold the model."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from mlflow_llamaduo.quiet import hush
from mlflow_llamaduo.serving.protocol import MAX_BODY_BYTES, ChatRequest, Chunks, HttpError, completion

web = FastAPI(title="llamaduo", docs_url=None, redoc_url=None)


@web.exception_handler(HttpError)
async def _error(_: Request, error: HttpError) -> JSONResponse:
    return JSONResponse(error.body(), status_code=error.status)


class Replica:
    """One loaded champion; it answers one request at a time."""

    def __init__(self, name: str, number: int, max_new_tokens: int) -> None:
        hush()
        from mlflow_llamaduo.pyfunc_model import unpack
        from mlflow_llamaduo.serving.champion import fetch

        self._max_new_tokens = max_new_tokens
        self._package, self._engine = unpack(fetch(name, number).folder)
        self._busy = asyncio.Lock()

    async def answer(self, request: ChatRequest) -> dict[str, Any]:
        """A whole answer: text, finish, prompt_tokens, completion_tokens."""
        chat, sampling = self._checked(request)
        async with self._busy:
            ((made,),) = await asyncio.to_thread(self._engine.generate, [chat], sampling)
        return {
            "text": made.text,
            "finish": made.finish_reason,
            "prompt_tokens": made.prompt_tokens,
            "completion_tokens": made.completion_tokens,
        }

    async def stream(self, request: ChatRequest) -> AsyncIterator[tuple[str, str | None]]:
        """Pieces of text, then an empty one with the reason for the end."""
        chat, sampling = self._checked(request)
        stopped = threading.Event()
        async with self._busy:
            pieces = self._engine.stream(chat, sampling, stopped)
            try:
                while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                    yield (piece, None) if isinstance(piece, str) else ("", piece.finish_reason)
            finally:
                stopped.set()
                await asyncio.to_thread(pieces.close)  # type: ignore[attr-defined]

    def _checked(self, request: ChatRequest) -> tuple[list[dict[str, str]], Any]:
        from mlflow_llamaduo.inference.transformers_engine import Sampling

        chat = [message.model_dump() for message in request.messages]
        asked = request.max_completion_tokens or request.max_tokens or self._max_new_tokens
        limit = min(asked, self._max_new_tokens)
        prompt, room = self._engine.count(chat), self._engine.context_tokens
        if prompt + limit > room:
            raise HttpError(
                400,
                f"the prompt has {prompt} tokens and the answer may have {limit}: together more than {room}",
                param="messages",
                code="context_length_exceeded",
            )
        package = self._package
        return chat, Sampling(
            max_new_tokens=limit,
            temperature=package.temperature if request.temperature is None else request.temperature,
            top_p=package.top_p if request.top_p is None else request.top_p,
            seed=request.seed,
        )


@serve.ingress(web)
class Ingress:
    """HTTP in front of the replicas."""

    def __init__(self, task: str, number: int, replica: DeploymentHandle) -> None:
        self._task = task
        self._number = number
        self._replica = replica

    @web.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Ready as soon as it answers: replicas are up before the ingress is."""
        return {"status": "ok", "model": self._task, "version": str(self._number)}

    @web.get("/v1/models")
    async def models(self) -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [{"id": self._task, "object": "model", "owned_by": "llamaduo"}]}

    @web.post("/v1/chat/completions")
    async def chat(self, http: Request) -> Response:
        """Answer a conversation."""
        request = await self._read(http)
        if request.stream:
            return StreamingResponse(self._events(request), media_type="text/event-stream")
        try:
            answer = await self._replica.answer.remote(request)
        except HttpError as error:
            raise HttpError(error.status, str(error), param=error.param, code=error.code) from None
        body = completion(
            self._task, answer["text"], answer["finish"], answer["prompt_tokens"], answer["completion_tokens"]
        )
        return JSONResponse(body, headers={"x-llamaduo-version": str(self._number)})

    async def _read(self, http: Request) -> ChatRequest:
        body = await http.body()
        if len(body) > MAX_BODY_BYTES:
            raise HttpError(413, f"the body has {len(body)} bytes, more than {MAX_BODY_BYTES}")
        try:
            request = ChatRequest.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise HttpError(400, f"{where or 'body'}: {first['msg']}", param=where or None) from None
        if request.model != self._task:
            raise HttpError(
                404,
                f"no model {request.model!r} ; there is {self._task!r}",
                param="model",
                code="model_not_found",
            )
        return request

    async def _events(self, request: ChatRequest) -> AsyncIterator[str]:
        chunks = Chunks(self._task)
        async for text, finish in self._replica.options(stream=True).stream.remote(request):
            yield chunks.end(finish) if finish else chunks.piece(text)


def application(*, task: str, name: str, number: int, max_new_tokens: int, gpus: int) -> Application:
    """The application for one version of a task's registered model."""
    resources = {"num_cpus": 0 if gpus else 1, "num_gpus": gpus}
    replica = serve.deployment(Replica, max_ongoing_requests=8, ray_actor_options=resources)
    ingress = serve.deployment(Ingress, max_ongoing_requests=256)
    return ingress.bind(task, number, replica.bind(name, number, max_new_tokens))
