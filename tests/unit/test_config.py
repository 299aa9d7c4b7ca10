from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_llamaduo.config import DEFAULT_GATE, Project, ServiceLLMs, ServiceModel, load, nearest
from mlflow_llamaduo.core.rounds import Limits
from mlflow_llamaduo.core.rules import GateRule
from mlflow_llamaduo.errors import ConfigError
from tests.unit.builders import project

REPOSITORY = Path(__file__).parents[2]
DUO = {"gate": 70, "coverage": {"test_rows": 8}}
PROFILE = {"base_model": "some/model", "finetune": {"epochs": 1, "lora_rank": 16}}


@pytest.fixture
def projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of projects with one task and one profile."""
    return folder_with(tmp_path, monkeypatch)


def folder_with(root: Path, monkeypatch: pytest.MonkeyPatch, *, duo: Any = DUO, profile: Any = PROFILE) -> Path:
    for file, tree in (("closed_qa/duo.yaml", duo), ("profiles/local.yaml", profile)):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(root))
    return root


def complaint(task: str = "closed_qa", profile: str = "local", **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(task, profile, {key.replace("__", "."): value for key, value in overrides.items()})
    return str(caught.value)


def test_the_task_and_the_profile_become_one_tree(projects: Path) -> None:
    project = load("closed_qa")

    assert (project.base_model, project.finetune.lora_rank, project.coverage.test_rows) == ("some/model", 16, 8)
    assert project.coverage.source == "coverage.jsonl"
    assert project.registered_model == "llamaduo-closed_qa"
    assert project.stops == Limits(5, 3, 1.0)


@pytest.mark.parametrize("task", sorted(f.parent.name for f in (REPOSITORY / "projects").glob("*/duo.yaml")))
@pytest.mark.parametrize(
    "profile", sorted((REPOSITORY / "projects" / "profiles").rglob("*.yaml")), ids=lambda p: p.stem
)
def test_every_task_that_is_shipped_loads_with_every_profile(
    task: str, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(REPOSITORY / "projects"))

    assert load(task, str(profile)).task == task


@pytest.mark.usefixtures("projects")
def test_an_unknown_task_names_the_nearest() -> None:
    assert complaint("closed_aq") == "unknown task 'closed_aq'; did you mean 'closed_qa'?; known: closed_qa"


@pytest.mark.usefixtures("projects")
def test_an_unknown_profile_names_the_nearest() -> None:
    assert complaint(profile="locale") == "unknown profile 'locale'; did you mean 'local'?; known: local"


@pytest.mark.usefixtures("projects")
def test_a_profile_may_be_a_file_anywhere(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base_model: other/model")

    assert load("closed_qa", str(tmp_path / "mine.yaml")).base_model == "other/model"
    assert "no profile file" in complaint(profile=str(tmp_path / "yours.yaml"))


@pytest.mark.parametrize("task", ["..", "profiles", "closed_qa/../closed_qa", ""])
@pytest.mark.usefixtures("projects")
def test_a_path_is_no_task(task: str) -> None:
    assert complaint(task).startswith("unknown task")


def test_without_a_projects_folder_the_message_says_where_one_was_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(tmp_path / "none"))

    assert f"no folder {tmp_path / 'none'}" in complaint()


def test_an_unknown_key_names_its_file_and_the_nearest_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_with(tmp_path, monkeypatch, profile={**PROFILE, "finetune": {"epoch": 1}})

    expected = f"{root}/profiles/local.yaml: unknown key finetune.epoch; did you mean 'epochs'?"
    assert complaint() == expected


def test_all_errors_are_told_at_once_each_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = {"finetune": {"lora_rank": 0}, "limts": {}}
    root = folder_with(tmp_path, monkeypatch, duo={"gate": {"precision": 70}}, profile=profile)

    lines = set(complaint(judging__repeats="many").splitlines())
    starts = {
        f"{root}/closed_qa/duo.yaml: gate: unknown figure 'precision'; did you mean 'precision_mean'?",
        f"{root}/profiles/local.yaml: finetune.lora_rank: ",
        f"{root}/profiles/local.yaml: unknown key limts; did you mean 'limits'?",
        "command line: judging.repeats: ",
        "configuration: base_model is missing",
    }
    assert len(lines) == len(starts)
    assert all(any(line.startswith(start) for line in lines) for start in starts)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", " cannot be read: line 1: "),
        ("\t- x", " cannot be read: line 1: "),
        ("a: 2024-13-45", " cannot be read: month must be in 1..12"),
        ("a: 1\na: 2", " cannot be read: line 2: the key 'a' stands twice"),
        ("[1, 2]", ": expected keys and values at the top level"),
        ("", ": expected keys and values at the top level"),
        ("just text", ": expected keys and values at the top level"),
    ],
)
def test_a_file_that_is_no_yaml_tree_is_named(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder_with(tmp_path, monkeypatch, duo=text)

    assert complaint().startswith(f"{root}/closed_qa/duo.yaml{said}")


JUDGED = GateRule("judged_share", 95)
BOTH_70 = (
    JUDGED,
    GateRule("precision_mean", 70, "lower_bound"),
    GateRule("similarity_mean", 70, "lower_bound"),
)


@pytest.mark.parametrize(
    ("gate", "rules"),
    [
        (70, BOTH_70),
        (70.0, BOTH_70),
        ("70", BOTH_70),
        ("70,by=mean", (JUDGED, GateRule("precision_mean", 70), GateRule("similarity_mean", 70))),
        ("judged_share=90,by=mean", (GateRule("judged_share", 90),)),
        (
            "precision_mean=60,precision_over_base=-10.5,by=mean",
            (JUDGED, GateRule("precision_mean", 60), GateRule("precision_over_base", -10.5)),
        ),
        ({"similarity_mean": 0}, (JUDGED, GateRule("similarity_mean", 0, "lower_bound"))),
        (
            {"similarity_mean": {"at_least": 100, "by": "mean"}, "precision_worst_slice": 40},
            (JUDGED, GateRule("precision_worst_slice", 40, "lower_bound"), GateRule("similarity_mean", 100)),
        ),
    ],
)
@pytest.mark.usefixtures("projects")
def test_a_gate_is_a_number_for_both_means_or_figures_with_their_least_values(
    gate: Any, rules: tuple[GateRule, ...]
) -> None:
    assert load("closed_qa", overrides={"gate": gate}).rules == rules


@pytest.mark.parametrize(
    "gate",
    [
        "", "high", "nan", "inf", "-1", "101", "precision_mean", "precision_mean=", "precision_mean=60,70",
        "precision_mean=60,", "precision_mean=nan", "precission_mean=60", "precision_mean=100.5",
        -0.1, 100.1, True, {}, [], {"precision_mean": -1}, {"precision_mean": True}, {"accuracy": 60},
    ],
)  # fmt: skip
@pytest.mark.usefixtures("projects")
def test_a_gate_that_is_none_is_told_as_such(gate: Any) -> None:
    assert all(line.startswith("command line: gate") for line in complaint(gate=gate).splitlines())


@pytest.mark.parametrize("typed", ["by=mean", {"by": "mean"}])
def test_settings_alone_are_about_the_rules_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Any
) -> None:
    folder_with(tmp_path, monkeypatch, duo={"gate": "precision_mean=60"})

    assert load("closed_qa", overrides={"gate": typed}).rules == (JUDGED, GateRule("precision_mean", 60))
    assert load("closed_qa", overrides={"gate.by": "mean"}).rules == (JUDGED, GateRule("precision_mean", 60))


def test_a_tasks_settings_alone_are_about_the_profiles_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = {**PROFILE, "gate": {"precision_over_base": 5}}
    folder_with(tmp_path, monkeypatch, duo={"gate": {"by": "mean"}}, profile=profile)

    assert load("closed_qa").rules == (JUDGED, GateRule("precision_over_base", 5))


def test_a_gate_as_config_json_has_it_is_checked_as_any_other() -> None:
    written = DEFAULT_GATE.model_dump()

    assert project(gate=written).gate == DEFAULT_GATE
    with pytest.raises(ValueError, match="unknown figure 'precison_mean'; did you mean 'precision_mean'"):
        project(gate={"rules": {"precison_mean": {"at_least": 70, "by": "mean"}}})


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"precision_mean": {"at_least": 70, True: "mean"}}, "precision_mean: True: a rule has at_least and by"),
        ({"by": "median", "precision_mean": 70}, "by: 'median' is neither mean nor lower_bound"),
        ({"precision_mean": {"at_least": 70, "by": "median"}}, "precision_mean: by: 'median' is neither"),
        ({"precision_mean": {"by": "mean"}}, "precision_mean: a number from 0 to 100 is wanted, not None"),
        ({}, "a gate without rules"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_under_its_name(gate: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        project(gate=gate)


def test_a_gate_replaces_the_one_below_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path, monkeypatch, duo={"gate": {"judged_share": 95, "precision_over_base": 10}})

    assert load("closed_qa", overrides={"gate": "70"}).rules == BOTH_70
    assert load("closed_qa", overrides={"gate.precision_mean": "60"}).rules == (
        JUDGED,
        GateRule("precision_mean", 60, "lower_bound"),
    )


def test_a_command_line_value_equal_to_the_default_still_wins_over_the_file(projects: Path) -> None:
    default = Project.model_fields["finetune"].default.epochs
    assert (default, load("closed_qa").finetune.epochs) == (10, 1)

    assert load("closed_qa", overrides={"finetune.epochs": default}).finetune.epochs == default
    (projects / "closed_qa" / "duo.yaml").write_text("gate: 70\nlimits: {rounds: 1}")
    assert load("closed_qa", overrides={"limits.rounds": "5"}).limits.rounds == 5


@pytest.mark.usefixtures("projects")
def test_an_override_leaves_the_other_keys_of_its_section_alone() -> None:
    changed = load("closed_qa", overrides={"finetune.epochs": 3, "finetune.seed": None})

    assert (changed.finetune.epochs, changed.finetune.lora_rank, changed.finetune.seed) == (3, 16, 42)


@pytest.mark.parametrize(
    "settings",
    [
        {"gate": "70", "gate.judged_share": "95"},
        {"gate.judged_share": "95", "gate": "70"},
        {"limits": "3", "limits.rounds": "2"},
        {"base_model": "m", "base_model.name": "n"},
    ],
)
@pytest.mark.usefixtures("projects")
def test_a_key_that_is_given_as_value_and_as_section_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="command line: "):
        load("closed_qa", overrides=settings)


KEYS = st.sampled_from(
    ["gate", "gate.precision_mean", "limits", "limits.rounds", "finetune.epochs", "base_model", "a.b"]
)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)


@given(st.dictionaries(KEYS | st.text("ab.=- ", max_size=6), VALUES, max_size=4))
@example({"..": "x", ".": 1, "": 2})
def test_any_overrides_give_a_project_or_lines_that_say_what_is_wrong(overrides: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMADUO_PROJECTS", str(REPOSITORY / "projects"))
        try:
            load("closed_qa", overrides=overrides)
        except ConfigError as error:
            assert all(": " in line for line in str(error).split("\n"))
        else:
            used = [key for key, value in overrides.items() if value is not None]
            assert {key.split(".")[0] for key in used} <= set(Project.model_fields)


@pytest.mark.usefixtures("projects")
def test_the_fingerprint_changes_with_what_shapes_results_and_with_nothing_else() -> None:
    def fingerprint(**overrides: Any) -> str:
        return load("closed_qa", overrides={k.replace("__", "."): v for k, v in overrides.items()}).fingerprint

    known = fingerprint()
    assert known == fingerprint()
    assert known == fingerprint(serving__port=9000, costs__servers=8, finetune__usd_per_hour=3)
    assert known == fingerprint(limits__rounds=9, limits__budget_usd=9)  # the same alignment goes on
    others = [fingerprint(finetune__epochs=2), fingerprint(gate=71), fingerprint(judging__repeats=2)]
    assert len({known, *others}) == 4


@pytest.mark.usefixtures("projects")
def test_the_tree_holds_the_name_of_a_secret_and_never_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_API_KEY", "planted-0123456789")
    project = load("closed_qa", overrides={"service_llm.judge.api_key_env": "X_API_KEY"})

    assert project.service_llm.judge.api_key_env == "X_API_KEY"
    assert "planted" not in project.model_dump_json() + repr(project)


@pytest.mark.parametrize("key", ["service_llm.judge.api_key", "service_llm.generator.api_key_env"])
@pytest.mark.usefixtures("projects")
def test_a_secret_where_its_name_belongs_is_refused_and_not_shown(key: str) -> None:
    message = complaint(**{key.replace(".", "__"): "sk-planted-0123456789"})

    assert key in message
    assert "planted" not in message


# The service LLM: a generator and a judge

PAID = {"model": "gpt-4o", "api_key_env": "X_API_KEY", "rpm": 500, "input_usd_per_mtok": 2.5}
WITH_PAID = {**PROFILE, "service_llm": {"judge": PAID, "generator": "gpt-4o"}}


def services(**overrides: Any) -> ServiceLLMs:
    dotted = {f"service_llm.{key.replace('__', '.')}": value for key, value in overrides.items()}
    return load("closed_qa", overrides=dotted).service_llm


@pytest.mark.usefixtures("projects")
def test_without_a_word_both_service_llms_are_the_stand_ins() -> None:
    assert [llm.model for llm in services().models] == ["offline/judge", "offline/teacher"]
    assert load("closed_qa").offline


def test_a_text_is_short_for_a_section_with_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path, monkeypatch, profile=WITH_PAID)

    assert services().generator == ServiceModel(model="gpt-4o")
    assert services().judge == ServiceModel.model_validate(PAID)
    assert not load("closed_qa").offline


def test_another_model_above_a_profiles_takes_its_place_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_with(tmp_path, monkeypatch, profile=WITH_PAID)
    other = ServiceModel(model="claude-sonnet-5.5")  # neither the key nor the price of the old one

    assert services(judge="claude-sonnet-5.5").judge == other
    assert services(judge__model="claude-sonnet-5.5").judge == other
    assert services(judge__model="claude-sonnet-5.5", judge__rpm=9).judge == other.model_copy(update={"rpm": 9})
    assert services(judge="offline/judge", generator="offline/teacher").judge == ServiceModel(model="offline/judge")


def test_the_same_model_above_a_profiles_keeps_its_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path, monkeypatch, profile=WITH_PAID)
    known = ServiceModel.model_validate(PAID)

    assert services(judge="gpt-4o").judge == services(judge__model="gpt-4o").judge == known


def test_a_setting_is_merged_into_the_section_or_the_name_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_with(tmp_path, monkeypatch, profile=WITH_PAID)
    changed = services(judge__rpm="600", generator__rpm="60")

    assert changed.judge == ServiceModel.model_validate({**PAID, "rpm": 600})
    assert changed.generator == ServiceModel(model="gpt-4o", rpm=60)


@pytest.mark.usefixtures("projects")
def test_a_setting_alone_is_about_the_stand_in() -> None:
    assert services(judge__rpm=600).judge == ServiceModel(model="offline/judge", rpm=600)
    assert services(generator__rpm=600).generator == ServiceModel(model="offline/teacher", rpm=600)


def test_a_judge_that_is_the_generator_too_is_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path, monkeypatch, profile={**PROFILE, "service_llm": {"judge": "gpt-4o", "generator": "gpt-4o"}})

    assert services().models == (ServiceModel(model="gpt-4o"),)
    assert services(judge__rpm=9).models == (ServiceModel(model="gpt-4o", rpm=9), ServiceModel(model="gpt-4o"))


@pytest.mark.parametrize(
    "setting",
    [
        {"judge__rpm": 0}, {"judge__tpm": "many"}, {"judge__concurrency": 0}, {"judge__timeout_s": 0},
        {"judge__retries": -1}, {"generator__input_usd_per_mtok": -1}, {"judge__batch": "perhaps"},
    ],
)  # fmt: skip
@pytest.mark.usefixtures("projects")
def test_a_setting_that_is_none_is_told_by_its_key(setting: dict[str, Any]) -> None:
    ((key, value),) = setting.items()

    text = complaint(**{f"service_llm__{key}": value})
    assert text.startswith(f"command line: service_llm.{key.replace('__', '.')}: ")
    assert repr(value) in text


@pytest.mark.parametrize("judge", [1, [], True, {"modle": "gpt-4o"}, {"model": []}])
def test_a_judge_that_is_no_model_is_refused(judge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_with(tmp_path, monkeypatch, profile={**PROFILE, "service_llm": {"judge": judge}})

    assert complaint().startswith(f"{root}/profiles/local.yaml: ")
    assert "service_llm.judge" in complaint()


@pytest.mark.usefixtures("projects")
def test_an_unknown_key_of_a_judge_names_the_nearest() -> None:
    assert complaint(service_llm__judge__rpn=1) == (
        "command line: unknown key service_llm.judge.rpn; did you mean 'rpm'?"
    )


@pytest.mark.usefixtures("projects")
def test_who_judges_shapes_the_results_and_how_fast_or_for_how_much_does_not() -> None:
    def fingerprint(**overrides: Any) -> str:
        dotted = {f"service_llm.{key.replace('__', '.')}": value for key, value in overrides.items()}
        return load("closed_qa", overrides=dotted).fingerprint

    known = fingerprint()
    paces = {"judge__rpm": 9, "judge__tpm": 9, "judge__concurrency": 1, "judge__retries": 1, "judge__timeout_s": 9}
    money = {"judge__input_usd_per_mtok": 1, "judge__output_usd_per_mtok": 1, "judge__api_key_env": "X_API_KEY"}
    assert fingerprint(**paces) == fingerprint(**money) == fingerprint(judge__batch=True) == known
    others = [
        fingerprint(judge="gpt-4o"),
        fingerprint(generator="gpt-4o"),
        fingerprint(judge__max_tokens=9),
        fingerprint(judge__api_base="http://here/v1"),
        fingerprint(generator__json_schema=True),
    ]
    assert len({known, *others}) == 6


@pytest.mark.parametrize("key", ["task", "folder", "profile"])
@pytest.mark.usefixtures("projects")
def test_what_the_command_line_says_once_cannot_be_set_again(key: str) -> None:
    with pytest.raises(ConfigError, match=f"command line: {key}: "):
        load("closed_qa", overrides={key: "other"})


@pytest.mark.usefixtures("projects")
def test_a_project_cannot_be_changed() -> None:
    project = load("closed_qa")
    with pytest.raises(ValueError, match="frozen"):
        setattr(project, "task", "other")  # noqa: B010 - the type checker refuses the plain assignment, as it should


def test_only_a_name_that_is_near_is_suggested() -> None:
    assert nearest("epoch", ["epochs", "seed"]) == "; did you mean 'epochs'?"
    assert nearest("xyz", ["epochs", "seed"]) == ""


# What a task says of a profile, and where its pairs are


def test_a_task_may_say_what_it_needs_of_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"local": {"inference": {"max_new_tokens": 96}}}
    profile = {**PROFILE, "inference": {"max_new_tokens": 48, "temperature": 0.3}}
    folder_with(tmp_path, monkeypatch, duo={**DUO, "profiles": own}, profile=profile)
    found = load("closed_qa", "local").inference

    assert (found.max_new_tokens, found.temperature) == (96, 0.3)
    assert load("closed_qa", "local", {"inference.max_new_tokens": 5}).inference.max_new_tokens == 5


def test_an_unknown_key_in_what_a_task_says_of_a_profile_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_with(tmp_path, monkeypatch, duo={**DUO, "profiles": {"local": {"inference": {"max_new_token": 96}}}})
    assert "unknown key inference.max_new_token; did you mean 'max_new_tokens'?" in complaint()

    folder_with(tmp_path, monkeypatch, duo={**DUO, "profiles": {"locla": {}}})
    assert "profiles: unknown profile 'locla'; did you mean 'local'?" in complaint()

    folder_with(tmp_path, monkeypatch, duo={**DUO, "profiles": ["local"]})
    assert "profiles: expected a section" in complaint()


def test_a_profile_may_say_what_a_task_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = {
        **PROFILE,
        "finetune": {"epochs": 3, "batch_size": 4},
        "tasks": {"closed_qa": {"finetune": {"batch_size": 8}}},
    }
    folder_with(tmp_path, monkeypatch, duo=DUO, profile=profile)
    found = load("closed_qa", "local").finetune
    assert (found.epochs, found.batch_size) == (3, 8)

    folder_with(
        tmp_path, monkeypatch, duo={**DUO, "profiles": {"local": {"finetune": {"batch_size": 2}}}}, profile=profile
    )
    assert load("closed_qa", "local").finetune.batch_size == 2, "the task's own word goes over the profile's"
    assert load("closed_qa", "local", {"finetune.batch_size": 1}).finetune.batch_size == 1


def test_what_a_profile_says_of_another_task_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "coding" / "duo.yaml"
    other.parent.mkdir()
    other.write_text("{}")
    profile = {**PROFILE, "finetune": {"batch_size": 4}, "tasks": {"coding": {"finetune": {"batch_size": 8}}}}
    folder_with(tmp_path, monkeypatch, duo=DUO, profile=profile)
    assert load("closed_qa", "local").finetune.batch_size == 4
    assert load("coding", "local").finetune.batch_size == 8


def test_an_unknown_task_or_key_in_what_a_profile_says_of_a_task_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_with(tmp_path, monkeypatch, duo=DUO, profile={**PROFILE, "tasks": {"closed_qs": {}}})
    assert "local.yaml: tasks: unknown task 'closed_qs'; did you mean 'closed_qa'?" in complaint()

    tasks: dict[str, Any] = {"closed_qa": {"finetune": {"epoch": 2}}}
    folder_with(tmp_path, monkeypatch, duo=DUO, profile={**PROFILE, "tasks": tasks})
    assert "local.yaml: unknown key finetune.epoch; did you mean 'epochs'?" in complaint()

    folder_with(tmp_path, monkeypatch, duo=DUO, profile={**PROFILE, "tasks": ["closed_qa"]})
    assert "tasks: expected a section" in complaint()


def test_the_source_that_a_task_names_goes_over_the_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = {**PROFILE, "coverage": {"source": "hub:team/pairs", "dev_rows": 3}}
    folder_with(tmp_path, monkeypatch, duo=DUO, profile=profile)
    assert load("closed_qa", "local").coverage.source == "hub:team/pairs"

    folder_with(tmp_path, monkeypatch, duo={**DUO, "coverage": {"source": "mine.csv"}}, profile=profile)
    found = load("closed_qa", "local").coverage
    assert (found.source, found.dev_rows) == ("mine.csv", 3)

    own = {**DUO, "coverage": {"source": "mine.csv"}, "profiles": {"local": {"coverage": {"source": "laptop.csv"}}}}
    folder_with(tmp_path, monkeypatch, duo=own, profile=profile)
    assert load("closed_qa", "local").coverage.source == "laptop.csv"
    assert load("closed_qa", str(tmp_path / "profiles" / "local.yaml")).coverage.source == "laptop.csv"


@pytest.mark.parametrize(
    ("source", "redact", "on"),
    [
        ("traces:shop", "auto", True),
        ("pairs.jsonl", "auto", False),
        ("pairs.jsonl", "true", True),
        ("traces:shop", False, False),
    ],
)
@pytest.mark.usefixtures("projects")
def test_redaction_is_on_for_traces_unless_somebody_says_otherwise(source: str, redact: object, on: bool) -> None:
    assert load("closed_qa", "local", {"coverage.source": source, "coverage.redact": redact}).coverage.redacts is on


@pytest.mark.usefixtures("projects")
def test_a_kind_that_cannot_be_redacted_is_told() -> None:
    assert "did you mean 'email'?" in complaint(**cast(Any, {"coverage.redact_kinds": ["emial"]}))


@pytest.mark.parametrize(("growth", "rows"), [("fixed", [8, 8, 8, 8]), ("doubling", [8, 8, 16, 32])])
@pytest.mark.usefixtures("projects")
def test_the_volume_ladder_doubles_the_rows_in_all(growth: str, rows: list[int]) -> None:
    asked = load("closed_qa", "local", {"synthesis.rows_per_round": 8, "synthesis.growth": growth}).synthesis

    assert [asked.rows(number) for number in range(1, 5)] == rows
