"""The endpoint over a real registry: names, adapters that come and go, champions that change, failures."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlflow_llamaduo.core.shadowed import Shadowed
from tests.integration import tiny
from tests.integration.hostile import hostile
from tests.integration.served import Answer, Registry, ask, endpoint, get, post, registry
from tools.servers import free_port

WITHIN_S = 10.0
"""What a running service promises."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Of closed_qa four good versions, the champion and the challenger among them, and two that do not load."""
    folder = tmp_path_factory.mktemp("lab")
    port = free_port()
    made = Registry(f"http://127.0.0.1:{port}", folder, tiny.base(folder / "base"))
    with registry(folder, port):
        for seed in range(1, 5):
            made.publish("closed_qa", seed)
        made.publish("closed_qa", 5, broken=True)
        made.publish("closed_qa", 6, base=tiny.base(folder / "another", seed=7))
        made.publish("coding", 9)
        for task, alias, number in (
            ("closed_qa", "champion", 1),
            ("closed_qa", "challenger", 4),
            ("coding", "champion", 1),
        ):
            made.alias(task, alias, number)
        yield made


@pytest.fixture(scope="module")
def url(lab: Registry) -> Iterator[str]:
    sizes = {"adapters": 2, "batch_size": 4, "waiting": 400, "max_new_tokens": 64, "refresh_seconds": 1}
    settings = [part for key, value in sizes.items() for part in ("--set", f"serving.{key}={value}")]
    with endpoint(lab, "--task", "closed_qa", "--also", "coding", *settings) as found:
        yield found


@pytest.fixture(autouse=True)
def _first_champion(request: pytest.FixtureRequest, lab: Registry) -> Iterator[None]:
    """Whatever a test does to the aliases, the next one finds them as they were."""
    yield
    lab.alias("closed_qa", "champion", 1)
    if "url" in request.fixturenames:
        until(request.getfixturevalue("url"), 1)


@pytest.fixture(scope="module")
def said(url: str) -> dict[int, str]:
    """What each version answers when it is asked alone."""
    texts = {number: ask(url, f"closed_qa@{number}").text for number in range(1, 5)}
    assert len(set(texts.values())) == 4
    return texts


def until(url: str, number: int, within_s: float = WITHIN_S) -> float:
    """Seconds until the champion's name is answered by a version."""
    began = time.monotonic()
    while (found := ask(url, "closed_qa", max_tokens=1)).version != number:
        assert time.monotonic() - began < within_s, found
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_task_an_alias_and_a_number_are_answered_by_their_versions(url: str, said: dict[int, str]) -> None:
    for model, number in (
        ("closed_qa", 1),
        ("closed_qa@challenger", 4),
        ("closed_qa@3", 3),
        ("closed_qa@champion", 1),
    ):
        found = ask(url, model)
        assert (found.status, found.version, found.text) == (200, number, said[number])
        assert found.headers["x-llamaduo-answered-by"] == found.body["model"] == f"closed_qa@{number}"
    coding = ask(url, "coding")
    assert coding.text not in said.values()
    assert coding.body["model"] == "coding@1"


@pytest.mark.parametrize("model", ["closed_qa@previous", "closed_qa@77", "gpt-4o", "../coding", "closed_qa@0", ""])
def test_what_there_is_not_is_a_404_that_says_what_there_is(url: str, model: str) -> None:
    found = ask(url, model)
    assert (found.status, found.body["error"]["code"]) == (404, "model_not_found")
    assert "closed_qa, closed_qa@challenger, closed_qa@6" in found.body["error"]["message"]


def test_the_models_are_listed_and_each_can_be_looked_at(url: str) -> None:
    names = [model["id"] for model in get(f"{url}/v1/models").body["data"]]
    assert names[:3] == ["closed_qa", "closed_qa@challenger", "closed_qa@6"]
    assert get(f"{url}/v1/models/closed_qa@challenger").body["id"] == "closed_qa@challenger"
    assert get(f"{url}/v1/models/closed_qa@99").status == 404


def test_more_versions_than_are_kept_take_turns_and_each_answer_is_its_own(url: str, said: dict[int, str]) -> None:
    asked = [1 + number % 4 for number in range(32)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: ask(url, f"closed_qa@{number}"), asked))
    assert [answer.text for answer in found] == [said[number] for number in asked]


@pytest.mark.parametrize("number", [5, 6])
def test_a_version_that_cannot_be_loaded_is_refused_and_nothing_answers_for_it(
    url: str, said: dict[int, str], number: int
) -> None:
    for stream in (False, True):
        found = ask(url, f"closed_qa@{number}", stream=stream)
        assert (found.status, found.body["error"]["code"]) == (503, "model_not_loaded")
        assert int(found.headers["retry-after"]) > 0
        assert "/" not in found.body["error"]["message"], "a path of the server"
    assert ask(url, "closed_qa@2").text == said[2]


