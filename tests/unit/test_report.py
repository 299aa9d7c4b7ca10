"""The report as text: what stands in it, in which order, what it warns of, and that nothing hostile gets through."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_llamaduo.report.drawing import COLOURS
from mlflow_llamaduo.report.figures import cost_figure, density_figure, when
from mlflow_llamaduo.report.findings import findings
from mlflow_llamaduo.report.make import drawings_of
from mlflow_llamaduo.report.page import MOST_BYTES, cut, figure_page, page
from mlflow_llamaduo.report.read import Model, Score
from tests.unit.alignments import account, model, told

HOSTILE = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "</pre></div></body><script>alert(1)</script>",
    "javascript:alert(1) <a href='javascript:alert(1)'>x</a>",
    "<svg onload=alert(1)></svg> <style>*{display:none}</style>",
    "{{ 7 * 7 }} {% for x in y %} ${jndi} $x^2$ \\1 \\g<0>",
    "\x00\x1b[31m\u202e\ud800 <!-- --> ]]>",
)
SECTIONS = ("decision", "by-round", "spread", "data", "answers", "costs", "warnings", "lineage")


class Tags(HTMLParser):
    """Start tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def html(of: Any = None) -> str:
    of = of or told()
    return page(of, drawings_of(of))


def test_sections_come_in_the_order_of_the_question_a_reviewer_asks() -> None:
    ids = [attributes.get("id") for tag, attributes in Tags(html()).found if tag == "section"]

    assert tuple(ids) == SECTIONS


def test_the_decision_says_what_came_of_it_and_why_rule_by_rule() -> None:
    passed, failed = html(told(passed=True)), html()

    assert "The gate was passed" in passed
    assert "Version 2 (round 1) passes every rule of its gate." in passed
    assert "Not passed: the round limit was reached" in failed
    assert "None of 2 versions passes. The best, version 2 (round 1), fails 1 of its 1 rules." in failed
    assert "precision_mean 60.0 &lt; 70" in failed


def test_plan_and_ledger_stand_side_by_side() -> None:
    text = html()
    rows = {
        cells[0]: cells[1:]
        for cells in (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in text.split("<tr"))
        if cells
    }

    assert rows["judge"][:3] == ["$0.50", "$0.90", "$1.25"]
    assert rows["train"][:3] == ["$0.30", "$0.60", "$0.50"]
    assert rows["all"][:3] == ["$0.80", "$1.50", "$1.75"]
    assert rows["round 0"][2] == "$0.75"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_answers_are_text_and_nothing_else(text: str) -> None:
    """Of an honest alignment and a hostile one only the texts differ: the same tags with the same attributes."""
    assert Tags(html(told(text))).found == Tags(html(told("x" * len(text)))).found


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_of_a_model_is_text_too(text: str) -> None:
    hostile = account(judge=text, generator=text, base_model=text, other_judges=[text], task=text)
    of = replace(
        told(), account=hostile, models={"round 1": replace(model(70), scores={text: model(70).scores["judge"]})}
    )
    tags = Tags(html(of)).found

    assert not [tag for tag, _ in tags if tag in ("script", "img", "iframe", "object", "embed", "base", "form")]
    assert not [a for _, attributes in tags for a in attributes if a.startswith("on")]


@settings(max_examples=15)
@given(st.text(min_size=1, max_size=80))
def test_any_text_leaves_the_page_as_it_is(text: str) -> None:
    assert Tags(html(told(text))).found == Tags(html(told("x" * len(text)))).found


