"""Headless Chromium, as Debian has it: `make browser` installs it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.requirements import required

SCREENSHOTS = Path(os.environ.get("LLAMADUO_SCREENSHOTS") or Path(__file__).parents[1] / "build/screenshots")
"""Where a test run leaves its pictures."""
NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
"""It asks its makers for nothing. Without a sandbox of its own, as root has none: it opens our own pages only."""


@dataclass
class Tab:
    """A page, what its console said, what it asked for, and what went wrong in it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        wide: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return wide

    def keep(self, name: str, *, whole: bool = True) -> Path:
        """A picture of it among the run's artifacts."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=file, full_page=whole)
        return file


@contextmanager
def tab(address: str, *, width: int, height: int = 900, scheme: Literal["light", "dark"] = "light") -> Iterator[Tab]:
    """The page at an address in a new browser; skips where there is none, unless LLAMADUO_REQUIRE has `browser`."""
    binary = next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        assert "browser" not in required(), "no Chromium: make browser"
        pytest.skip("no Chromium: make browser")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=binary, args=[*QUIET])
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        opened = Tab(page)
        page.on("console", lambda said: opened.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: opened.errors.append(str(error)))
        page.on("request", lambda request: opened.requests.append(request.url))
        page.goto(address)
        yield opened
        browser.close()