def test_a_new_champion_and_a_rollback_answer_within_seconds_without_a_dropped_or_mixed_request(
    url: str, lab: Registry, said: dict[int, str]
) -> None:
    over = threading.Event()

    def keep_asking() -> list[Answer]:
        found = []
        while not over.is_set():
            found.append(ask(url, "closed_qa"))
        return found

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking) for _ in range(4)]
        took = []
        try:
            for number in (3, 1, 2):
                lab.alias("closed_qa", "champion", number)
                took.append(until(url, number))
        finally:
            over.set()
        found = [answer for future in asking for answer in future.result()]
    assert {answer.status for answer in found} == {200}
    assert {answer.version for answer in found} == {1, 2, 3}
    assert all(answer.text == said[answer.version] for answer in found)
    assert max(took) < WITHIN_S


def test_a_champion_that_does_not_load_is_not_served_and_the_one_before_stays(
    url: str, lab: Registry, said: dict[int, str]
) -> None:
    lab.alias("closed_qa", "champion", 5)
    deadline = time.monotonic() + WITHIN_S
    while not (health := get(f"{url}/healthz")).body["behind"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert health.status == 200
    assert health.body["versions"]["closed_qa"] == 1
    assert ask(url, "closed_qa").text == said[1]
    assert ask(url, "closed_qa@champion").version == 1


def test_five_hundred_hostile_requests_are_refused_and_nobody_else_notices(url: str, said: dict[int, str]) -> None:
    def attack(number: int) -> Answer:
        body, headers = hostile(number)
        return post(f"{url}/v1/chat/completions", body, headers)

    with ThreadPoolExecutor(8) as pool:
        attacks = pool.map(attack, range(500))
        meanwhile = [ask(url, f"closed_qa@{1 + n % 2}") for n in range(10)]
        found = list(attacks)
    assert [answer.text for answer in meanwhile] == [said[1 + n % 2] for n in range(10)]
    bad = {
        n: (answer.status, str(answer.body)[:200]) for n, answer in enumerate(found) if not 400 <= answer.status < 500
    }
    assert not bad
    for answer in found:
        assert set(answer.body["error"]) == {"message", "type", "param", "code"}
        assert "Traceback" not in str(answer.body)
        assert "/site-packages/" not in str(answer.body)


def test_a_replica_that_dies_under_load_costs_no_request_that_had_not_begun_and_comes_back(
    url: str, lab: Registry, said: dict[int, str]
) -> None:
    (replica,) = [p for p in psutil.process_iter(["cmdline"]) if is_replica(p, lab)]
    with ThreadPoolExecutor(12) as pool:
        asking = [pool.submit(ask, url, "closed_qa") for _ in range(200)]
        time.sleep(0.3)
        replica.kill()
        found = [future.result() for future in asking]
    assert {answer.status for answer in found} <= {200, 503}
    assert all(answer.text == said[1] for answer in found if answer.status == 200)
    assert all(int(answer.headers["retry-after"]) > 0 for answer in found if answer.status == 503)
    until_true(lambda: ask(url, "closed_qa").status == 200)
    assert ask(url, "closed_qa").text == said[1]


def is_replica(process: psutil.Process, lab: Registry) -> bool:
    """Whether a process is the replica of this module's endpoint, and not of somebody else's."""
    try:
        named = any("ServeReplica:llamaduo:Replica" in part for part in process.cmdline())
        return named and process.environ().get("LLAMADUO_CACHE") == str(lab.folder / "cache")
    except psutil.Error:
        return False


def metric(url: str, name: str, **labels: str) -> float:
    """The value of a metric, summed over all that has these labels."""
    families = text_string_to_metric_families(str(get(f"{url}/metrics").body))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


def test_what_was_answered_is_counted_by_task_and_version(url: str) -> None:
    def counts() -> list[float]:
        own = {"task": "closed_qa", "version": "3"}
        return [
            metric(url, "llamaduo_requests_total", **own, answered_by="named", status="200"),
            metric(url, "llamaduo_tokens_total", **own, kind="completion"),
            metric(url, "llamaduo_tokens_total", **own, kind="prompt"),
            metric(url, "llamaduo_time_to_first_token_seconds_count", **own),
            metric(url, "llamaduo_refused_total", status="404"),
        ]

    before = counts()
    usage = ask(url, "closed_qa@3", max_tokens=5).body["usage"]
    ask(url, "nobody")
    more = [after - earlier for after, earlier in zip(counts(), before, strict=True)]
    assert more == [1, usage["completion_tokens"], usage["prompt_tokens"], 1, 1]
    assert metric(url, "llamaduo_champion_version", task="closed_qa") == 1
    assert metric(url, "llamaduo_requests_open") == 0


def test_a_canary_answers_some_and_the_same_ones_always_and_a_service_llm_what_fails(
    lab: Registry, said: dict[int, str]
) -> None:
    shadow = {"shadow.percent": 100, "shadow.judged": 1, "shadow.usd_per_day": 1}
    settings = {"canary.percent": 50, "fallback.usd_per_day": 1, "max_new_tokens": 64, "trace_share": 1, **shadow}
    options = [part for key, value in settings.items() for part in ("--set", f"serving.{key}={value}")]
    with endpoint(lab, *options) as url:
        found = {user: [ask(url, "closed_qa", user=user) for _ in range(2)] for user in map(str, range(12))}
        assert {answers[0].version for answers in found.values()} == {1, 4}
        for first, second in found.values():
            assert first.version == second.version
            assert first.text == second.text == said[first.version]
            assert first.headers["x-llamaduo-route"] == ("champion" if first.version == 1 else "canary")
        fell = ask(url, "closed_qa@5", "The mill was built in 1911.\n\nWhen was the mill built?")
        assert (fell.status, fell.headers["x-llamaduo-route"]) == (200, "service_llm")
        assert fell.body["model"] == fell.headers["x-llamaduo-answered-by"] == "offline/teacher"
        assert fell.text
        assert "x-llamaduo-version" not in fell.headers
        assert ask(url, "closed_qa@5", n=2).status == 503, "what the service LLM cannot do stays refused"
        assert ask(url, "nobody").status == 404, "and so do a client's own mistakes"
        told = ask(url, "closed_qa@2", "Write to anna.berg@example.com who built the mill?", max_tokens=64)
        copies = sum(2 for first, _ in found.values() if first.version == 1)
        until_true(lambda: judged(shadowed(lab, 4)) + metric(url, "llamaduo_shadow_lost_total") >= copies)
        lost = metric(url, "llamaduo_shadow_lost_total", task="closed_qa")
        until_true(lambda: any(kept.info.tags["llamaduo.completion"] == told.body["id"] for kept in traces(lab)))
    counts = shadowed(lab, 4)
    assert (counts.against, counts.copies + lost, counts.failed) == (1, copies, 0)
    assert 0 < judged(counts) == counts.copies, "of what was copied all was judged"
    assert lab.client.get_model_version("llamaduo-closed_qa", "1").tags.get("llamaduo.shadow") is None
    (trace,) = [t for t in traces(lab) if t.info.tags["llamaduo.completion"] == told.body["id"]]
    assert trace.info.tags["llamaduo.version"] == "2"
    kept = trace.data.request + trace.data.response
    assert "anna.berg" not in kept
    assert "who built the mill?" in kept
    assert told.text[:20] in trace.data.response.replace("\\n", "\n")


def until_true(seen: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait for something that comes in a while."""
    deadline = time.monotonic() + within_s
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def shadowed(lab: Registry, number: int) -> Shadowed:
    """What a version's tag says of its shadow."""
    return Shadowed.of(lab.client.get_model_version("llamaduo-closed_qa", str(number)).tags.get("llamaduo.shadow"), 1)


def judged(counts: Shadowed) -> int:
    """Copies whose duel has ended, one way or the other."""
    return counts.wins + counts.ties + counts.losses + counts.flips + counts.unjudged


def traces(lab: Registry) -> list[Any]:
    """The traces of what was served."""
    found = lab.client.get_experiment_by_name("llamaduo-closed_qa-served")
    return list(lab.client.search_traces(locations=[found.experiment_id], max_results=200))


def test_it_starts_and_serves_from_its_cache_while_mlflow_is_away(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("away")
    port = free_port()
    made = Registry(f"http://127.0.0.1:{port}", folder, tiny.base(folder / "base"))
    with registry(folder, port) as server:
        for seed in (1, 2):
            made.publish("closed_qa", seed)
        made.alias("closed_qa", "champion", 1)
        with endpoint(made, "--set", "serving.refresh_seconds=1") as url:
            before = ask(url, "closed_qa")
            server.terminate()
            server.wait(60)
            deadline = time.monotonic() + 30
            while get(f"{url}/healthz").body["mlflow"] == "ok":
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert replace(ask(url, "closed_qa"), body=None, headers={}).status == 200
    with endpoint(made, "--set", "serving.refresh_seconds=1") as url:
        assert get(f"{url}/healthz").body["mlflow"] == "away"
        assert ask(url, "closed_qa").text == before.text
        assert ask(url, "closed_qa@2").status == 503, "its files were never fetched"
        with registry(folder, port):
            made.alias("closed_qa", "champion", 2)
            until(url, 2, 30)
            assert json.loads(json.dumps(get(f"{url}/healthz").body))["mlflow"] == "ok"
