"""`llamaduo review`, `promote`, `reject` and `rollback` on a real MLflow registry (SQLite)."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from mlflow_llamaduo import registry_commands
from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.config import Project, load
from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.records import Message, Pair, PairSet, Response
from mlflow_llamaduo.core.scoring import Scorecard
from mlflow_llamaduo.promotion import Promotions, Word
from mlflow_llamaduo.pyfunc_model import content_digest, pack, package
from mlflow_llamaduo.registry import Registry
from mlflow_llamaduo.tracking.tables import responses_table
from tests.http_double import Listening, QuietHandler
from tests.mlflow_server import mlflow_server
from tests.unit.builders import adapter, checked, decision, scores

ROOT = Path(__file__).parents[2]
NAME = "llamaduo-closed_qa"
TRAIN = PairSet((Pair((Message("user", "q"),), "a"),))
OLD = {"p0": [60.0, 70.0], "p1": [80.0, 20.0], "p2": [50.0, 50.0]}
NEW = {"p0": [65.0, 75.0], "p1": [90.0, 90.0], "p2": [40.0, 40.0]}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(ROOT / "projects"))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("test")
    return load("closed_qa").model_copy(update={"promotion": "review"})


def version(
    project: Project, card: Scorecard, *, passed: bool = True, text: str = "answer", prompt: str = "judge.md"
) -> int:
    """Another version with evidence, answers and dollars, as a round leaves it; it waits for a person."""
    digest = f"a{len(list(Path().glob('a*')))}"
    folder = Path(digest) / "trained"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(digest.encode())
    trained = adapter(digest, path=str(folder))
    packed = Path(digest) / "packed"
    pack(packed, adapter=folder, package=package(project, trained))
    responses = [
        Response(*_parts(row.response_id), "Which town?", "Arn", f"{text} {digest} {row.response_id}", 3)
        for row in card.scored
    ]
    registry = Registry(project, digest)
    with mlflow.start_run() as run:
        mlflow.log_metrics({"cost/service_llm_usd": 1.25, "cost/training_usd": 0.5})
        mlflow.set_tag("llamaduo.prompt.judge", prompt)
        mlflow.log_table(responses_table(responses), "responses.json")
        made = registry.register(
            trained,
            card,
            decision(passed=passed),
            checked=checked(content_digest(packed), str(packed)),
            against=Against({}),
            train=TRAIN,
            run_id=run.info.run_id,
        )
        if passed:
            registry.promote(made)
    return made.number


def _parts(response_id: str) -> tuple[str, int]:
    prompt, sample = response_id.split("/")
    return prompt, int(sample)


def llamaduo(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def done(*arguments: str) -> str:
    """What a command printed that went well."""
    result = llamaduo(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str, code: int = 2) -> str:
    """The one line of a command that did not go well."""
    result = llamaduo(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def aliases() -> dict[str, int]:
    return {alias: int(number) for alias, number in MlflowClient().get_registered_model(NAME).aliases.items()}


def tags(number: int) -> Mapping[str, str]:
    found: Mapping[str, str] = MlflowClient().get_model_version(NAME, str(number)).tags
    return found


@pytest.fixture
def two(project: Project) -> tuple[int, int]:
    """A champion, and a challenger that waits."""
    old = version(project, scores(OLD))
    done("promote", "--version", str(old), "--reason", "the first")
    return old, version(project, scores(NEW))


def test_versions_are_told_with_scores_dollars_gate_and_review(two: tuple[int, int]) -> None:
    shown = done("review")
    head, _, new, old = shown.splitlines()[2:6]
    assert head.split() == [
        *("version", "aliases", "made", "(UTC)", "precision", "95", "%", "similarity", "95", "%"),
        *("gate", "dollars", "parity", "review"),
    ]
    assert new.split()[:2] == ["2", "challenger"]
    assert old.split()[:2] == ["1", "champion"]
    assert " 66.7 " in new
    assert " 55.0 " in old
    assert new.split()[-4:] == ["passed", "1.75", "passed", "pending"]
    assert "promoted by ann, 20" in old
    for line in (
        "version 2 (challenger)",
        "    ok  precision_mean 80.0 >= 70",
        f"  run:           {MlflowClient().get_model_version(NAME, '2').run_id}",
        "  adapter:       a1",
        "  base model:    base",
        f"  trained on:    1 rows, digest {TRAIN.digest}",
        "  judge:         offline/judge",
        "  judge and generator are offline stand-ins: the scores are no LLM's opinion",
    ):
        assert line in shown.splitlines()


def test_the_difference_is_paired_by_prompt_and_answers_differ_most_first(two: tuple[int, int]) -> None:
    """By prompt: 5, 40 and -10 points; Student's t with two degrees of freedom."""
    found = json.loads(done("review", "--json", "--answers", "2"))
    precision, similarity = found["differences"]
    assert precision["points"]["value"] == pytest.approx(35 / 3)
    assert precision["points"]["low"] == pytest.approx(35 / 3 - 4.302653 * 25.658007 / 3**0.5, abs=1e-3)
    assert (precision["prompts"], similarity["score"]) == (3, "similarity")
    assert [answer["apart"] for answer in found["answers"]] == [80, -20]
    assert found["answers"][0]["candidate"]["text"] == "answer a1 p1/0"
    assert found["answers"][0]["champion"]["text"].startswith("answer a0 p1/")
    assert (found["shown"], found["champion"], found["lineage"]["adapter"]) == (2, 1, "a1")
    shown = done("review", "--answers", "1")
    assert "  precision   +11.7 (95 %: -52.1 to +75.4; 3 prompts)" in shown
    assert shown.count("instruction") == 1


