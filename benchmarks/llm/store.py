"""Stored replies a second."""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.llm.common import (
    FILE,
    NOBODY,
    TEXT,
    Sizes,
    client,
    fresh,
    must,
    request,
    tell,
)
from benchmarks.row import Row, of_turns, shown
from mlflow_llamaduo.service_llm.client import Reply, ServiceLLM

TURNS = 3


def store(sizes: Sizes) -> Iterator[Row]:
    """Hits a second, in random order, in a small store and in a large one."""
    tell("store, hits a second", "client", "dict and key", "get", "bare SQLite", "fill")
    for entries in sizes.entries:
        hits, fill_s = fresh(_hits, entries, min(entries, sizes.hits))
        tell(f"{entries:,} entries", *(f"{median(hit):,.0f}" for hit in hits), shown(fill_s, "s"))
        client, table, get, bare = hits
        unit, what = "a second", f"stored replies out of {entries:,}"
        yield of_turns(f"{what}, client", unit, client, limit=("dict and key", table))
        yield of_turns(f"{what}, store alone", unit, get, limit=("bare SQLite", bare))


def _hits(entries: int, asked: int) -> tuple[list[tuple[float, ...]], float]:
    """Hits a second of client, dict, `get` and SQLite by turns; and the seconds that it took to fill the store."""
    with TemporaryDirectory() as folder, client(NOBODY, file=(file := Path(folder) / FILE)) as llm:
        began = time.perf_counter()
        keys = _filled(llm, file, entries)
        seconds = time.perf_counter() - began
        chosen = random.Random(0).sample(range(entries), asked)  # noqa: S311
        requests = [request(i) for i in chosen]
        table = dict.fromkeys(keys, TEXT)
        with closing(sqlite3.connect(file)) as bare:
            query = "SELECT text FROM replies WHERE key = ?"
            ways: tuple[Callable[[], int], ...] = (
                lambda: sum(isinstance(answer, Reply) for _, answer in llm.complete_many(requests)),
                lambda: sum(table[llm.key(request)] == TEXT for request in requests),
                lambda: sum(llm.store.get(keys[i]) is not None for i in chosen),
                lambda: sum(bare.execute(query, (keys[i],)).fetchone()[0] == TEXT for i in chosen),
            )
            turns = [[_a_second(way, asked) for way in ways] for _ in range(TURNS)]
        must(llm.meter.calls == 0, "a stored reply was asked for again")
    return list(zip(*turns, strict=True)), seconds


def _a_second(way: Callable[[], int], asked: int) -> float:
    began = time.perf_counter()
    found = way()
    seconds = time.perf_counter() - began
    must(found == asked, f"{asked - found} of {asked} stored replies were not found")
    return asked / seconds


def _filled(llm: ServiceLLM, file: Path, entries: int) -> list[str]:
    """Keys of so many replies that are now in the store, inserted in the order of keys, which is the fastest."""
    keys = [llm.key(request(i)) for i in range(entries)]
    insert = f"INSERT INTO replies VALUES ({', '.join('?' * 11)})"  # noqa: S608 - a constant
    rest = (llm.purpose.run, llm.purpose.stage, llm.model, TEXT, 100, 20, 0.0, 0, time.time(), 1.0)
    with closing(sqlite3.connect(file)) as filling:
        ordered = sorted(keys)
        for first in range(0, entries, 50_000):
            rows = ((key, *rest) for key in ordered[first : first + 50_000])
            with filling:
                filling.executemany(insert, rows)
        filling.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return keys
