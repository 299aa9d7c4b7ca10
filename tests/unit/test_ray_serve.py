"""The deployments target `ray-serve` without a cluster: settings, addresses, bodies, and MLflow's rules."""

import inspect
import json
from typing import Any

import mlflow.deployments
import numpy as np
import pandas as pd
import pytest
from mlflow.deployments.interface import plugin_store

from mlflow_llamaduo.errors import ConfigError, DataError
from mlflow_llamaduo.plugins import deployments
from mlflow_llamaduo.plugins.ray_serve.asking import chat_bodies, scoring_body
from mlflow_llamaduo.plugins.ray_serve.models import Model
from mlflow_llamaduo.plugins.ray_serve.settings import Settings, parsed
from mlflow_llamaduo.plugins.ray_serve.target import address_of


def test_mlflow_finds_the_target_and_its_client() -> None:
    assert plugin_store["ray-serve"] is deployments
    client = mlflow.deployments.get_deploy_client("ray-serve:/10.0.0.5:6379")
    assert isinstance(client, deployments.RayServeClient)
    for name, method in inspect.getmembers(mlflow.deployments.BaseDeploymentClient, inspect.isfunction):
        if getattr(method, "__isabstractmethod__", False):
            ours = inspect.signature(getattr(deployments.RayServeClient, name)).parameters
            assert list(ours) == list(inspect.signature(method).parameters), name


def test_the_help_names_every_key() -> None:
    for key in Settings.model_fields:
        assert f"{key}=" in deployments.target_help()


def test_the_commands_strings_are_numbers() -> None:
    given = {"num_replicas": "2", "num_gpus": "0.5", "accelerator_type": "L4", "max_ongoing_requests": "16"}
    settings = parsed(given)
    assert settings.kept == {"num_replicas": 2, "num_gpus": 0.5, "accelerator_type": "L4", "max_ongoing_requests": 16}
    assert settings.options == {"num_replicas": 2, "max_ongoing_requests": 16}
    assert settings.resources == {"num_gpus": 0.5, "accelerator_type": "L4"}
    assert parsed(None).options == parsed({}).kept == {}
    autoscaling = {"min_replicas": 1, "max_replicas": 4}
    assert parsed({"max_replicas": "4"}).options == {"autoscaling_config": autoscaling}


def test_the_newer_word_on_how_many_takes_the_place_of_the_older() -> None:
    before = {"num_replicas": 3, "num_cpus": 2.0}
    assert parsed({"max_replicas": 4}, before).kept == {"max_replicas": 4, "num_cpus": 2.0}
    assert parsed({"num_replicas": 1}, {"min_replicas": 1, "max_replicas": 4}).kept == {"num_replicas": 1}
    assert parsed({"timeout_s": 5, "http_port": 8001}, before).kept == before


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"num_replica": 2}, "-C num_replica: unknown key; did you mean 'num_replicas'?"),
        ({"config.num_replicas": 2}, "-C config.num_replicas: unknown key; did you mean 'num_replicas'?"),
        ({"zzz": 2}, "-C zzz: unknown key; known: num_replicas, min_replicas"),
        ({"num_replicas": "two"}, "-C num_replicas=two: Input should be a valid integer"),
        ({"num_replicas": 0}, "-C num_replicas=0: Input should be greater than or equal to 1"),
        ({"num_replicas": 1, "max_replicas": 2}, "-C num_replicas is a fixed number: leave it out"),
        ({"min_replicas": 1}, "-C min_replicas: give max_replicas too"),
        ({"min_replicas": 3, "max_replicas": 2}, "-C min_replicas 3 is more than max_replicas 2"),
        ({"route_prefix": "qa"}, "-C route_prefix=qa: expected /, or a path such as /qa"),
        ({"route_prefix": "/qa/"}, "-C route_prefix=/qa/: expected /"),
        (
            {"http_port": 0, "num_cpus": -1},
            "-C num_cpus=-1: Input should be greater than or equal to 0; -C http_port=0",
        ),
    ],
)
def test_what_cannot_be_is_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parsed(given)
    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("target", "variable", "address"),
    [
        ("ray-serve", "", "auto"),
        ("ray-serve", "auto", "auto"),
        ("ray-serve:/", "10.0.0.5:6379", "10.0.0.5:6379"),
        ("ray-serve:/head:6380", "10.0.0.5:6379", "head:6380"),
        ("ray-serve://[::1]:6379", "", "[::1]:6379"),
    ],
)
def test_the_target_comes_before_the_variable(target: str, variable: str, address: str) -> None:
    assert address_of(target, {"RAY_ADDRESS": variable}) == address


