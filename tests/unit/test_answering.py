"""A stream whose connection to the replica breaks: another one answers, as long as nothing was sent."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Self

from grpc import RpcError

from mlflow_llamaduo.core.catalogue import Model, Pick
from mlflow_llamaduo.serving.answering import Answered, Answers, Asked, Begun, failure
from mlflow_llamaduo.serving.protocol import ChatRequest, Delta, Refusal, Usage, read
from mlflow_llamaduo.serving.routing import Route

PICK = Pick("llamaduo-qa", 1, 0)
ROUTE = Route(Model("qa", "llamaduo-qa", {"champion": 1}, {1: 0}), PICK, "champion")


class Replicas:
    """A handle to replicas, of which the first ones break before their first piece."""

    def __init__(self, broken: int) -> None:
        self.broken = broken
        self.stream = self

    def options(self, **_: Any) -> Self:
        return self

    async def remote(self, *_: Any) -> AsyncIterator[Delta | Usage]:
        if self.broken:
            self.broken -= 1
            raise RpcError("connection to 192.0.2.7 reset")
        yield Delta(0, "1911", finish="stop")
        yield Usage(3, 1)


def begun(broken: int) -> tuple[Answered, Begun | Refusal]:
    body = {"model": "qa", "stream": True, "messages": [{"role": "user", "content": "When?"}]}
    request = read(json.dumps(body).encode())
    assert isinstance(request, ChatRequest)
    replicas: Any = Replicas(broken)
    return asyncio.run(Answers(replicas, None, {}).begun(Asked(request, None, ROUTE)))


def test_another_replica_answers_where_a_connection_broke_before_the_first_piece() -> None:
    _, found = begun(broken=1)

    assert isinstance(found, Begun)
    assert found.first == Delta(0, "1911", finish="stop")


def test_where_it_breaks_again_the_client_is_told_to_come_again_and_nothing_of_the_machine() -> None:
    _, found = begun(broken=2)

    assert found == failure(RpcError())
    assert isinstance(found, Refusal)
    assert (found.status, found.code, found.retry_after_s) == (503, "replica_gone", 1)
    assert "192.0.2.7" not in found.message