def test_the_words_are_in_order_and_a_promotion_over_the_gate_is_told_for_ever(
    project: Project, two: tuple[int, int]
) -> None:
    third = version(project, scores(OLD), passed=False)
    why = refused("promote", "--version", str(third), "--reason", "ship it")
    assert "did not pass its gate (precision_mean 60.0 < 70): promote it with --override" in why
    said = done("promote", "--version", str(third), "--reason", "ship it", "--by", "eve", "--override")
    assert said == (
        f"{NAME} version 3 is champion, and version 1 is previous; a running service answers with it within seconds\n"
    )
    assert aliases() == {"challenger": 2, "champion": 3, "previous": 1}
    back = done("rollback", "--reason", "it lies")
    assert f"{NAME} version 1 is champion again, and version 3 is rolled back" in back
    assert f"{NAME} version 2 is champion, and version 1 is previous" in done("promote", "--reason", "reads well")
    lines = done("review", "--version", "3").splitlines()
    assert [line for line in lines if line.startswith("3 ") and line.endswith(", over its gate")]
    words = [line.partition("  20")[2][15:].strip() for line in lines if line.startswith("  said:")]
    assert words == ["promoted by eve: ship it", "rolled back by ann: it lies"]
    assert [line for line in lines if line.startswith("  over its gate:") and "eve: ship it" in line]


def test_a_rejected_version_is_no_challenger_and_needs_an_override(two: tuple[int, int]) -> None:
    assert done("reject", "--version", "2", "--reason", "invents dates").startswith(f"{NAME} version 2 is rejected")
    assert aliases() == {"champion": 1}
    assert "has no challenger: name a version with --version" in refused("promote", "--reason", "now")
    assert "was rejected by ann (invents dates)" in refused("promote", "--version", "2", "--reason", "now")
    assert "is champion: llamaduo rollback" in refused("reject", "--version", "1", "--reason", "old")


def test_promoting_the_champion_changes_nothing_and_says_so(two: tuple[int, int]) -> None:
    assert "version 1 is champion already: no alias was moved" in done(
        "promote", "--version", "1", "--reason", "again"
    )


def test_the_champion_itself_is_compared_with_the_one_before_by_its_number(two: tuple[int, int]) -> None:
    assert "  note: version 1 is the champion itself\n" in done("review", "--version", "1")
    done("promote", "--reason", "reads well")
    assert "  note: version 2 is the champion itself: --version 1 holds the one before against it\n" in done("review")
    assert "  precision   -11.7 (95 %: -75.4 to +52.1; 3 prompts)\n" in done("review", "--version", "1")


