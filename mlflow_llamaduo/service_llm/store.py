"""Every reply that was paid for, on disk before it is used, and every dollar with the run that paid it.

SQLite in WAL mode: several processes may read and write. A reply is keyed by what was asked (model, messages,
parameters, repeat number), so a run that died asks only for what is missing. Failures are not replies and are never
stored as such.

    replies   what was answered, by key
    losses    dollars gone without a reply: empty replies, calls that may have been billed
    holds     dollars set aside for calls that are open, by the process that made them
    work      seconds and dollars of our own machines
    spent     the sums over replies, losses and work, by run and stage
    batches   what was submitted to a batch API, and whether its replies are in
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Self

from mlflow_llamaduo.core.ledger import Entry, Ledger, taken_apart
from mlflow_llamaduo.files import working_folder
from mlflow_llamaduo.service_llm.exchange import Failure, Purpose, Reply
from mlflow_llamaduo.service_llm.owner import alive, owner
from mlflow_llamaduo.service_llm.store_file import connect, prepare

REPLIES = working_folder() / "replies.sqlite"
"""The store of a working folder."""
HELD = "SELECT run, most_usd AS usd FROM holds UNION ALL SELECT run, most_usd FROM batches"
OPEN = "open when the process ended; it may have been billed"
LEDGER = """
SELECT stage, SUM(usd), SUM(seconds), SUM(calls), SUM(input_tokens), SUM(output_tokens) FROM (
    SELECT run, stage, usd, seconds, 1 AS calls, input_tokens, output_tokens FROM replies
    UNION ALL SELECT run, stage, usd, 0, 0, 0, 0 FROM losses
    UNION ALL SELECT run, stage, usd, seconds, 0, 0, 0 FROM work
) WHERE run = ? GROUP BY stage ORDER BY stage
"""


@dataclass(frozen=True, slots=True)
class Typical:
    """Means over a model's latest replies: tokens read and written, seconds a call."""

    replies: int
    input_tokens: float
    output_tokens: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that go to a provider together. `id` is ours; `remote` is the provider's, once it is known."""

    id: str
    keys: tuple[str, ...]
    most_usd: float
    created: float
    remote: str | None = None


