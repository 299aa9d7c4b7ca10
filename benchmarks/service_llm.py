"""The service LLM client against what people write instead, and against what the machine allows.

    rate      Calls a minute against a server that allows so many (in every second, as providers do) and takes 0.3 to
              3 s a call: ours; `asyncio.gather` over LiteLLM with its retries; LiteLLM's Router, told the limit. The
              limit is the allowed rate. Ours also with the limit unknown, and configured twice too high.
    faults    Refusals, server errors, dropped connections, half replies and hangs: every request must end as a reply
              or a counted failure, and every dollar must be found again. The peer is gather on the same server.
    overhead  Time a call when the server takes none: ours (store on disk, dollars set aside) and bare LiteLLM with as
              many workers, in alternating blocks so that a busy moment hits both; bare aiohttp is the limit. The
              client also collects garbage more rarely, so LiteLLM is measured with that too. Memory: what a long
              stream of requests leaves behind.
    store     Replies a second that were there before: through the client, and the store's `get` alone. The limits are
              a Python dict after the same computation of keys, and a bare SQLite query on the same file.
    budget    Random prices, caps, usage, concurrency and faults: no run may pass its cap. The peer is LiteLLM's
              `max_budget`.

Every contender has a process of its own, and the server too. A wrong result (a lost request, a passed cap) ends the
benchmark; a slow one is only reported.

    python -m benchmarks.service_llm [rate] [faults] [overhead] [store] [budget] [--quick]
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmarks.llm.budget import budget
from benchmarks.llm.common import (
    FULL,
    QUICK,
    Sizes,
)
from benchmarks.llm.faults import faults
from benchmarks.llm.overhead import overhead
from benchmarks.llm.rate import rate
from benchmarks.llm.store import store
from benchmarks.row import COLUMNS, Row, table_line

PARTS: Mapping[str, Callable[[Sizes], Iterator[Row]]] = {
    "rate": rate,
    "faults": faults,
    "overhead": overhead,
    "store": store,
    "budget": budget,
}


def measure(sizes: Sizes = FULL, parts: Sequence[str] = tuple(PARTS)) -> Iterator[Row]:
    """All rows of some parts; each part prints its own table as it goes."""
    for part in parts:
        yield from PARTS[part](sizes)
        print(flush=True)


def main() -> None:
    """Measure the parts that the command line names, or all."""
    parser = argparse.ArgumentParser(description="The service LLM client against its peers and limits.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes, to see that all works: about three minutes; rates are not steady so soon",
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    rows = list(measure(QUICK if options.quick else FULL, options.parts or tuple(PARTS)))
    print("\n".join([table_line(*COLUMNS), table_line(*("---" for _ in COLUMNS)), *map(str, rows)]))


if __name__ == "__main__":
    main()
