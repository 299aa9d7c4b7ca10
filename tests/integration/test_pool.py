"""The pool of engines on real Ray actors: whoever answers, the answers are the same."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_llamaduo.base_models import BaseModelFolder
from mlflow_llamaduo.cluster import cluster
from mlflow_llamaduo.config import Inference
from mlflow_llamaduo.core.records import Adapter, PairSet, Response
from mlflow_llamaduo.errors import StageError
from mlflow_llamaduo.files import folder_digest
from mlflow_llamaduo.inference import EnginePool
from tests.contract.adapters import made_up_adapter
from tests.tiny import tiny_base, tiny_pairs

SETTINGS = Inference(responses_per_prompt=2, max_new_tokens=6, batch_size=4, gpus=0, temperature=1.0)
PROMPTS = tiny_pairs(10)


@pytest.fixture(scope="module", autouse=True)
def connected() -> Iterator[None]:
    with cluster():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFolder:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def pool(base: BaseModelFolder) -> Iterator[EnginePool]:
    pool = EnginePool(base, SETTINGS)
    yield pool
    pool.release()


def answers(pool: EnginePool, adapter: Adapter | None = None, prompts: PairSet = PROMPTS) -> tuple[Response, ...]:
    return pool.answer(prompts, adapter, done=lambda _: None)


def test_two_actors_answer_as_one_does_and_in_order(base: BaseModelFolder, pool: EnginePool) -> None:
    one = answers(pool)
    assert [(r.pair_id, r.sample) for r in one] == [(pair.id, sample) for pair in PROMPTS for sample in (0, 1)]
    two = EnginePool(base, SETTINGS.model_copy(update={"actors": 2}))
    assert answers(two) == one
    two.release()


def test_every_prompt_is_counted_once(pool: EnginePool) -> None:
    told: list[int] = []
    pool.answer(PROMPTS, None, done=told.append)
    assert sum(told) == len(PROMPTS)
    assert max(told) == 2  # batch_size over responses_per_prompt


def test_an_adapter_travels_as_files_and_comes_off_again(
    base: BaseModelFolder, pool: EnginePool, tmp_path: Path
) -> None:
    path = made_up_adapter(base.path, tmp_path / "adapter", size=1.0)
    adapter = Adapter(str(path), folder_digest(path), base.name, base.digest, 0.0, 0.0, 1.0, 1, 1.0)
    bare, changed = answers(pool), answers(pool, adapter)
    assert [r.text for r in bare] != [r.text for r in changed]
    (path / "adapter_model.safetensors").rename(path / "gone")  # the actors have what they need
    assert answers(pool, adapter) == changed
    assert answers(pool) == bare


def test_an_actor_that_dies_is_started_again_and_its_batch_asked_anew(pool: EnginePool) -> None:
    before = answers(pool)
    actor = pool.run(os.getpid)
    killed: list[int] = []

    def kill(_: int) -> None:
        if not killed:
            os.kill(actor, signal.SIGKILL)
            killed.append(actor)

    assert pool.answer(PROMPTS, None, done=kill) == before
    assert killed
    assert pool.run(os.getpid) != actor


def test_what_kills_every_process_that_tries_it_is_told_with_the_way_out(base: BaseModelFolder) -> None:
    pool = EnginePool(base, SETTINGS)
    with pytest.raises(StageError, match=r"died 3 times .* set a smaller inference\.batch_size"):
        pool.run(os._exit, 1)
    pool.release()