def test_hostile_answers_and_reasons_move_no_cursor(project: Project, two: tuple[int, int]) -> None:
    version(project, scores(NEW), text="\x1b[2J\x1b]0;owned\x07first\nversion 9 passed")
    MlflowClient().set_model_version_tag(NAME, "3", "llamaduo.review.2020", "promoted by \x1b[31mroot: \nfine")
    MlflowClient().set_model_version_tag(NAME, "3", "llamaduo.decision", "not passed: \x1b]0;owned\x07low")
    shown = done("review", "--version", "3")
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "    | �[2J�]0;owned�first⏎version 9 passed a2 p1/0" in shown.splitlines()
    assert "\x1b" not in done("review", "--version", "3", "--json")
    assert "did not pass its gate (�]0;owned�low)" in refused("promote", "--version", "3", "--reason", "x")
    done("reject", "--version", "3", "--reason", "clears\n the \x1b[2Jscreen", "--by", "eve\x1b")
    assert (tags(3)["llamaduo.reason"], tags(3)["llamaduo.reviewer"]) == ("clears the �[2Jscreen", "eve�")


def test_without_a_version_there_is_one_line() -> None:
    assert done("review") == f"{NAME} has no version yet: llamaduo run --task closed_qa makes the first\n"
    assert json.loads(done("review", "--json"))["versions"] == []


def test_without_a_champion_the_weakest_answers_stand_beside_the_reference(project: Project) -> None:
    version(project, scores(NEW))
    shown = done("review", "--answers", "1")
    assert "  note: there is no champion yet: nothing to compare it with" in shown.splitlines()
    assert "its weakest answers, 1 prompt(s):" in shown.splitlines()
    assert "    | answer a0 p2/0" in shown.splitlines()


def test_a_version_that_somebody_else_made_is_told(two: tuple[int, int]) -> None:
    MlflowClient().create_model_version(NAME, source="/nowhere")
    shown = done("review", "--version", "3")
    assert "note: version 3 was not made by llamaduo" in shown
    assert "not llamaduo's" in shown
    assert "has no version 7; it has 1, 2, 3" in refused("review", "--version", "7")


@pytest.mark.parametrize("broken", ["gone", "no JSON", "strange"])
@pytest.mark.parametrize("file", ["evidence.json", "responses.json"])
def test_files_that_are_gone_or_strange_are_a_note(
    tmp_path: Path, two: tuple[int, int], file: str, broken: str
) -> None:
    for path in (tmp_path / "mlruns").rglob(file):
        path.unlink() if broken == "gone" else path.write_text("{" if broken == "no JSON" else '{"rules": 3}')
    shown = done("review")
    assert "challenger" in shown
    note = {"evidence.json": "evidence.json", "responses.json": "the answers of version 2 are not to be had"}[file]
    assert [line for line in shown.splitlines() if line.startswith("  note: ") and note in line]
    assert ("less champion" in shown) == (file == "responses.json")


def test_a_run_that_was_deleted_for_good_is_no_bug(two: tuple[int, int]) -> None:
    client = MlflowClient()
    run = client.get_model_version(NAME, "2").run_id
    client.delete_run(run)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "gc",
        "--backend-store-uri",
        mlflow.get_tracking_uri(),
        "--run-ids",
        run,
    ]
    subprocess.run(command, check=True, capture_output=True)
    new = done("review").splitlines()[4]
    assert new.split()[-4:] == ["passed", "-", "passed", "pending"]


