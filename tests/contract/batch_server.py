"""Test doubles of the two batch APIs over real HTTP: as much of them as a client can see."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.http_double import Listening, QuietHandler

Written = dict[str, str]


@dataclass
class Made:
    """A batch on the server: what was asked by custom id, and how often it was looked at."""

    id: str
    asked: dict[str, dict[str, Any]]
    metadata: dict[str, str] = field(default_factory=dict)
    looks: int = 0
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


class BatchServer(Listening):
    """Both APIs on one port; a batch is over when it has been looked at `patience` times.

    Args:
        reply: what the model writes, given the request's messages.
        patience: looks until a batch is over.
    """

    def __init__(self, reply: Callable[[list[dict[str, Any]]], str], patience: int = 1) -> None:
        self.reply = reply
        self.patience = patience
        self.made: list[Made] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[int] = []
        self.swallow_submission = False
        self.lost: dict[str, str] = {}
        self._files: dict[str, str] = {}
        outer = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                self._answer("GET", "")

            def do_POST(self) -> None:
                self._answer("POST", self.body().decode())

            def _answer(self, method: str, body: str) -> None:
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                if outer.faults:
                    status, answer = outer.faults.pop(0), '{"error": {"message": "not now"}}'
                else:
                    status, answer = 200, outer.route(method, self.path.partition("?")[0], body)
                if outer.swallow_submission and method == "POST" and self.path.rstrip("/").endswith("batches"):
                    outer.swallow_submission = False  # it has arrived, and nobody hears of it
                    self.close_connection = True
                    return
                self.reply(answer.encode(), status, content_type="application/json")

        super().__init__(Handler)

    def route(self, method: str, path: str, body: str) -> str:
        """The answer to one request."""
        parts = path.removeprefix("/v1/").split("/")
        if parts[0] == "files":
            return self._file(method, parts, body)
        if parts[:2] == ["messages", "batches"]:
            return self._anthropic(method, parts[2:], body)
        return self._openai(method, parts[1:], body)

    def _file(self, method: str, parts: list[str], body: str) -> str:
        if method == "GET":
            return self._files[parts[1]]
        name = f"file-{len(self._files)}"
        self._files[name] = body
        return json.dumps(
            {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "f", "purpose": "batch"}
            | {"status": "processed"}
        )

    def _openai(self, method: str, parts: list[str], body: str) -> str:
        if method == "POST":
            order = json.loads(body)
            lines = [
                line for line in self._files[order["input_file_id"]].splitlines() if line.startswith('{"custom_id"')
            ]
            asked = {row["custom_id"]: row["body"] for row in map(json.loads, lines)}
            self.made.append(Made(f"batch_{len(self.made)}", asked, order["metadata"]))
            return json.dumps(self._openai_batch(self.made[-1]))
        if not parts:
            rows = [self._openai_batch(batch) for batch in reversed(self.made)]
            return json.dumps({"object": "list", "data": rows, "has_more": False})
        batch = next(batch for batch in self.made if batch.id == parts[0])
        batch.looks += 1
        return json.dumps(self._openai_batch(batch))

    def _openai_batch(self, batch: Made) -> dict[str, Any]:
        over = batch.looks >= self.patience
        done = {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-0",
            "completion_window": "24h",
            "status": "completed" if over else "in_progress",
            "created_at": int(batch.created.timestamp()),
            "metadata": batch.metadata,
            "request_counts": {"total": len(batch.asked), "completed": len(batch.asked) if over else 0, "failed": 0},
        }
        if over:
            done |= {"output_file_id": f"out-{batch.id}", "error_file_id": f"err-{batch.id}"}
            rows = {key: self._openai_row(key, body) for key, body in batch.asked.items()}
            self._files[f"out-{batch.id}"] = "\n".join(
                row for key, row in reversed(rows.items()) if key not in self.lost
            )
            self._files[f"err-{batch.id}"] = "\n".join(rows[key] for key in rows if key in self.lost)
        return done

    def _openai_row(self, key: str, body: dict[str, Any]) -> str:
        if key in self.lost:
            return json.dumps({"custom_id": key, "response": None, "error": {"message": self.lost[key]}})
        message = {"role": "assistant", "content": self.reply(body["messages"])}
        completion = {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
        return json.dumps({"custom_id": key, "response": {"status_code": 200, "body": completion}, "error": None})

    def _anthropic(self, method: str, parts: list[str], body: str) -> str:
        if method == "POST":
            asked = {row["custom_id"]: row["params"] for row in json.loads(body)["requests"]}
            self.made.append(Made(f"msgbatch_{len(self.made)}", asked))
            return json.dumps(self._anthropic_batch(self.made[-1]))
        if not parts:
            return json.dumps({"data": [self._anthropic_batch(batch) for batch in self.made], "has_more": False})
        batch = next(batch for batch in self.made if batch.id == parts[0])
        if parts[1:] == ["results"]:
            return "\n".join(self._anthropic_row(key, params) for key, params in reversed(batch.asked.items()))
        batch.looks += 1
        return json.dumps(self._anthropic_batch(batch))

    def _anthropic_batch(self, batch: Made) -> dict[str, Any]:
        over, total = batch.looks >= self.patience, len(batch.asked)
        counts = {"processing": 0 if over else total, "succeeded": total if over else 0}
        return {
            "id": batch.id,
            "processing_status": "ended" if over else "in_progress",
            "created_at": batch.created.isoformat().replace("+00:00", "Z"),
            "request_counts": {**counts, "errored": 0, "canceled": 0, "expired": 0},
        }

    def _anthropic_row(self, key: str, params: dict[str, Any]) -> str:
        if key in self.lost:
            error = {"type": "error", "error": {"type": "invalid_request_error", "message": self.lost[key]}}
            return json.dumps({"custom_id": key, "result": {"type": "errored", "error": error}})
        message = {
            "content": [{"type": "text", "text": self.reply(params["messages"])}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 100, "output_tokens": 10},
        }
        return json.dumps({"custom_id": key, "result": {"type": "succeeded", "message": message}})
