"""`llamaduo judge-report`: files in, a page out."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.core.records import Response, Verdict
from mlflow_llamaduo.core.trust import Report, measure
from mlflow_llamaduo.files import to_jsonl
from mlflow_llamaduo.steps import swap
from mlflow_llamaduo.steps.opinions import Evenly
from mlflow_llamaduo.steps.readings import clean, landis_koch, told
from tests.unit.builders import pairs, verdict


@pytest.fixture(autouse=True)
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small clone of the project to run in; no key is set."""
    root = tmp_path / "projects"
    (root / "closed_qa").mkdir(parents=True)
    (root / "profiles").mkdir()
    (root / "closed_qa" / "coverage.jsonl").write_text(to_jsonl(p.row() for p in pairs(20)))
    (root / "closed_qa" / "duo.yaml").write_text(yaml.safe_dump({"gate": 70}))
    (root / "profiles" / "local.yaml").write_text("base_model: some/model\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLAMADUO_PROJECTS", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


def llamaduo(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def row(key: str = "p0/0", *precisions: float | None, **more: Any) -> dict[str, Any]:
    """A row as `llamaduo judge` writes it; None is a judging without a score."""
    verdicts = [
        {"unjudged": "cut"} if p is None else {"similarity": p, "precision": p, "reason": ""} for p in precisions
    ]
    texts = {"instruction": f"Which town of {key}?", "reference": "Arn", "response": f"The town of {key}"}
    return {"id": key, **texts, "verdicts": verdicts, **more}


def write(name: str, *rows: dict[str, Any] | str) -> None:
    Path(name).write_text("".join(f"{r}\n" if isinstance(r, str) else to_jsonl([r]) for r in rows), encoding="utf-8")


def report(*more: str) -> tuple[str, dict[str, Any]]:
    """The page, and the figures."""
    result = llamaduo("judge-report", "--out", "report.json", *more)
    assert result.exit_code == 0, result.output
    return result.stdout, json.loads(Path("report.json").read_text(encoding="utf-8"))


def refusal(*more: str) -> list[str]:
    result = llamaduo("judge-report", *more)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return [line.removeprefix("llamaduo: ") for line in result.stderr.splitlines()]


def score(figures: dict[str, Any], quantity: str = "precision", judge: int = 0) -> dict[str, Any]:
    (found,) = [score for score in figures["judges"][judge]["scores"] if score["quantity"] == quantity]
    return dict(found)


ALONE = ("--in", "judge.jsonl", "--swap", "0")


def test_what_llamaduo_judge_writes_is_measured_with_the_swap(clone: Path) -> None:
    texts = ["Arn", "Arn in the north", "the town of Arn", "Bel", "Bel and Cor", "Arn or Bel", "Cor", "no town"]
    responses = [{**row(f"p{i}/0"), "response": text} for i, text in enumerate(texts)]
    write("responses.jsonl", *responses)
    asked = llamaduo("judge", "--in", "responses.jsonl", "--out", "verdicts.jsonl", "--repeats", "2")
    assert asked.exit_code == 0, asked.output
    write(
        "labels.csv", "id,precision", *(f"p{i}/0,{label}" for i, label in enumerate([100, 90, 95, 0, 5, 40, 0, 10]))
    )
    page, figures = report("--in", "verdicts.jsonl", "--labels", "labels.csv")

    assert page.startswith("offline/judge: 8 of 8 responses judged; 16 judgings, 0 of them without a score\n")
    assert "offline/judge, precision: 8 labelled responses, which are few: intervals are wide" in page
    precision = score(figures)
    assert precision["people"]["n"] == 8
    assert precision["people"]["rank"]["rho"] > 0.7
    assert (precision["spread"]["n"], precision["spread"]["points"]) == (8, 0)  # the stand-in never wavers
    assert score(figures, "similarity")["people"]["n"] == 0
    (swap,) = figures["swaps"]
    assert (swap["judge"], swap["n"], swap["points"]) == ("offline/judge", 7, 0)  # Arn is its own reference
    assert (clone / ".llamaduo" / "replies.sqlite").is_file()


def test_a_label_is_a_score_beside_the_mean_of_the_judgings() -> None:
    write("judge.jsonl", row("a", 80, 60), row("b", 40, None), row("c", None, None), row("d", 10))
    write("labels.jsonl", {"id": "a", "precision": 60}, {"id": "b", "precision": 50}, {"id": "c", "precision": 100})
    _, figures = report(*ALONE, "--labels", "labels.jsonl")

    (judge,) = figures["judges"]
    assert (judge["judge"], judge["judged"], judge["judgings"], judge["unjudged"]) == ("judge", 3, 7, 3)
    assert (figures["responses"], figures["swaps"]) == (4, [])
    people = score(figures)["people"]
    assert (people["n"], people["error"], people["bias"]) == (2, 10, 0)


@pytest.mark.parametrize(
    "labels",
    [
        "id,precision\na,60\nb,50\n",
        "\ufeffID;Precision;note\na;60;fine\nb;50;\n",
        "id,similarity,precision\na,,60 %\nb,,50/100\nc,,\n",
        '{"id": "a", "precision": 60}\n\n{"id": "b", "precision": "50", "similarity": null}\n',
    ],
)
def test_labels_are_read_as_people_write_them(labels: str) -> None:
    write("judge.jsonl", row("a", 70), row("b", 40), row("c", 40))
    name = "labels.jsonl" if labels.startswith("{") else "labels.csv"
    Path(name).write_text(labels, encoding="utf-8")
    _, figures = report(*ALONE, "--labels", name)

    assert (score(figures)["people"]["n"], score(figures)["people"]["error"]) == (2, 10)
    assert score(figures, "similarity")["people"]["n"] == 0


def test_several_labels_of_one_response_are_several_people() -> None:
    write("judge.jsonl", row("a", 70))
    write("labels.csv", "id,precision", "a,60", "a,90")

    assert score(report(*ALONE, "--labels", "labels.csv")[1])["people"]["bias"] == -5


def test_every_bad_row_of_every_file_is_told_at_once() -> None:
    write("a.jsonl", row("a", 70), "no JSON", {**row("b"), "verdicts": "none"}, {"id": "c"}, row("a", 70))
    write("b.jsonl", row("d", 101), {**row("e", 1), "verdicts": [7]}, {**row("a", 5), "response": "other"})
    write("labels.csv", "id,precision", "a,101", ",50", "a,good", "a,50,60", "a,nan")
    told = refusal("--in", "a.jsonl", "--in", "b.jsonl", "--labels", "labels.csv")

    assert [line.split(": ")[0] for line in told] == [
        *(f"a.jsonl:{n}" for n in (2, 3, 4, 5)),
        *(f"b.jsonl:{n}" for n in (1, 2, 3)),
        *(f"labels.csv:{n}" for n in (2, 3, 4, 5, 6)),
    ]
    assert told[3] == "a.jsonl:5: 'a' has judged id 'a' in an earlier row"
    assert told[6] == "b.jsonl:3: id 'a' is another response elsewhere: verdicts on two texts do not compare"
    assert told[7] == "labels.csv:2: precision is no number from 0 to 100: '101'"


@pytest.mark.parametrize(
    "line", ["[]", "{}", '{"id": "a"}', '{"id": true, "precision": 5}', '{"id": "a", "precision": true}']
)
def test_a_row_that_is_no_label_is_told(line: str) -> None:
    write("judge.jsonl", row("a", 70))
    write("labels.jsonl", line)

    assert refusal(*ALONE, "--labels", "labels.jsonl")[0].startswith("labels.jsonl:1: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no verdicts: name files"),
        (["--in", "nowhere.jsonl"], "no file nowhere.jsonl"),
        (["--in", "empty.jsonl"], "no verdict"),
        (["--in", "judge.jsonl", "--labels", "nowhere.csv"], "no file nowhere.csv"),
        (["--in", "judge.jsonl", "--labels", "labels.xlsx"], "labels are JSON lines or CSV"),
        (["--in", "judge.jsonl", "--threshold", "101"], "101"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments: list[str], told: str) -> None:
    write("judge.jsonl", row("a", 70))
    write("empty.jsonl")
    write("labels.xlsx")

    assert told in " ".join(refusal(*arguments))


def test_ids_that_match_nothing_are_told_with_examples_and_empty_rows_are_counted() -> None:
    write("judge.jsonl", row("a", 70), row("b", 70))
    write("labels.csv", "id,precision", "a,70", "b,", "x1,1", "x2,2", "x3,3", "x4,4")
    page, figures = report(*ALONE, "--labels", "labels.csv")

    assert "note: 4 of 5 labelled ids match no response: 'x1', 'x2', 'x3', ...\n" in page
    assert "empty rows in the file of labels: 1" in figures["notes"]
    assert score(figures)["people"]["n"] == 1


def test_labels_on_another_scale_are_asked_about() -> None:
    write("judge.jsonl", row("a", 70))
    write("labels.csv", "id,precision,similarity", "a,5,50")

    assert report(*ALONE, "--labels", "labels.csv")[1]["notes"] == [
        "no label of precision is above 5: are they scores from 0 to 100?"
    ]


def test_without_labels_the_page_says_what_is_not_known() -> None:
    write("judge.jsonl", row("a", 70))

    assert "No label of a person: what the judge's scores are worth is not known." in report(*ALONE)[0]


# Several judges


def test_a_judge_is_called_as_its_rows_say_or_else_as_its_file() -> None:
    write("one.jsonl", row("a", 70), row("b", 90, judge="gpt-4o"), row("c", 10, judge=""))
    Path("two").mkdir()
    write("two/one.jsonl", row("a", 60))
    assert [judge["judge"] for judge in report("--in", "one.jsonl", "--swap", "0")[1]["judges"]] == ["one", "gpt-4o"]

    both = report("--in", "one.jsonl", "--in", "two/one.jsonl", "--swap", "0")[1]
    assert [judge["judge"] for judge in both["judges"]] == ["one.jsonl", "gpt-4o", "two/one.jsonl"]


def test_two_judges_are_compared_on_the_responses_of_both() -> None:
    write("kind.jsonl", *(row(f"p{i}", 10 * i + 20) for i in range(6)))
    write("strict.jsonl", *(row(f"p{i}", 10 * i) for i in range(2, 9)))
    page, figures = report("--in", "kind.jsonl", "--in", "strict.jsonl", "--swap", "0")

    similarity, precision = figures["between"]
    assert (similarity["agreement"]["n"], similarity["agreement"]["rank"]["rho"]) == (4, pytest.approx(1))
    assert precision["agreement"]["bias"] == 20
    assert figures["responses"] == 9
    assert "kind and strict, precision: 4 responses that both judged" in page
    assert "kind gives 20.0 points more than strict: a gate is for one judge" in page


def test_a_wrong_column_judge_is_told_instead_of_compared() -> None:
    write("judge.jsonl", *(row(f"p{i}", 50, judge=f"reply {i}") for i in range(13)))

    assert refusal(*ALONE)[0].startswith("13 judges, such as 'reply 0', 'reply 1', 'reply 2', ...: the key judge")


def test_thresholds_are_those_that_were_asked_for() -> None:
    write("judge.jsonl", row("a", 79, 81))
    page, figures = report(*ALONE, "--threshold", "80", "--threshold", "60", "--threshold", "80")

    assert figures["thresholds"] == [60, 80]
    assert [c["share"] for c in score(figures)["spread"]["crossings"]] == [0, 100]
    assert "both sides of 80" in page


# The swap


PAID = ("--service-llm", "openai/gpt-4o")


def test_a_judge_without_a_key_costs_the_report_the_swap_and_no_more() -> None:
    write("judge.jsonl", row("a", 70, 80), row("b", 20))
    page, figures = report("--in", "judge.jsonl", *PAID)

    assert figures["swaps"][0]["why"] == "openai/gpt-4o needs a key: set the environment variable OPENAI_API_KEY"
    assert "not measured" in page
    assert score(figures)["spread"]["n"] == 1
    assert not Path(".llamaduo").exists()


def test_a_judge_that_does_not_answer_costs_no_more_either() -> None:
    write("judge.jsonl", row("a", 70), row("b", 20))
    nobody = ("--api-base", "http://127.0.0.1:9/v1", "--set", "service_llm.judge.retries=0")
    _, figures = report("--in", "judge.jsonl", *PAID, *nobody)

    assert (figures["swaps"][0]["n"], figures["swaps"][0]["unjudged"], figures["swaps"][0]["points"]) == (0, 2, None)
    assert figures["swaps"][0]["why"].startswith("no judging gave a score: ")


def test_reference_and_response_trade_places(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(responses: list[Response], *, done: Callable[[int], object], **_: Any) -> tuple[Verdict, ...]:
        """The longer the response, the more similar: who stands first counts."""
        done(len(responses))
        return tuple(verdict(each.id, 0, similarity=10.0 * len(each.text)) for each in responses)

    monkeypatch.setattr(swap, "judge", judge)
    write("judge.jsonl", {**row("a", 70), "response": "Arnheim"}, {**row("b", 20), "response": "A"})
    page, figures = report("--in", "judge.jsonl")

    (swapped,) = figures["swaps"]
    assert swapped["points"] == (40 + 20) / 2  # the reference is Arn
    assert [c["share"] for c in swapped["crossings"]] == [50, 50]
    assert "similarity is not mutual: who stands first counts" in page


def test_every_judge_of_the_project_is_asked_for_the_swap_or_says_why_not() -> None:
    write("judge.jsonl", row("a", 70), row("b", 20))
    _, figures = report("--in", "judge.jsonl", "--set", "service_llm.other_judges=openai/gpt-4o")

    assert {swap["judge"]: (swap["n"], "key" in swap["why"]) for swap in figures["swaps"]} == {
        "offline/judge": (2, False),
        "openai/gpt-4o": (0, True),
    }


def test_a_budget_that_is_used_up_costs_no_more_either() -> None:
    write("judge.jsonl", row("a", 70), row("b", 20))
    _, figures = report("--in", "judge.jsonl", *PAID, "--api-base", "http://127.0.0.1:9/v1", "--budget-usd", "0")

    assert "budget" in figures["swaps"][0]["why"]


def test_a_dear_swap_begins_with_a_word_only() -> None:
    write("judge.jsonl", row("a", 70), row("b", 20))
    dear = ("--api-base", "http://127.0.0.1:9/v1", "--set", "limits.ask_above_usd=0.000001")

    assert "add --yes" in refusal("--in", "judge.jsonl", *PAID, *dear)[0]
    assert report("--in", "judge.jsonl", *PAID, *dear, "--yes", "--set", "service_llm.judge.retries=0")


def test_the_swap_asks_about_as_many_responses_as_it_is_told() -> None:
    write("judge.jsonl", *(row(f"p{i}", 70) for i in range(9)))

    assert report("--in", "judge.jsonl", "--swap", "4")[1]["swaps"][0]["n"] == 4


def test_a_response_that_is_its_reference_cannot_be_swapped() -> None:
    write("judge.jsonl", {**row("a", 70), "response": "Arn"}, {**row("b", 0), "response": " "})

    assert report("--in", "judge.jsonl")[1]["swaps"][0]["why"] == "no response differs from its reference"


@given(st.integers(0, 12), st.integers(0, 300))
def test_a_sample_is_even_and_as_large_as_it_can_be(count: int, came: int) -> None:
    sample: Evenly[int] = Evenly(count)
    for number in range(came):
        sample.add(number)
    chosen = sample.chosen
    steps = [after - before for before, after in pairwise(chosen)]

    assert len(chosen) == min(count, came)
    assert chosen == sorted(set(chosen))
    assert not steps or max(steps) <= 2 * min(steps)
    assert not chosen or chosen[0] == 0
    assert not steps or came - chosen[-1] <= 3 * max(steps)


# The page


@pytest.mark.parametrize(
    ("kappa", "word"),
    [
        (-0.01, "poor"), (0, "slight"), (0.2, "slight"), (0.21, "fair"), (0.31, "fair"), (0.4, "fair"),
        (0.41, "moderate"), (0.61, "substantial"), (0.8, "substantial"), (0.81, "almost perfect"),
        (1, "almost perfect"),
    ],
)  # fmt: skip
def test_the_words_for_kappa_are_landis_and_kochs(kappa: float, word: str) -> None:
    assert landis_koch(kappa) == word


def judged(*values: float) -> list[dict[str, Any]]:
    return [row(f"p{i}", value) for i, value in enumerate(values)]


def page_of(judge: list[float], people: list[float]) -> str:
    write("judge.jsonl", *judged(*judge))
    write("labels.csv", "id,precision", *(f"p{i},{label}" for i, label in enumerate(people)))
    return report(*ALONE, "--labels", "labels.csv")[0]


def test_a_judge_that_people_agree_with_is_called_good() -> None:
    scores = [float(x) for x in range(0, 100, 2)]
    page = page_of(scores, scores)

    assert "good: judge and people order answers alike" in page
    assert "almost perfect: a gate at 70 means what people see" in page
    assert "few" not in page


def test_a_judge_that_is_kinder_than_people_is_called_so() -> None:
    page = page_of([min(100.0, x + 30.0) for x in range(0, 70)], [float(x) for x in range(0, 70)])

    assert "the judge is kinder: what it calls 70 is 40 to people" in page
    assert "bad: no gate is finer than this" in page
    assert "kappa at 70          -0" not in page


def test_a_judge_that_knows_nothing_is_called_chance() -> None:
    page = page_of([10.0, 20, 30, 40, 50, 60, 70, 80], [30.0, 70, 10, 50, 20, 80, 60, 40])
    assert "may be chance: the interval holds 0; label more responses" in page

    page = page_of([float(i % 10 * 10) for i in range(100)], [float(i // 10 * 10) for i in range(100)])
    assert "bad: the order is not people's" in page
    assert "slight: the gate's line at 70 is not what people see" in page
    assert "-0.00" not in page


def test_a_constant_judge_has_reasons_where_figures_would_be() -> None:
    page = page_of([80.0] * 6, [80.0, 90.0, 75.0, 20.0, 10.0, 80.0])

    assert "the judge has the same value for all 6" in page
    assert "the judge put all 6 on one side, so kappa is 0 whatever the agreement" in page
    assert "nan" not in page


def test_longer_answers_that_score_higher_are_pointed_at() -> None:
    rows = [{**row(f"p{i}", 2.0 * i), "response": "long " * (i + 1)} for i in range(40)]
    write("judge.jsonl", *rows)

    assert "longer answers score higher: read some, are they better or only long?" in report(*ALONE)[0]


def test_the_page_is_aligned() -> None:
    lines = page_of([float(x) for x in range(40)], [float(x) for x in range(40)]).splitlines()
    starts = {line.index("good: ") for line in lines if "good: " in line}

    assert len(starts) == 1


def test_labels_that_are_of_none_of_the_responses_are_an_error_with_both_kinds_of_ids() -> None:
    write("judge.jsonl", row("a", 70), row("b", 5))
    write("labels.jsonl", {"id": "x", "precision": 50})
    result = llamaduo("judge-report", *ALONE, "--labels", "labels.jsonl")

    assert result.exit_code == 2
    assert (
        "no label is of a response that was judged: their ids are 'x', those of the responses 'a', 'b'"
        in result.stderr
    )


def test_a_few_labels_are_figures_without_a_verdict() -> None:
    write("judge.jsonl", row("a", 70), row("b", 5))
    write("labels.jsonl", {"id": "a", "precision": 20}, {"id": "b", "precision": 0})
    page, _ = report(*ALONE, "--labels", "labels.jsonl")

    assert "of 2: too few for a verdict" in page
    assert "change the judge" not in page


def test_what_a_terminal_would_obey_is_taken_out_of_names_and_reasons() -> None:
    write("judge.jsonl", row("a\x1b]0;x\x07", 70, judge="\x1b[31mred\u202e"), row("b", 5))
    write("labels.jsonl", {"id": "\x1b[2J", "precision": 50}, {"id": "b", "precision": 10})
    page, _ = report(*ALONE, "--labels", "labels.jsonl")

    assert all(character.isprintable() for character in page.replace("\n", ""))
    assert "?[31mred?: 1 of 2" in page


@given(st.text())
def test_somebodys_text_is_one_printable_line(text: str) -> None:
    shown = clean(text, 40)

    assert shown.isprintable()
    assert len(shown) <= 43


def test_a_report_of_nothing_but_a_judge_without_scores_is_a_page_too() -> None:
    empty: Report = measure({"judge": {}}, {}, {}, [50])

    assert told(empty).startswith("judge: 0 of 0 responses judged")