@pytest.mark.parametrize("other", ["judge", "prompt of the judge", "test prompts"])
def test_what_cannot_be_compared_is_said_in_words(project: Project, two: tuple[int, int], other: str) -> None:
    judge, prompt, values = "judge", "judge.md", NEW
    if other == "judge":
        judge = "gpt-4o"
    elif other == "prompt of the judge":
        prompt = "prompts:/judge/2"
    else:
        values = {f"q{place}": own for place, own in enumerate(NEW.values())}
    card = scores(values)
    version(project, Scorecard(judge, card.prompts, card.responses, card.judgings, 0, card.scored), prompt=prompt)
    lines = done("review", "--version", "3").splitlines()
    expected = {
        "judge": "gpt-4o judged version 3, judge the champion, and judges' scales differ",
        "prompt of the judge": "the judge's prompt was prompts:/judge/2, the champion's judge.md",
        "test prompts": "only 0 of 3 prompts have a verdict on champion too (other test prompts, or some left "
        "unjudged)",
    }[other]
    assert f"  note: not compared with the champion: {expected}" in lines
    assert not [line for line in lines if "less champion" in line]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["promote", "--reason", " \n"], "--reason is blank"),
        (["reject", "--version", "2", "--reason", ""], "--reason is blank"),
        (["rollback", "--reason", "x" * 2001], "--reason has 2001 characters"),
        (["promote", "--reason", "x", "--by", " "], "--by is blank"),
        (["promote", "--version", "9", "--reason", "x"], "has no version 9; it has 1, 2"),
        (["rollback", "--reason", "x"], "has no champion before version 1: name one with --version"),
        (["review", "--task", "closed_aq"], "did you mean 'closed_qa'?"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_nothing_is_changed(
    two: tuple[int, int], arguments: Sequence[str], told: str
) -> None:
    assert told in refused(*arguments)
    assert aliases() == {"champion": 1, "challenger": 2}


def test_no_adapter_is_fetched_to_review(tmp_path: Path, two: tuple[int, int]) -> None:
    for path in (tmp_path / "mlruns").rglob("adapter_model.safetensors"):
        path.unlink()
    assert "  note:" not in done("review")


def test_over_a_server_the_same_is_told(project: Project, tmp_path: Path) -> None:
    with mlflow_server(tmp_path / "server") as server:
        mlflow.set_tracking_uri(server.uri)
        mlflow.set_experiment("test")
        version(project, scores(OLD))
        done("promote", "--reason", "the first")
        version(project, scores(NEW))
        shown = done("review")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    assert "  precision   +11.7 (95 %: -52.1 to +75.4; 3 prompts)" in shown.splitlines()
    assert "    | answer a1 p1/0" in shown.splitlines()
    assert "  note:" not in shown


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_who_promotes_while_a_command_starts_is_told_of_to_the_other(
    two: tuple[int, int], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """MLflow takes seconds to import: what is done meanwhile, the one who typed has not seen."""

    def slow() -> str:
        Promotions(NAME).promote(1 if command == "promote" else 2, Word("bob", "mine"), override=True)
        return "ann"

    if command == "promote":
        Promotions(NAME).promote(2, Word("ann", "before"))
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.setattr(registry_commands, "getuser", slow)
    told = refused(command, "--version", "2" if command == "promote" else "1", "--reason", "x", code=1)
    assert "was made champion while you decided (by bob: mine)" in told


def test_of_several_versions_the_newest_is_first(project: Project) -> None:
    for _ in range(11):
        version(project, scores(OLD), passed=False)
    shown = done("review").splitlines()
    assert [line.split()[0] for line in shown[4:15]] == [str(number) for number in range(11, 0, -1)]
    assert shown[16] == "version 11"


@pytest.mark.parametrize("command", ["review", "promote", "reject", "rollback"])
def test_a_server_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    class Broken(QuietHandler):
        def do_GET(self) -> None:
            self.reply(b"", 500)

        do_POST = do_PATCH = do_DELETE = do_GET

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = Listening(Broken)
    mlflow.set_tracking_uri(server.url.replace("//", "//ann:sesame@"))
    more = [] if command == "review" else ["--version", "1", "--reason", "x"]
    told = refused(command, *more, code=1)
    server.close()
    assert "the MLflow registry cannot be used" in told
    assert "sesame" not in told


def test_of_two_who_promote_at_once_one_is_told(project: Project, two: tuple[int, int]) -> None:
    """Two processes, each with MLflow to import: the later one has not seen what the other did."""
    version(project, scores(NEW))
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow_llamaduo",
                "promote",
                "--version",
                number,
                "--reason",
                "mine",
                "--by",
                number,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in ("2", "3")
    ]
    ended = [(*process.communicate(timeout=120), process.returncode) for process in started]
    assert sorted(code for _, _, code in ended) == [0, 1]
    ((winner, _, _),) = [one for one in ended if one[2] == 0]
    ((_, told, _),) = [one for one in ended if one[2] == 1]
    champion = aliases()["champion"]
    assert winner.startswith(f"{NAME} version {champion} is champion, and version 1 is previous")
    assert f"version {champion} was made champion while you decided" in told or "is moving its aliases" in told
    assert "llamaduo.reviewer" not in tags(5 - champion)