def test_the_page_asks_nobody_for_anything_and_runs_nothing() -> None:
    tags = Tags(html()).found

    policy = [a["content"] for tag, a in tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert not [tag for tag, _ in tags if tag in ("script", "link", "img", "iframe")]
    addresses = [a[name] for _, a in tags for name in ("href", "src", "xlink:href", "action") if a.get(name)]
    assert addresses
    assert all(str(address).startswith("#") for address in addresses)
    assert "url(http" not in html()


def test_every_link_within_the_page_leads_somewhere_and_ids_are_used_once() -> None:
    tags = Tags(html()).found
    ids = [a["id"] for _, a in tags if a.get("id")]

    assert len(ids) == len(set(ids))
    targets = {str(a[name])[1:] for _, a in tags for name in ("href", "xlink:href") if a.get(name)}
    assert targets <= set(ids)


def test_a_report_of_long_answers_and_many_rejections_stays_under_two_megabytes() -> None:
    long = "<b>&amp;</b> & \u4e16 " * 20_000
    many = tuple(
        {"reason": f"reason {n % 9}", "detail": long, "instruction": long, "response": long} for n in range(500)
    )

    of = replace(told(long), rejected={1: many})
    assert len(html(of).encode()) < MOST_BYTES / 2
    assert "56 rejected" in html(of), "what is not shown is counted"


def test_what_is_cut_is_told() -> None:
    assert cut("abcdef", 4) == "abcd … (2 more characters)"
    assert cut("abcd", 4) == "abcd"


def test_an_alignment_without_a_round_has_a_report() -> None:
    empty = account(rounds=[], baselines={}, outcome="budget", detail="the budget is used up")
    text = html(replace(told(), account=empty, shown=None, models={}, rejected={}, evidence={}))

    assert "Stopped: the budget was used up" in text
    assert "The budget is used up." in text
    assert (
        "rounds" not in drawings_of(replace(told(), account=empty, shown=None, models={}))["scores"].series.values()
    )
    assert "No answers of a finished round are to be had." in text


def test_each_figure_alone_is_a_page_with_its_series_to_hide() -> None:
    for name, drawing in drawings_of(told()).items():
        tags = Tags(figure_page(drawing)).found
        boxes = [a["id"] for tag, a in tags if tag == "input"]
        assert boxes == ([f"{name}-{key}" for key in drawing.series] if len(drawing.series) > 1 else [])
        assert drawing.png().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_drawing_is_well_formed_and_takes_its_colours_from_the_page() -> None:
    name = 'a & b <c> "d" $e_f$'
    known = account(judge=name)
    known["costs"]["api"]["model"] = name
    scores = model(70).scores["judge"]
    of = replace(told(), account=known, models={"round 1": Model({name: scores}, {})})
    assert any("&lt;c&gt;" in drawing.svg() for drawing in drawings_of(of).values()), "the name is drawn, as text"
    for drawing in drawings_of(of).values():
        text = drawing.svg()
        root = ET.fromstring(text)  # noqa: S314 - we made it
        assert root.tag.endswith("svg")
        assert "width" not in root.attrib
        assert not [colour for colour in COLOURS.values() if colour in text]
        assert "var(--ink)" in text


def test_marks_carry_their_figures_as_words() -> None:
    drawing = drawings_of(told())["scores"]
    titles = re.findall(r"<title>(.*?)</title>", drawing.svg())

    assert "round 1: 72.0" in "; ".join(titles)
    assert any(title.startswith("base: 40.0") for title in titles)


@pytest.mark.parametrize("values", [(50.0,), (0.0, 0.0, 0.0), (100.0,) * 9, (0.0, 100.0), tuple(range(0, 101, 5))])
def test_a_density_has_all_its_mass_between_0_and_100(values: tuple[float, ...]) -> None:
    scores = tuple(Score(f"p{n}/0", float(v), float(v)) for n, v in enumerate(values))
    drawing = density_figure({"round 0": Model({"judge": scores}, {})}, "round 0")
    lines: list[Any] = list(drawing.figure.axes[0].get_lines())
    at, curve = lines[0].get_data()
    assert float(((curve[1:] + curve[:-1]) / 2 * (at[1:] - at[:-1])).sum()) == pytest.approx(1.0, abs=0.03)


def test_break_even_is_told_with_its_band_and_never_is_a_word() -> None:
    assert when({"best": 1.0, "assumed": 2.0, "worst": None}) == (
        "pays after 2.0 months; between 1.0 months and never where prices, load and speed are off"
    )
    assert when({"best": None, "assumed": None, "worst": None}) == "never pays, at the best too"
    never = {**account()["costs"], "breakeven_months": {"best": None, "assumed": None, "worst": None}}
    assert "break-even" in cost_figure(account()["costs"]).series.values()
    assert "break-even" not in cost_figure(never).series.values()


def kinds(**changes: Any) -> dict[str, str]:
    """All that is said of each kind."""
    found: dict[str, str] = {}
    for finding in findings(told(**changes)):
        found[finding.kind] = f"{found.get(finding.kind, '')} {finding.said}".strip()
    return found


def test_what_is_warned_of() -> None:
    known = account(
        judge_family="same: OpenAI", judge="openai/gpt-4o", generator="openai/gpt-4o", offline_stand_ins=False
    )
    known["rounds"][1]["scorecard"]["unjudged"] = 7
    known["rounds"][1]["duels"] = [{"opponent": "reference", "flip_rate": 40.0, "first_preference": 80.0}]
    known["rounds"][1]["scorecard"]["figures"]["precision_mean"] |= {"low": 40.0, "high": 95.0}
    found = kinds(
        account=known,
        shown=known["rounds"][1],
        metrics={"synthesis/response_length_ratio": 2.5, "synthesis/prompt_length_ratio": 1.1},
    )

    assert "OpenAI" in found["same family"]
    assert found["unjudged"].startswith("round 1: 7 of")
    assert "3 new pairs gave a held-out prompt away" in found["contamination"]
    assert "new responses are 2.50 times as long" in found["drift"]
    assert "between 40.0 and 95.0" in found["wide interval"]
    assert "72.0 by judge and 50.0 by other" in found["judges disagree"]
    assert "40 % of the duels turn" in found["order"]
    assert "stand-in" not in found


def test_nothing_is_warned_of_where_there_is_nothing() -> None:
    known = account(judge_family="different: OpenAI judges Anthropic", offline_stand_ins=False)
    known["data"]["parts"]["left_out"] = 0
    for one in known["rounds"]:
        one["others"] = []
        one["scorecard"]["figures"]["precision_mean"] |= {"low": 70.0, "high": 75.0}
    long = model(70, "The town is Arn. " * 9)
    clean = kinds(account=known, shown=known["rounds"][1], rejected={}, models={"round 1": long})

    assert clean == {}
