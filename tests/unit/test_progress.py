import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from mlflow_llamaduo import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    yield now


def test_without_a_terminal_a_line_is_said_once_a_minute(clock: list[float]) -> None:
    said: list[str] = []
    with progress.watched("judgings", 10, "judging", line=lambda: "60/min", say=said.append) as shown:
        for second in range(0, 130, 10):
            clock[0] = second
            shown.update(0)
            shown.refresh()
        shown.update(3)
        clock[0] = 200
        shown.refresh()

    assert said == ["judgings: 0 of 10, 60/min", "judgings: 3 of 10, 60/min"]


def test_a_line_is_not_made_that_nobody_sees(clock: list[float]) -> None:
    def line() -> str:
        raise AssertionError

    with progress.watched("judgings", 10, "judging", line=line, say=lambda _: None) as shown:
        shown.refresh()


def test_on_a_terminal_the_bar_ends_with_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    said: list[str] = []
    with progress.watched("judgings", 4, "judging", line=lambda: "60/min, $0.10", say=said.append) as shown:
        shown.refresh()
        shown.update(4)
    told = capsys.readouterr().err
    assert "judgings" in told
    assert said == []