@pytest.mark.parametrize(
    ("target", "variable", "match"),
    [
        (
            "ray-serve",
            "local",
            r"^RAY_ADDRESS=local: a deployment wants a cluster that runs: start one with `ray start",
        ),
        ("ray-serve:/local", "", r"^-t ray-serve:/local: a deployment wants a cluster that runs"),
        ("ray-serve:/http://head:8265", "", r"^-t ray-serve:/http://head:8265 is no address of a running cluster"),
        ("ray-serve", "ray://head:10001", r"^RAY_ADDRESS=ray://head:10001 is no address of a running cluster"),
    ],
)
def test_what_is_no_address_is_told_before_ray_is_asked(target: str, variable: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        address_of(target, {"RAY_ADDRESS": variable})


def test_inputs_become_a_body_of_the_scoring_protocol() -> None:
    frame = pd.DataFrame({"x": [1.0]})
    assert json.loads(scoring_body(frame))["dataframe_split"]["data"] == [[1.0]]
    assert json.loads(scoring_body(np.array([[1]]))) == {"inputs": [[1]]}
    assert json.loads(scoring_body([1, 2])) == {"inputs": [1, 2]}
    assert json.loads(scoring_body("word")) == {"inputs": ["word"]}
    assert json.loads(scoring_body({"a": np.array([1])})) == {"inputs": {"a": [1]}}
    whole: dict[str, Any]
    for whole in ({"inputs": [1]}, {"dataframe_records": [{"a": 1}], "params": {"p": 1}}, {"messages": []}):
        assert json.loads(scoring_body(whole)) == whole


def test_prompts_and_conversations_become_chat_bodies() -> None:
    message = {"role": "user", "content": "When?"}
    alone = {"messages": [message]}
    for inputs in (
        "When?",
        ["When?"],
        {"prompt": "When?"},
        {"prompt": ["When?"]},
        pd.DataFrame({"prompt": ["When?"]}),
    ):
        assert chat_bodies(inputs) == [alone]
    assert chat_bodies(pd.DataFrame({"n": [1], "prompt": ["When?"]})) == [alone]
    assert chat_bodies(pd.DataFrame({"question": ["When?"]})) == [alone]
    assert chat_bodies({**alone, "n": 2}) == {**alone, "n": 2}
    # As MLflow's command reads a file with one chat body, and one with a list of them.
    assert chat_bodies(pd.DataFrame({"messages": [message, message], "n": [2, 2]})) == {
        "messages": [message] * 2,
        "n": 2,
    }
    assert chat_bodies(pd.DataFrame({"messages": [[message], [message]]})) == [alone, alone]
    for wrong in (7, [7], {"text": "When?"}, pd.DataFrame()):
        with pytest.raises(DataError, match="inputs of a llamaduo model are a prompt, a list of prompts"):
            chat_bodies(wrong)


def test_a_version_of_ours_is_asked_by_what_it_was_deployed_as() -> None:
    for which, called in (("@champion", "closed_qa"), ("@challenger", "closed_qa@challenger"), ("/7", "closed_qa@7")):
        model = Model(f"models:/llamaduo-closed_qa{which}", "models:/llamaduo-closed_qa/7", 7, "closed_qa")
        assert model.asked_as == called
    assert Model("models:/other@champion", "models:/other/7", 7).asked_as == ""
