"""`llamaduo doctor`: can each configured service LLM be asked, and on what terms?"""

import asyncio
import time
from dataclasses import dataclass, replace

from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.preflight import missing
from mlflow_llamaduo.service_llm import call
from mlflow_llamaduo.service_llm.exchange import Failure, Purpose, Reply, Request
from mlflow_llamaduo.service_llm.rate import Limits
from mlflow_llamaduo.service_llm.replies import last_object
from mlflow_llamaduo.service_llm.store import ReplyStore
from mlflow_llamaduo.service_llm.terms import Terms, terms

PURPOSE = Purpose("doctor", "doctor")
TOKENS = 512
"""Enough for a model that thinks before it says one word."""
QUESTION = Request(
    (
        {"role": "system", "content": 'Reply with the JSON object {"ok": true} and nothing else.'},
        {
            "role": "user",
            "content": '{"task": "closed_qa", "instruction": "x", "reference": "x", "response": "x", "count": 1}',
        },
    ),
    {
        "name": "check",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
            "additionalProperties": False,
        },
    },
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer about a model; `good` is None for what is only told."""

    what: str
    good: bool | None
    detail: str


def examine(llm: ServiceModel, store: ReplyStore) -> list[Finding]:
    """Ask a model one short question (two if it refuses the JSON schema), and say what came of it.

    What the questions cost is kept in the store under the run `doctor`.
    """
    if problems := missing(llm):
        return [Finding("configuration", False, problem) for problem in problems]
    known = terms(llm)
    findings = [
        Finding(
            "price", True, f"{known.input_usd:g} / {known.output_usd:g} dollars per million tokens ({known.source})"
        )
    ]
    short = llm.model_copy(update={"max_tokens": TOKENS})
    try:
        answer, found, seconds = _ask(known, short, store)
    except ConfigError as error:
        return [*findings, Finding("key", False, str(error))]
    schema = Finding("JSON schema", None, "not used: the prompt asks for JSON, and the reply is read tolerantly")
    if isinstance(answer, Failure) and known.json_schema:
        refusal = answer.reason
        answer, found, seconds = _ask(replace(known, json_schema=False), short, store)
        schema = Finding("JSON schema", False, f"refused, set json_schema: false ({refusal})")
    elif known.json_schema and isinstance(answer, Reply):
        good = last_object(answer.text, having="ok") is not None
        schema = Finding("JSON schema", good, "followed" if good else f"not followed: {answer.text[:60]!r}")
    if not isinstance(answer, Reply):
        return [*findings, Finding("reachable", False, answer.reason)]
    return [
        *findings,
        Finding("reachable", True, f"in {seconds:.1f} s"),
        Finding("key", True, _key(llm, known)),
        schema,
        Finding("limits", None, _limits(known, found)),
    ]


def _ask(known: Terms, llm: ServiceModel, store: ReplyStore) -> tuple[Reply | Failure | call.Passing, Limits, float]:
    began = time.monotonic()
    answer, found = asyncio.run(call.ask(known, llm, QUESTION))
    if not isinstance(answer, call.Passing):
        with store.writing():
            store.lose(Failure("asked by doctor", answer.usd), model=known.name, purpose=PURPOSE)
    return answer, found, time.monotonic() - began


def _key(llm: ServiceModel, known: Terms) -> str:
    if known.offline:
        return "none needed"
    if llm.api_key_env:
        return f"accepted (${llm.api_key_env})"
    return "none sent" if llm.api_base else "accepted (the provider's own environment variable)"


def _limits(known: Terms, found: Limits) -> str:
    told = [
        f"{known.rpm or 'any number of'} requests and {known.tpm or 'any number of'} tokens a minute, as configured"
    ]
    if found.requests_limit is not None or found.tokens_limit is not None:
        requests = "?" if found.requests_limit is None else f"{found.requests_limit:g}"
        tokens = "?" if found.tokens_limit is None else f"{found.tokens_limit:g}"
        told.append(f"the server says {requests} requests and {tokens} tokens")
    return "; ".join(told)
