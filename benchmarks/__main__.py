"""`make bench`: every benchmark of this folder, its figures into benchmarks/README.md.

`python -m benchmarks startup` runs one, and writes its part anew; the parts of the others stay as they are.
"""

import datetime
import os
import platform
import re
import sys
from pathlib import Path
from types import ModuleType

from benchmarks import curate, finetune, gate, inference, saturation, service_llm, serving, startup
from benchmarks.row import COLUMNS, table_line

BENCHMARKS: dict[str, ModuleType] = {
    "startup": startup,
    "service_llm": service_llm,
    "curate": curate,
    "gate": gate,
    "finetune": finetune,
    "inference": inference,
    "serving": serving,
    "saturation": saturation,
}
README = Path(__file__).parent / "README.md"
HEAD = """# Benchmarks

Written by `make bench`, a part alone by `python -m benchmarks <part>`. A ratio is the figure over the peer's or the
limit's, measured in the same run: compare ratios between machines and days, not seconds.
"""


def main() -> None:
    """Run those that are named, or all; print their tables, and write them."""
    names = sys.argv[1:] or list(BENCHMARKS)
    if unknown := set(names).difference(BENCHMARKS):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    parts = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL))
    for name in names:
        parts[name] = _part(BENCHMARKS[name])
        print(parts[name])
    kept = [f"\n## {name}\n{parts[name].rstrip()}\n" for name in BENCHMARKS if name in parts]
    README.write_text(HEAD + "".join(kept))


def _part(benchmark: ModuleType) -> str:
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        "",
        f"{machine}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "",
        table_line(*COLUMNS),
        table_line(*("---" for _ in COLUMNS)),
    ]
    return "\n".join([*lines, *(str(row) for row in benchmark.measure())]) + "\n"


if __name__ == "__main__":
    main()
