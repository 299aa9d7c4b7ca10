"""Which page holds the blocks of which part of the code."""

from pathlib import Path

from tools.reference import commands, configuration, contracts, errors, metrics
from tools.reference.page import with_blocks

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "reference/configuration.md": configuration,
    "reference/cli.md": commands,
    "reference/errors.md": errors,
    "reference/metrics.md": metrics,
    "explanation/architecture.md": contracts,
}


def made() -> dict[Path, str]:
    """Each page as it is to be.

    Raises:
        ValueError: a page has a block that is not made, or lacks one.
    """
    found = {}
    for name, source in PAGES.items():
        page = DOCS / name
        try:
            found[page] = with_blocks(page.read_text(encoding="utf-8"), source.blocks())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return found
