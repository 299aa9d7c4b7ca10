"""What becomes of requests when the server breaks in five ways."""

import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import peers
from benchmarks.llm.common import FAULTS, FILE, TIMEOUT_S, Sizes, asked_by_gather, client, fresh, must, request, tell
from benchmarks.openai_server import running
from benchmarks.row import Row, of_count, shown
from mlflow_llamaduo.service_llm.client import Reply


def faults(sizes: Sizes) -> Iterator[Row]:
    """Ours and gather, each on a new server that breaks in every way."""
    tell("faults", "answered", "lost", "paid twice", "time", "in the store", "dollars lost")
    options = {**FAULTS, "hang": sizes.hang_s, "latency": (0.02, 0.2)}
    with running(**options) as server:
        ours, kept, lost_usd = fresh(_survived, server.url, sizes.faulty)
        twice = server.stats()["paid_twice"]
    tell("ours", *map(str, (ours.answered, ours.lost, twice)), shown(ours.seconds, "s"), f"{kept}", f"{lost_usd:.4f}")
    must(kept == ours.answered, f"{ours.answered} replies were handed out and {kept} are in the store")
    must(not twice, f"{twice} requests were answered twice")
    with running(**options) as server:
        peer = fresh(asked_by_gather, server.url, sizes.faulty)
        peer_twice = server.stats()["paid_twice"]
    tell("gather", *map(str, (peer.answered, peer.lost, peer_twice)), shown(peer.seconds, "s"), "-", "-")
    what = f"{sizes.faulty:,} requests, 13 % faults"
    lost, paid = of_count(ours.lost, sizes.faulty), of_count(twice, sizes.faulty)
    yield Row(f"{what}: lost", ours.lost, "requests", "LiteLLM gather", peer.lost, "none", 0, lost)
    yield Row(f"{what}: paid twice", twice, "requests", "LiteLLM gather", peer_twice, "none", 0, paid)
    yield Row(f"{what}: time", ours.seconds, "s", "LiteLLM gather", peer.seconds)


def _survived(url: str, requests: int) -> tuple[peers.Outcome, int, float]:
    """The outcome, replies in the store, and dollars without a reply; all sums must agree."""
    began = time.perf_counter()
    with TemporaryDirectory() as folder, client(url, file=Path(folder) / FILE, timeout_s=TIMEOUT_S) as llm:
        answers = sorted(llm.complete_many(map(request, range(requests))), key=lambda answer: answer[0])
        seconds = time.perf_counter() - began
        must([i for i, _ in answers] == list(range(requests)), f"{requests} requests got {len(answers)} answers")
        replies = [answer for _, answer in answers if isinstance(answer, Reply)]
        outcome = peers.Outcome(len(replies), requests - len(replies), seconds)
        must((llm.meter.replies, llm.meter.failed) == (outcome.answered, outcome.lost), "the meter counted others")
        lost_usd = llm.spent_usd - sum(reply.usd for reply in replies)
        must(math.isclose(lost_usd, _losses(Path(folder) / FILE), abs_tol=1e-9), "spent is not replies and losses")
        must(math.isclose(llm.spent_usd, llm.meter.usd, rel_tol=1e-9), "store and meter disagree on what was spent")
        must(not llm.store.held(), "dollars are still set aside for calls that have ended")
        return outcome, llm.store.count(llm.purpose.run), lost_usd


def _losses(file: Path) -> float:
    with closing(sqlite3.connect(file)) as kept:
        return float(kept.execute("SELECT COALESCE(SUM(usd), 0) FROM losses").fetchone()[0])
