"""The batch APIs of OpenAI and Anthropic, as far as they are needed: submit, find again, look, fetch.

OpenAI's is litellm's. litellm 1.106 cannot create or list Anthropic's batches (`Batch creation not yet implemented`),
so these are four plain requests; what is in them is litellm's translation of the request all the same.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import httpx
import litellm
import openai
from litellm.types.utils import CallTypes
from litellm.utils import return_raw_request

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.errors import ConfigError, StageError
from mlflow_llamaduo.service_llm import call
from mlflow_llamaduo.service_llm.exchange import Failure, Reply, Request
from mlflow_llamaduo.service_llm.replies import whole
from mlflow_llamaduo.service_llm.store import Batch
from mlflow_llamaduo.service_llm.terms import BATCH_DISCOUNT, BATCH_PROVIDERS, Terms

TRANSIENT = (
    openai.APIConnectionError,
    openai.InternalServerError,
    openai.RateLimitError,
    httpx.TransportError,
    ConnectionError,
)
MARK = "llamaduo_batch"
"""The metadata key by which a batch of OpenAI's is known again."""
LISTED = 100
"""How many of the latest batches are looked through for one whose submission was not seen to end."""
CLOCKS_S = 300.0
"""By how much the provider's clock may be behind ours."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a batch stands: requests that have ended of all; over when there is nothing to wait for."""

    over: bool
    ended: int
    total: int


class BatchApi(Protocol):
    """One provider's batches. `remote` is its name for one."""

    async def submit(self, batch: Batch, requests: Sequence[Request]) -> str:
        """Hand the requests in, by the batch's keys; returns the remote name."""

    async def find(self, batch: Batch) -> str | None:
        """The remote name of a batch that may have been submitted before; None if it was not."""

    async def look(self, remote: str) -> Progress:
        """How far it is."""

    async def fetch(self, remote: str) -> dict[str, Reply | Failure]:
        """What came of each request, by key."""


def batch_api(terms: Terms, llm: ServiceModel) -> BatchApi:
    """The batch API of a model's provider.

    Raises:
        ConfigError: it has none that we know.
    """
    if terms.provider == "openai":
        return OpenAIBatches(terms, llm)
    if terms.provider == "anthropic":
        return AnthropicBatches(terms, llm)
    raise ConfigError(
        f"{terms.name}: batch is for {' and '.join(BATCH_PROVIDERS)}; set batch to false for this model"
    )


class OpenAIBatches:
    """https://platform.openai.com/docs/guides/batch, and servers that have the same."""

    def __init__(self, terms: Terms, llm: ServiceModel) -> None:
        self._terms = terms
        self._llm = llm

    async def submit(self, batch: Batch, requests: Sequence[Request]) -> str:
        """Upload the requests as a file, and make a batch of it."""
        lines = (
            json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body})
            for key, (body, _) in zip(batch.keys, _bodies(self._terms, self._llm, requests), strict=True)
        )
        file = await litellm.acreate_file(
            file=("requests.jsonl", "\n".join(lines).encode()), purpose="batch", **self._server
        )
        made = await litellm.acreate_batch(
            completion_window="24h",
            endpoint="/v1/chat/completions",
            input_file_id=file.id,
            metadata={MARK: batch.id},
            **self._server,
        )
        return str(made.id)

    async def find(self, batch: Batch) -> str | None:
        """By the mark in its metadata."""
        listed = await litellm.alist_batches(limit=LISTED, **self._server)
        return next((str(b.id) for b in listed.data if (b.metadata or {}).get(MARK) == batch.id), None)

    async def look(self, remote: str) -> Progress:
        """How far it is."""
        batch = await litellm.aretrieve_batch(remote, **self._server)
        counts = batch.request_counts
        over = batch.status in ("completed", "failed", "expired", "cancelled")
        return Progress(over, (counts.completed + counts.failed) if counts else 0, counts.total if counts else 0)

    async def fetch(self, remote: str) -> dict[str, Reply | Failure]:
        """Out of the file of answers and the file of errors."""
        batch = await litellm.aretrieve_batch(remote, **self._server)
        answers: dict[str, Reply | Failure] = {}
        for file in (batch.error_file_id, batch.output_file_id):
            if file:
                content = await litellm.afile_content(file, **self._server)
                answers |= {row["custom_id"]: self._answer(row) for row in _rows(content.text)}
        if not answers and batch.errors:
            reasons = "; ".join(str(error.message) for error in batch.errors.data or [])
            raise StageError(
                f"{self._terms.name} did not take the batch {remote}: {call.redacted(reasons, self._llm)}"
            )
        return answers

    def _answer(self, row: dict[str, Any]) -> Reply | Failure:
        response = row.get("response") or {}
        if response.get("status_code") != 200:
            return Failure(call.redacted(json.dumps(row.get("error") or response.get("body")), self._llm))
        return call.read(litellm.ModelResponse(**response["body"]), self._terms, price=BATCH_DISCOUNT)

    @property
    def _server(self) -> dict[str, Any]:
        return {
            "custom_llm_provider": "openai",
            "api_base": self._llm.api_base,
            "api_key": call.api_key(self._terms, self._llm),
            "timeout": self._llm.timeout_s,
            "max_retries": 0,  # OpenAI's library would submit again without looking whether it had
        }


