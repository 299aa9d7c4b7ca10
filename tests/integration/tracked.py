"""A small alignment in a real MLflow: two baselines and a round, told by the tracker."""

from dataclasses import replace

from mlflow import MlflowClient

from mlflow_llamaduo.core.ledger import Entry
from mlflow_llamaduo.core.pairwise import tally
from mlflow_llamaduo.core.records import Comparison, Grown, PairSet, Rejected, TaskPrompt
from mlflow_llamaduo.core.rounds import Judged, Split, State
from mlflow_llamaduo.coverage.gathered import Gathered
from mlflow_llamaduo.coverage.source import Report
from mlflow_llamaduo.journal import Journal
from mlflow_llamaduo.tracking import Tracker
from tests.unit.builders import adapter, card, pair, project, response, round_, verdict

NOTHING = PairSet(())
GATHERED = Gathered(
    Split(NOTHING, NOTHING, NOTHING),
    Report("pairs.jsonl", 3, 1, {"messages": 1}, {"no_answer": 2}, {"email": 1}, {}),
    (),
)


def judged(text: str = "Arn") -> Judged:
    responses = tuple(response(text, pair_id=f"p{number}", sample=0) for number in range(3))
    judgements = tuple(verdict(r.id, 60.0 + n, reason="near | right") for n, r in enumerate(responses))
    compared = tuple(
        Comparison(r.id, "reference", "judge", first, "win") for r in responses for first in (True, False)
    )
    return Judged(responses, judgements, compared, {"exact_match": 12.5})


def recorded(journal: Journal, text: str = "Arn") -> Tracker:
    """An alignment with two baselines and one round, whose version is in the registry."""
    client = MlflowClient()
    if not client.search_registered_models():
        client.create_registered_model("llamaduo-test")
        client.create_model_version("llamaduo-test", "nowhere")
    tracker = Tracker(
        project(), GATHERED, journal, {"judge": TaskPrompt("test", "Judge.")}, lambda: (Entry("base", "judge", 0.25),)
    )
    state = State(NOTHING, NOTHING, NOTHING)
    with tracker.alignment():
        for name, value in (("base", 40.0), ("service_llm", 80.0)):
            tracker.baseline(name, name, card(value, value), judged(name), state)
            state = state.with_baseline(name, card(value, value))
        with tracker.round(0) as log:
            duels = (tally(judged().comparisons),)
            finished = replace(round_(0, 60.0), duels=duels, calls_saved=7, reference={"exact_match": 12.5})
            others = replace(finished, others=(card(50, judge="acme/judge@2"),))
            rejected = pair("Which <b>town</b>?", text)
            grown = Grown((), (Rejected(rejected, "leak", "a test prompt"),))
            log.record(others, state.baselines, adapter(), NOTHING, grown, judged(text))
        state = state.after(others, NOTHING, adapter())
        tracker.finish(state, "rounds")
    return tracker
