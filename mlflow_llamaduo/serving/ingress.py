"""HTTP in front of the replicas: requests are checked, sent to who answers them, and what comes back is told."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from mlflow_llamaduo.config import Canary
from mlflow_llamaduo.config import Shadow as ShadowSettings
from mlflow_llamaduo.core.catalogue import CHAMPION, Catalogue, Pick
from mlflow_llamaduo.serving.answering import FAILED, Answered, Answers, Asked, Begun, failure, who
from mlflow_llamaduo.serving.following import Following
from mlflow_llamaduo.serving.keys import Gatekeeper, Key
from mlflow_llamaduo.serving.meters import Meters
from mlflow_llamaduo.serving.protocol import MAX_BODY_BYTES, Chunks, Delta, Refusal, Usage, completion, read
from mlflow_llamaduo.serving.routing import route
from mlflow_llamaduo.serving.service import Service
from mlflow_llamaduo.serving.shelf import hurried
from mlflow_llamaduo.serving.traced import Told, Traces

LOADED_WITHIN_S = 600.0
"""A version's files may be large, and far away."""
TOLD = 20
"""Names that a 404 lists."""
log = logging.getLogger("ray.serve")
web = FastAPI(title="llamaduo", docs_url=None, redoc_url=None, openapi_url=None)