class AnthropicBatches:
    """https://platform.claude.com/docs/en/build-with-claude/batch-processing."""

    def __init__(self, terms: Terms, llm: ServiceModel) -> None:
        self._terms = terms
        self._llm = llm

    async def submit(self, batch: Batch, requests: Sequence[Request]) -> str:
        """All requests in one body."""
        rows, betas = [], set()
        for key, (body, headers) in zip(batch.keys, _bodies(self._terms, self._llm, requests), strict=True):
            rows.append({"custom_id": key, "params": body})
            betas.add(headers.get("anthropic-beta", ""))
        extra = {"anthropic-beta": ",".join(sorted(betas - {""}))} if betas - {""} else {}
        made = await self._call("POST", "", json={"requests": rows}, headers=extra)
        return str(made.json()["id"])

    async def find(self, batch: Batch) -> str | None:
        """By time and number of requests: Anthropic's batches carry no mark of ours.

        Raises:
            StageError: more than one could be it.
        """
        listed = (await self._call("GET", f"?limit={LISTED}")).json()["data"]
        likely = [
            str(row["id"])
            for row in listed
            if datetime.fromisoformat(row["created_at"]).timestamp() > batch.created - CLOCKS_S
            and sum(row["request_counts"].values()) == len(batch.keys)
        ]
        if len(likely) > 1:
            raise StageError(
                f"a batch of {len(batch.keys)} requests was being submitted when the process ended, and it may be "
                f"any of {', '.join(likely)}: cancel those that you do not know, and run the same command again"
            )
        return likely[0] if likely else None

    async def look(self, remote: str) -> Progress:
        """How far it is."""
        row = (await self._call("GET", f"/{remote}")).json()
        counts = row["request_counts"]
        return Progress(
            row["processing_status"] == "ended", sum(counts.values()) - counts["processing"], sum(counts.values())
        )

    async def fetch(self, remote: str) -> dict[str, Reply | Failure]:
        """Out of the results, one a line."""
        content = await self._call("GET", f"/{remote}/results")
        return {row["custom_id"]: self._answer(row["result"]) for row in _rows(content.text)}

    def _answer(self, result: dict[str, Any]) -> Reply | Failure:
        if result["type"] != "succeeded":
            reason = result.get("error") or f"the request was {result['type']}"
            return Failure(call.redacted(reason if isinstance(reason, str) else json.dumps(reason), self._llm))
        message = result["message"]
        usage = message["usage"]
        cached = usage.get("cache_read_input_tokens") or 0
        read = usage["input_tokens"] + cached + (usage.get("cache_creation_input_tokens") or 0)
        usd = BATCH_DISCOUNT * self._terms.usd(read, usage["output_tokens"], cached)
        text = "".join(block.get("text") or _tool(block) for block in message["content"])
        if message.get("stop_reason") == "refusal":
            return Failure("the provider refused to answer (refusal)", usd)
        if not text:
            return Failure("the reply is empty", usd)
        return Reply(whole(text), read, usage["output_tokens"], usd, cut=message.get("stop_reason") == "max_tokens")

    async def _call(self, method: str, path: str, *, headers: dict[str, str] | None = None, **body: Any) -> Any:
        base = (self._llm.api_base or "https://api.anthropic.com").rstrip("/").removesuffix("/v1")
        key = call.api_key(self._terms, self._llm) or os.environ.get("ANTHROPIC_API_KEY", "")
        async with httpx.AsyncClient(timeout=self._llm.timeout_s) as client:
            answer = await client.request(
                method,
                f"{base}/v1/messages/batches{path}",
                headers={"x-api-key": key, "anthropic-version": "2023-06-01", **(headers or {})},
                **body,
            )
        if answer.status_code in (408, 429) or answer.status_code >= 500:
            raise ConnectionError(call.redacted(f"{answer.status_code}: {answer.text}", self._llm))
        if answer.status_code >= 400:
            raise call.unusable(self._terms, call.redacted(f"{answer.status_code}: {answer.text}", self._llm))
        return answer


def _bodies(
    terms: Terms, llm: ServiceModel, requests: Sequence[Request]
) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """What litellm would send for each request: body and headers."""
    for request in requests:
        asked = {
            "model": terms.name,
            "messages": [dict(message) for message in request.messages],
            **call.parameters(terms, llm, request),
        }
        raw = return_raw_request(endpoint=CallTypes.completion, kwargs=asked)
        if raw.get("error"):
            raise StageError(f"litellm cannot write a request for {terms.name}: {raw['error']}")
        body = {name: value for name, value in raw["raw_request_body"].items() if name != "extra_body"}
        yield body, raw.get("raw_request_headers") or {}


def _rows(text: str) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in text.splitlines() if line.strip())


def _tool(block: dict[str, Any]) -> str:
    """Older Claude models give structured replies as the input of a tool."""
    return json.dumps(block["input"]) if block.get("type") == "tool_use" else ""
