"""The benchmarks' page: made of what is kept, and kept part by part."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, HERE, run, write
from benchmarks.promises import PROMISES
from benchmarks.results import PROMISED, Result, load, page, save
from benchmarks.row import Bar, Ratio, Row, of_count, of_mean, of_share, of_turns

RESULTS = {name: load(HERE / "results" / f"{name}.json") for name in BENCHMARKS}


def cells(text: str) -> list[dict[str, str]]:
    """The lines of the one table, by column."""
    table = text.partition("\n## ")[0].splitlines()
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table if line.startswith("|")]
    return [dict(zip(PROMISED, line, strict=True)) for line in lines[2:]]


def promised(name: str, figure: float) -> Row:
    return Row(next(iter(PROMISES[name])), figure, "s")


def test_the_page_is_what_the_kept_results_give() -> None:
    assert (HERE / "README.md").read_text() == page(RESULTS, PROMISES)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_is_a_module_and_has_every_line_that_it_promises(name: str) -> None:
    lines = [line for line in cells(page(RESULTS, PROMISES)) if line["command"] == f"`python -m benchmarks {name}`"]

    assert (HERE / f"{name}.py").is_file()
    assert {line["benchmark"] for line in lines} == set(PROMISES[name])
    for line in lines:
        assert all(line.values())
        assert "n=" in line["figure"]


def test_what_one_part_finds_leaves_the_lines_of_the_others(tmp_path: Path) -> None:
    old = Result("a machine", "2020-01-01", "python -m benchmarks gate", (promised("gate", 7.0),))
    save(old, tmp_path / "results" / "gate.json")

    run(["startup"], tmp_path, lambda name: [promised(name, 3.0)])

    startup, gate = cells((tmp_path / "README.md").read_text())
    assert (startup["figure"], startup["command"]) == ("3 s (n=1)", "`python -m benchmarks startup`")
    assert (gate["figure"], gate["machine"], gate["date"]) == ("7 s (n=1)", "a machine", "2020-01-01")


def test_a_run_that_is_broken_off_keeps_what_is_finished_and_what_was_there(tmp_path: Path) -> None:
    run(["gate"], tmp_path, lambda name: [promised(name, 7.0)])

    def measure(name: str) -> Iterator[Row]:
        yield promised(name, 3.0)
        if name == "gate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(["startup", "gate", "curate"], tmp_path, measure)
    write(tmp_path)

    assert [line["figure"] for line in cells((tmp_path / "README.md").read_text())] == ["3 s (n=1)", "7 s (n=1)"]


def test_a_result_is_read_as_it_was_kept(tmp_path: Path) -> None:
    full = Row("a", 1.5, "s", "b", 3.0, "c", 1.0, Bar(2, 1.0, 2.0), Ratio(0.5, 0.4, 0.6), Ratio(1.51))
    result = Result("a machine", "2020-01-01", "a command", (full, Row("d", 0.0, "%", limit="none", bar=Bar(7))))

    save(result, tmp_path / "a.json")

    assert load(tmp_path / "a.json") == result


def test_turns_show_how_far_the_figure_and_each_ratio_go() -> None:
    row = of_turns("a start", "s", [1.0, 2.0, 3.0], ("theirs", [2.0, 2.0, 4.0]), ("at most", [4.0]))

    assert str(row) == "| a start | 2 s (1 to 3, n=3) | theirs 2 s | 1.00 (0.50 to 1.00) | at most 4 s | 0.50 |"
    assert str(of_turns("once", "s", [1.0])) == "| once | 1 s (n=1) | - | - | - | - |"


@pytest.mark.parametrize(
    ("bar", "n", "low", "high"),
    [
        (of_share(0.0, 100), 100, 0.0, 3.70),
        (of_share(50.0, 100), 100, 40.38, 59.62),
        (of_share(100.0, 100), 100, 96.30, 100.0),
        (of_count(0, 2_000), 2_000, 0.0, 3.83),
        (of_mean([1.0, 2.0, 3.0]), 3, 0.87, 3.13),
    ],
)
def test_what_trials_show_goes_as_far_as_they_can_tell(bar: Bar, n: int, low: float, high: float) -> None:
    assert bar.n == n
    assert [bar.low, bar.high] == pytest.approx([low, high], abs=0.005)


def test_of_one_trial_nothing_is_known() -> None:
    assert of_mean([1.0]) == Bar()