class ReplyStore:
    """A file of replies and dollars. `:memory:` is for tests.

    Any number of threads may share it: reading and writing have a connection each, and one thread writes at a time.
    What writes (`put`, `lose`, `hold`, ...) is called within `writing()`, which is one transaction.
    """

    def __init__(self, path: Path | str) -> None:
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._owner = owner()
        self._turn = Lock()
        self._writer = connect(path)
        self._reader = self._writer if path == ":memory:" else connect(path)
        with self.writing():
            prepare(self._writer, path)
            self._bury()

    # Replies

    def get(self, key: str) -> Reply | None:
        """The reply to a request that was made before, or None."""
        row = self._reader.execute(
            "SELECT text, input_tokens, output_tokens, usd, cut, seconds FROM replies WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else Reply(row[0], row[1], row[2], row[3], bool(row[4]), row[5])

    def put(self, key: str, reply: Reply, *, model: str, purpose: Purpose, hold: int | None = None) -> None:
        """Keep a reply, and free what was held for it; the first reply under a key stays.

        A second one (two processes asked the same) was paid for too: its dollars are kept as lost.
        """
        values = (key, purpose.run, purpose.stage, model, reply.text, reply.input_tokens, reply.output_tokens)
        written = self._writer.execute(
            "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, reply.usd, reply.cut, time.time(), reply.seconds),
        )
        if written.rowcount:
            self._pay(purpose, reply.usd)
            self.release(hold)
        else:
            self.lose(Failure("answered twice", reply.usd), model=model, purpose=purpose, hold=hold)

    def lose(self, failure: Failure, *, model: str, purpose: Purpose, hold: int | None = None) -> None:
        """Keep what a call without a reply cost, and free what was held for it."""
        if failure.usd:
            self._writer.execute(
                "INSERT INTO losses VALUES (?, ?, ?, ?, ?, ?)",
                (purpose.run, purpose.stage, model, failure.reason, failure.usd, time.time()),
            )
            self._pay(purpose, failure.usd)
        self.release(hold)

    def worked(self, seconds: float, usd: float, *, machine: str, purpose: Purpose, hold: int | None = None) -> None:
        """Keep what a stage has taken of our own machines; so much less is held for it."""
        self._writer.execute(
            "INSERT INTO work VALUES (?, ?, ?, ?, ?, ?)",
            (purpose.run, purpose.stage, machine, seconds, usd, time.time()),
        )
        self._pay(purpose, usd)
        self._writer.execute("UPDATE holds SET most_usd = MAX(0, most_usd - ?) WHERE id = ?", (usd, hold))

    def ledger(self, run: str) -> Ledger:
        """What each stage of each round and baseline of a run has cost so far, in all its lives."""
        rows = self._reader.execute(LEDGER, (run,)).fetchall()
        return tuple(Entry(*taken_apart(stage), *sums) for stage, *sums in rows)

    def count(self, run: str) -> int:
        """Replies that a run has paid for."""
        (total,) = self._reader.execute("SELECT COUNT(*) FROM replies WHERE run = ?", (run,)).fetchone()
        return int(total)

    def typical(self, model: str, stage: str, latest: int = 1000) -> Typical | None:
        """Means over a model's latest replies in a stage (`judge`), of whichever round; None if there are none."""
        row = self._reader.execute(
            "SELECT COUNT(*), AVG(input_tokens), AVG(output_tokens), AVG(NULLIF(seconds, 0)) FROM (SELECT * FROM "
            "replies WHERE model = ? AND stage LIKE '%' || ? ORDER BY created DESC LIMIT ?)",
            (model, stage, latest),
        ).fetchone()
        return Typical(row[0], row[1], row[2], row[3] or 0.0) if row[0] else None

    # Dollars

    def spent_usd(self, run: str | None = None, stage: str | None = None) -> float:
        """Dollars that a run, or one stage of it, has paid so far in all its lives; without a run, all of them."""
        return _spent(self._reader, run, stage)

    def hold(self, most_usd: float, *, model: str, purpose: Purpose, cap_usd: float, folder_usd: float) -> int | None:
        """Set dollars aside for a call, if run and folder stay within their caps; None if they would not."""
        if most_usd > self._free(purpose.run, cap_usd, folder_usd):
            return None
        return self._writer.execute(
            "INSERT INTO holds VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",
            (self._owner, purpose.run, purpose.stage, model, most_usd, 0.0, time.time()),
        ).lastrowid

    def sent(self, hold: int, likely_usd: float) -> None:
        """A call that dollars are set aside for has gone out: from now on it may be billed."""
        self._writer.execute("UPDATE holds SET likely_usd = ? WHERE id = ?", (likely_usd, hold))

    def release(self, *holds: int | None) -> None:
        """Free what was held for calls."""
        self._writer.executemany("DELETE FROM holds WHERE id = ?", [(hold,) for hold in holds if hold is not None])

    def held(self) -> int:
        """Calls of living processes that dollars are set aside for; a batch takes too long to wait for."""
        self._bury()
        (total,) = self._writer.execute("SELECT COUNT(*) FROM holds").fetchone()
        return int(total)

    def batched_usd(self) -> float:
        """Dollars that are set aside for batches."""
        (total,) = self._reader.execute("SELECT COALESCE(SUM(most_usd), 0) FROM batches").fetchone()
        return float(total)

    def _free(self, run: str, cap_usd: float, folder_usd: float) -> float:
        held, held_by_run = self._writer.execute(
            f"SELECT COALESCE(SUM(usd), 0), COALESCE(SUM(CASE WHEN run = ? THEN usd END), 0) FROM ({HELD})",  # noqa: S608
            (run,),
        ).fetchone()
        own, all_ = _spent(self._writer, run) + held_by_run, _spent(self._writer) + held
        return float(min(cap_usd - own, folder_usd - all_))

    def _pay(self, purpose: Purpose, usd: float) -> None:
        self._writer.execute(
            "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET usd = usd + excluded.usd",
            (purpose.run, purpose.stage, usd),
        )

    def _bury(self) -> None:
        """Calls that were open when their process died may have been billed: their likely cost is lost."""
        for hold, holder, run, stage, model, likely, created in self._writer.execute(
            "SELECT id, owner, run, stage, model, likely_usd, created FROM holds"
        ).fetchall():
            if not alive(holder, created):
                self.lose(Failure(OPEN, likely), model=model, purpose=Purpose(run, stage), hold=hold)

    # Batches

    def open_batch(self, batch: Batch, *, model: str, purpose: Purpose, cap_usd: float, folder_usd: float) -> bool:
        """Keep that a batch is about to be submitted, its dollars set aside; False if they would pass a cap."""
        if batch.most_usd > self._free(purpose.run, cap_usd, folder_usd):
            return False
        self._writer.execute(
            "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                batch.id,
                purpose.run,
                purpose.stage,
                model,
                json.dumps(batch.keys),
                None,
                batch.most_usd,
                batch.created,
            ),
        )
        return True

    def submitted(self, batch: str, remote: str) -> None:
        """Keep the provider's name of a batch."""
        self._writer.execute("UPDATE batches SET remote = ? WHERE id = ?", (remote, batch))

    def close_batch(self, batch: str) -> None:
        """Forget a batch whose replies are all kept, and what was set aside for it."""
        self._writer.execute("DELETE FROM batches WHERE id = ?", (batch,))

    def batches(self, model: str, run: str) -> list[Batch]:
        """Batches of a run that are not closed, the oldest first."""
        rows = self._reader.execute(
            "SELECT id, keys, most_usd, created, remote FROM batches WHERE model = ? AND run = ? ORDER BY created",
            (model, run),
        ).fetchall()
        return [
            Batch(id_, tuple(json.loads(keys)), most, created, remote) for id_, keys, most, created, remote in rows
        ]

    def close(self) -> None:
        """Close the file; calls of this process that are still open become losses."""
        with self.writing():
            for hold, run, stage, model, likely in self._writer.execute(
                "SELECT id, run, stage, model, likely_usd FROM holds WHERE owner = ?", (self._owner,)
            ).fetchall():
                self.lose(Failure(OPEN, likely), model=model, purpose=Purpose(run, stage), hold=hold)
        self._reader.close()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction for all writing in the block; another thread's block waits for it."""
        with self._turn:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")


def _spent(connection: sqlite3.Connection, run: str | None = None, stage: str | None = None) -> float:
    (total,) = connection.execute(
        "SELECT COALESCE(SUM(usd), 0) FROM spent WHERE (?1 IS NULL OR run = ?1) AND (?2 IS NULL OR stage = ?2)",
        (run, stage),
    ).fetchone()
    return float(total)