# Before the class: serve.ingress pickles the routes as they are here, with the names that are known by then.
def _refused(refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(refusal.body(), status_code=refusal.status, headers={**refusal.headers, **(headers or {})})


async def _body(http: Request) -> bytes | Refusal:
    """The body, as far as it is not too long: no more is kept."""
    parts, size = [], 0
    async for part in http.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            return Refusal(413, f"the body has more than {MAX_BODY_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _listed(names: tuple[str, ...]) -> dict[str, Any]:
    return {"object": "list", "data": [_card(name) for name in names]}


def _card(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "llamaduo"}


def _unknown(asked: str, catalogue: Catalogue, tasks: tuple[str, ...]) -> Refusal:
    names = catalogue.names(tasks)
    more = f" and {len(names) - TOLD} more (GET /v1/models)" if len(names) > TOLD else ""
    there = ", ".join(names[:TOLD]) or "nothing"
    return Refusal(404, f"no model {asked[:200]!r}; there is {there}{more}", "model", "model_not_found")


@serve.ingress(web)
class Ingress:
    """HTTP in front of the replicas."""

    def __init__(
        self,
        service: Service,
        replica: DeploymentHandle,
        outside: DeploymentHandle | None = None,
        shadow: DeploymentHandle | None = None,
    ) -> None:
        hurried()
        self._loop = asyncio.get_running_loop()
        self._replica = replica
        self._gate = Gatekeeper(service.keys)
        self._meters = Meters()
        self._canaries: dict[str, Canary] = {}
        self._shadows: dict[str, ShadowSettings] = {}
        self._shadow = shadow
        self._copying: set[asyncio.Task[None]] = set()
        shares = {task: project.serving.trace_share for task, project in service.projects.items()}
        self._traces = Traces(shares, self._meters.lost)
        fallbacks = {task: project.serving.fallback for task, project in service.projects.items()}
        self._answers = Answers(replica, outside, fallbacks)
        self._following = Following(service.shelf, service.names, service.serving.refresh_seconds, self._load)
        self._following.start()

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Canaries and shadows by task, as Serve's `user_config`: they change while the service runs."""
        self._canaries = {
            task: Canary.model_validate(canary) for task, canary in user_config.get("canary", {}).items()
        }
        self._shadows = {
            task: ShadowSettings.model_validate(one) for task, one in user_config.get("shadow", {}).items()
        }
        if self._shadow is None and any(shadow.percent for shadow in self._shadows.values()):
            log.warning("llamaduo: no shadow was deployed: set serving.shadow.percent in args, and deploy again")

    def check_health(self) -> None:
        """Ray asks now and then, and starts the ingress again where it raises."""
        if self._following.broken is not None:
            raise RuntimeError("what follows the registry has ended") from self._following.broken

    @web.get("/healthz")
    async def healthz(self) -> Response:
        """200 when every champion is loaded, else 503: Ray starts the ingress before that."""
        following = self._following
        body = {
            "status": "ok" if following.ready else "loading",
            "versions": self._champions(),
            "mlflow": "away" if following.away else "ok",
            "behind": sorted(following.behind),
        }
        return JSONResponse(body, status_code=200 if following.ready else 503)

    @web.get("/metrics")
    async def metrics(self, http: Request) -> Response:
        """Counts of this ingress, for Prometheus; with a key where there are keys."""
        key = self._who(http)
        if isinstance(key, Refusal):
            return _refused(key)
        self._meters.champions(self._champions(), set(self._following.behind))
        return Response(self._meters.text(), media_type=CONTENT_TYPE_LATEST)

    @web.get("/v1/models")
    async def models(self, http: Request) -> Response:
        """Every name that may be asked for."""
        key = self._who(http)
        if isinstance(key, Refusal):
            return _refused(key)
        return JSONResponse(_listed(self._following.catalogue.names(key.tasks if key else ())))

    @web.get("/v1/models/{name}")
    async def model(self, name: str, http: Request) -> Response:
        """One of them."""
        key = self._who(http)
        if isinstance(key, Refusal):
            return _refused(key)
        catalogue, tasks = self._following.catalogue, key.tasks if key else ()
        there = name in catalogue.names(tasks)
        return JSONResponse(_card(name)) if there else _refused(_unknown(name, catalogue, tasks))

    @web.post("/v1/chat/completions")
    async def chat(self, http: Request) -> Response:
        """Answer a conversation, whole or as server-sent events."""
        asked = await self._asked(http)
        if isinstance(asked, Refusal):
            self._meters.refused(asked.status)
            return _refused(asked)
        return await (self._streamed(asked) if asked.request.stream else self._whole(asked))

    async def _asked(self, http: Request) -> Asked | Refusal:
        """A request and who answers it, or why nobody does; keys are looked at before the body is read."""
        key = self._who(http)
        if isinstance(key, Refusal):
            return key
        body = await _body(http)
        request = body if isinstance(body, Refusal) else read(body)
        if isinstance(request, Refusal):
            return request
        catalogue = self._following.catalogue
        canary = self._canaries.get(request.model)
        found = route(catalogue, request.model, who(request, key), canary)
        if found is None:
            return _unknown(request.model, catalogue, key.tasks if key else ())
        return self._gate.admit(key, found.model.task) or Asked(request, key, found)

    def _who(self, http: Request) -> Key | Refusal | None:
        return self._gate.who(http.headers.get("authorization"), http.client.host if http.client else None)

    async def _whole(self, asked: Asked) -> Response:
        began = time.time_ns()
        with self._meters.open(asked.route.model.task):
            answered, answer = await self._answers.whole(asked)
        if isinstance(answer, Refusal):
            self._over(answered, answer.status)
            return _refused(answer, answered.headers)
        deltas, usage = answer
        body = completion(answered.by, deltas, usage, logprobs=asked.request.logprobs)
        self._over(answered, 200, usage)
        self._tell(answered, body, began)
        return JSONResponse(body, headers=answered.headers)

    async def _streamed(self, asked: Asked) -> Response:
        began = time.time_ns()
        with self._meters.open(asked.route.model.task):
            answered, begun = await self._answers.begun(asked)
        if isinstance(begun, Refusal):
            self._over(answered, begun.status)
            return _refused(begun, answered.headers)
        options = asked.request.stream_options
        usage = bool(options and options.include_usage)
        chunks = Chunks(answered.by, logprobs=asked.request.logprobs, usage=usage)
        headers = {**answered.headers, "cache-control": "no-cache"}
        return StreamingResponse(
            self._events(chunks, answered, begun, began), media_type="text/event-stream", headers=headers
        )

    async def _events(self, chunks: Chunks, answered: Answered, begun: Begun, began_ns: int) -> AsyncIterator[str]:
        usage, status = None, 499  # as nginx has it: the client has gone
        deltas: list[Delta] = []
        try:
            with self._meters.open(answered.asked.route.model.task):
                async with aclosing(begun.pieces()) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, Usage):
                            usage, status = piece, 200
                            yield chunks.end(piece)
                        else:
                            deltas.append(piece)
                            yield chunks.event(piece)
        except FAILED as error:  # the 200 is out: the stream must say it, and end
            refusal = failure(error)
            status = refusal.status
            yield chunks.failed(refusal)
        finally:
            # Of a client that has gone as many tokens as it has got.
            self._over(answered, status, usage, sum(delta.written for delta in deltas))
        if usage is not None:
            self._tell(answered, {**completion(answered.by, deltas, usage), "id": chunks.id}, began_ns)

    def _over(self, answered: Answered, status: int, usage: Usage | None = None, got: int = 0) -> None:
        """A request has ended: count it, and what it has used."""
        asked = answered.asked
        self._gate.spent(asked.key, usage.total if usage else got)
        self._meters.answered(asked.route, answered.how, status)
        if usage is not None and not answered.service_llm:
            self._meters.used(asked.route, usage)

    def _tell(self, answered: Answered, body: dict[str, Any], began_ns: int) -> None:
        """What comes of an answer once its client has it: a trace, a copy for the shadow."""
        route = answered.asked.route
        if self._traces.wanted(route.model.task):
            self._traces.keep(Told(answered, body, began_ns))
        shadow = self._shadows.get(route.model.task)
        other = route.model.pick(shadow.to) if shadow else None
        if self._shadow is None or shadow is None or other is None or other == route.pick:
            return
        if answered.how == "champion" and random.random() < shadow.percent / 100:  # noqa: S311 - nobody's secret
            text = body["choices"][0]["message"]["content"]
            copy = self._shadow.copy.remote(route.model.task, route.pick, other, answered.asked.request, text)
            task = asyncio.create_task(self._copied(route.model.task, copy))
            self._copying.add(task)
            task.add_done_callback(self._copying.discard)

    async def _copied(self, task: str, copy: DeploymentResponse) -> None:
        """Wait for what no client waits for: a shadow that is too busy has one copy less."""
        try:
            made = await copy
        except BackPressureError:
            made = False
        except RayError as error:
            log.warning("llamaduo: a copy for the shadow was lost: %s", type(error).__name__)
            made = False
        if not made:
            self._meters.uncopied(task)

    def _champions(self) -> dict[str, int]:
        champions = {task: model.pick(CHAMPION) for task, model in self._following.catalogue.models.items()}
        return {task: pick.number for task, pick in champions.items() if pick}

    def _load(self, pick: Pick) -> str | None:
        """Have a replica load a version; called from the thread that follows the registry."""
        return asyncio.run_coroutine_threadsafe(self._loaded(pick), self._loop).result()

    async def _loaded(self, pick: Pick) -> str | None:
        """Why a version could not be loaded, or None where it is."""
        try:
            loading = self._replica.options(multiplexed_model_id=pick.key).load.remote(pick)
            problem: str | None = await asyncio.wait_for(loading, LOADED_WITHIN_S)
        except (*FAILED, TimeoutError) as error:
            return f"no replica could load version {pick.number} ({type(error).__name__})"
        return problem
