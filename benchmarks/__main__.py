"""`make bench`: every benchmark of this folder, its figures into benchmarks/README.md."""

import datetime
import os
import platform
from pathlib import Path

from benchmarks import curate, service_llm, startup
from benchmarks.row import COLUMNS, table_line

BENCHMARKS = (startup, service_llm, curate)
HEAD = """# Benchmarks

Written by `make bench`. A ratio is the figure over the peer's or the limit's, measured in the same run: compare
ratios between machines and days, not seconds.

"""


def main() -> None:
    """Run all, print the table, and write it."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"{machine}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "",
        table_line(*COLUMNS),
        table_line(*("---" for _ in COLUMNS)),
    ]
    for benchmark in BENCHMARKS:
        lines += [str(row) for row in benchmark.measure()]
    table = "\n".join(lines) + "\n"
    print(table)
    (Path(__file__).parent / "README.md").write_text(HEAD + table)


if __name__ == "__main__":
    main()
