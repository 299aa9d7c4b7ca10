"""What a run says of itself before anything has happened: tags, parameters, the resolved configuration."""

import json

import mlflow
from mlflow import MlflowClient

from mlflow_llamaduo import __version__
from mlflow_llamaduo.config import Project
from mlflow_llamaduo.service_llm.family import told

STAND_IN = (
    "The service LLM of this run is an offline stand-in: pairs come from a grammar and scores from reference "
    "metrics (token F1, ROUGE-L, containment). They are not an LLM's opinion."
)


def describe(project: Project) -> None:
    """Tags, parameters and config.json of the active run."""
    mlflow.set_tags(
        {
            "llamaduo.task": project.task,
            "llamaduo.fingerprint": project.fingerprint,
            "llamaduo.version": __version__,
            "llamaduo.offline_stand_ins": str(project.offline).lower(),
            "llamaduo.judge_family": told(project.service_llm),
            **({"mlflow.note.content": STAND_IN} if project.offline else {}),
        }
    )
    resolved = project.model_dump(mode="json", exclude={"folder"})
    mlflow.log_dict(resolved, "config.json")
    settled = {key: value for key, value in resolved.items() if key != "limits"}
    mlflow.set_tag("llamaduo.limits", json.dumps(resolved["limits"]))  # a tag: they may change as it goes on
    declared = set(MlflowClient().get_run(mlflow.active_run().info.run_id).data.params)
    mlflow.log_params({k: v for k, v in _flat(settled).items() if k not in declared})


def _flat(tree: dict[str, object], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and key != "gate":
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat
