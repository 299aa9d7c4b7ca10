"""Every reply that was paid for, on disk before it is used.

SQLite in WAL mode: several processes may read and write. A reply is keyed by what was asked (model, messages,
parameters, repeat number), so a run that died asks only for what is missing. Failures are not replies and are
never stored. Dollars are kept with the run that paid them, which is what a resumed budget starts from.
"""

import sqlite3
import time
from pathlib import Path

from mlflow_llamaduo.service_llm.exchange import Failure, Reply

SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,
    run TEXT NOT NULL,
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    text TEXT NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    usd REAL NOT NULL,
    cut INTEGER NOT NULL,
    created REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS replies_by_run ON replies (run);
CREATE TABLE IF NOT EXISTS losses (
    run TEXT NOT NULL,
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    reason TEXT NOT NULL,
    usd REAL NOT NULL,
    created REAL NOT NULL
);
"""


class ReplyStore:
    """A file of replies. `:memory:` is for tests."""

    def __init__(self, path: Path | str) -> None:
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.executescript(SCHEMA)

    def get(self, key: str) -> Reply | None:
        """The reply to a request that was made before, or None."""
        row = self._connection.execute(
            "SELECT text, input_tokens, output_tokens, usd, cut FROM replies WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        text, input_tokens, output_tokens, usd, cut = row
        return Reply(text, input_tokens, output_tokens, usd, bool(cut))

    def put(self, key: str, reply: Reply, *, run: str, stage: str, model: str) -> None:
        """Keep a reply; the first one under a key stays."""
        self._connection.execute(
            "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                run,
                stage,
                model,
                reply.text,
                reply.input_tokens,
                reply.output_tokens,
                reply.usd,
                reply.cut,
                time.time(),
            ),
        )

    def lose(self, failure: Failure, *, run: str, stage: str, model: str) -> None:
        """Keep what a failure cost."""
        self._connection.execute(
            "INSERT INTO losses VALUES (?, ?, ?, ?, ?, ?)",
            (run, stage, model, failure.reason, failure.usd, time.time()),
        )

    def spent_usd(self, run: str, stage: str | None = None) -> float:
        """Dollars that a run, or one stage of it, has paid so far, in all its lives."""
        (total,) = self._connection.execute(
            "SELECT COALESCE(SUM(usd), 0) FROM "
            "(SELECT run, stage, usd FROM replies UNION ALL SELECT run, stage, usd FROM losses) "
            "WHERE run = ? AND (? IS NULL OR stage = ?)",
            (run, stage, stage),
        ).fetchone()
        return float(total)

    def count(self, run: str) -> int:
        """Replies that a run has paid for."""
        (total,) = self._connection.execute("SELECT COUNT(*) FROM replies WHERE run = ?", (run,)).fetchone()
        return int(total)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
