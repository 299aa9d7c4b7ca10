"""The reference metrics as `evaluate.Metric`: the same figures, no network, nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest

from mlflow_llamaduo.core.records import Response
from mlflow_llamaduo.judging.metrics import METRICS, ChrF, ExactMatch, RougeL
from mlflow_llamaduo.judging.reference import SCORES, measure

ROOT = Path(__file__).parents[2]
NAMES = tuple(METRICS)
REFERENCES = ["The old mill.", "in 1902", "A", "\u6771\u4eac"]
RESPONSES = ["old mill", "In the year 1902.", "", "half \ud800 \x00"]

ALONE = """
import json, socket

def refuse(*_, **__):
    raise AssertionError("a metric tried to reach a network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from mlflow_llamaduo.judging.metrics import METRICS

texts = {"references": ["The old mill."] * 500, "predictions": ["An old windmill"] * 500}
print(json.dumps([metric().compute(**texts) for metric in METRICS.values()]))
"""


def test_there_is_a_metric_for_every_score() -> None:
    assert tuple(SCORES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_gives_what_the_loop_reckons(name: str) -> None:
    pairs = zip(REFERENCES, RESPONSES, strict=True)
    responses = [Response("p0", n, "Which?", reference, text, 3) for n, (reference, text) in enumerate(pairs)]

    assert METRICS[name]().compute(predictions=RESPONSES, references=REFERENCES) == measure(responses, [name])


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_says_what_it_is_and_whose(name: str) -> None:
    metric = METRICS[name]()

    assert isinstance(metric, evaluate.Metric)
    assert metric.name == name
    assert "0 to 100" in metric.description
    assert "0 to 100" in metric.inputs_description
    assert metric.citation


def test_a_metric_is_used_again_and_takes_texts_one_by_one() -> None:
    metric = ExactMatch()
    metric.add(prediction="Arn\udc00", reference="Arn \udc00")
    metric.add_batch(predictions=("Bel", "Col"), references=("Arn", "Dun"))

    assert metric.compute() == {"exact_match": pytest.approx(100 / 3)}
    assert metric.compute(predictions=["Arn"], references=["Arn"]) == {"exact_match": 100}


def test_metrics_can_be_combined() -> None:
    both = evaluate.combine([RougeL(), ChrF()])
    both.add(prediction="Arn", reference="Arn")

    assert both.compute(predictions=["Arn"], references=["Bel"]) == {"rouge_l": 50, "chrf": 50}


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        (["Arn"], None),
        (["Arn", None], ["Arn", "Bel"]),
        (["3", 3], ["3", "3"]),
        ("Arn", "Arn"),
        (["Arn"], ["Arn", "B"]),
    ],
)
def test_what_are_not_two_lists_of_texts_is_refused(predictions: object, references: object) -> None:
    with pytest.raises(ValueError, match=r"lists of texts|Mismatch"):
        ExactMatch().compute(predictions=predictions, references=references)


def test_two_processes_at_once_need_no_network_and_leave_no_files(tmp_path: Path) -> None:
    places = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "TMPDIR")}
    environment = {**os.environ, **places, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("HF_METRICS_CACHE", "HF_EVALUATE_CACHE", "HF_MODULES_CACHE", "HF_DATASETS_CACHE"):
        environment.pop(name, None)
    running = [
        subprocess.Popen([sys.executable, "-c", ALONE], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate()[0] for process in running]

    assert [process.returncode for process in running] == [0, 0]
    assert told[0] == told[1]
    assert [next(iter(found)) for found in json.loads(told[0])] == [*NAMES]
    left = [path for path in tmp_path.rglob("*") if not path.name.startswith("torchinductor_")]  # torch's own
    assert left == []
