"""Both writers of a serving replica keep the same promises, on the real small model with made-up adapters."""

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlflow_llamaduo.base_models import resolve
from mlflow_llamaduo.errors import BaseModelError, DataError
from mlflow_llamaduo.inference.engine import ADAPTER_CONFIG, WEIGHTS, Sampling, Step
from mlflow_llamaduo.inference.vllm_engine import missing
from mlflow_llamaduo.serving.vllm_writer import VllmWriter
from mlflow_llamaduo.serving.writer import TransformersWriter, Writer
from tests.contract.adapters import RANK, made_up_adapter
from tests.requirements import required
from tests.tiny import tiny_base

pytestmark = pytest.mark.e2e

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
ADAPTERS = 4
ROWS = 8
QUESTIONS = [
    "Into which sea does the Danube flow?",
    "Hi",
    "The mill at Orbe was built in 1887 by two brothers, and burnt down in 1911. When was the mill built?",
    "Name a colour.",
]
GREEDY = Sampling(6)
WARM = Sampling(8, temperature=1.0, seed=7)
NONE: frozenset[int] = frozenset()

Run = Callable[[Awaitable[Any]], Any]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Wait for something in the one event loop that a writer is used from."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def of(what: Awaitable[Any]) -> Any:
        return await what

    yield lambda what: asyncio.run_coroutine_threadsafe(of(what), loop).result(240)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.fixture(scope="module")
def base() -> Path:
    try:
        return resolve(BASE).path
    except BaseModelError as error:
        assert "vllm" not in required(), error
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folders(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """As many as there are slots; they differ in their first word already."""
    root = tmp_path_factory.mktemp("adapters")
    return [made_up_adapter(base, root / str(seed), seed=seed, size=0.2) for seed in range(ADAPTERS)]


@pytest.fixture(scope="module")
def prompts(base: Path) -> list[list[int]]:
    from mlflow_llamaduo.inference.voice import Voice

    voice = Voice(base, None, "own")
    return [voice.prompt_ids([{"role": "user", "content": text}]) for text in QUESTIONS]


@pytest.fixture(scope="module")
def transformers_writer(base: Path) -> Writer:
    return TransformersWriter(base, adapters=ADAPTERS, rows=ROWS)


def vllm_or_skip() -> None:
    if problem := missing():
        assert "vllm" not in required(), problem
        pytest.skip("vLLM has an environment of its own: make test-vllm")


@pytest.fixture(scope="module")
def vllm_writer(base: Path) -> Iterator[VllmWriter]:
    vllm_or_skip()
    writer = VllmWriter(str(base), lora_rank=RANK, adapters=ADAPTERS, rows=ROWS, gpus=0)
    yield writer
    writer.close()


@pytest.fixture(params=["transformers_writer", "vllm_writer"])
def writer(request: pytest.FixtureRequest) -> Writer:
    found: Writer = request.getfixturevalue(request.param)
    return found


async def steps(
    writer: Writer, ids: list[int], sampling: Sampling, slot: int | None = None, **more: Any
) -> list[Step]:
    """All steps of the answers to a prompt."""
    told = {"stops": NONE, **more}
    return [step async for step in writer.ask(ids, sampling, slot=slot, **told).steps()]


async def tokens(
    writer: Writer, ids: list[int], sampling: Sampling, slot: int | None = None, **more: Any
) -> list[list[int]]:
    """The tokens of each answer to a prompt."""
    answers: dict[int, list[int]] = {}
    for step in await steps(writer, ids, sampling, slot, **more):
        answers.setdefault(step.sample, []).append(step.chosen.token)
    return [answers[sample] for sample in sorted(answers)]


async def loaded(writer: Writer, *folders: Path) -> None:
    for slot, folder in enumerate(folders):
        await writer.load(slot, folder)


def test_greedy_answers_are_the_same_tokens_from_both(
    run: Run, transformers_writer: Writer, vllm_writer: Writer, folders: list[Path], prompts: list[list[int]]
) -> None:
    async def answers(writer: Writer) -> list[list[list[int]]]:
        await loaded(writer, *folders[:2])
        asked = [tokens(writer, ids, GREEDY, slot) for ids in prompts for slot in (None, 0, 1)]
        return list(await asyncio.gather(*asked))

    ours, theirs = run(answers(transformers_writer)), run(answers(vllm_writer))
    assert ours == theirs
    assert all(len(answer) == 6 for (answer,) in ours)


def test_each_answer_of_a_batch_is_its_own_adapters(
    run: Run, writer: Writer, folders: list[Path], prompts: list[list[int]]
) -> None:
    slots = [None, 0, 1, 2, 3, 0, 1]

    async def answers() -> tuple[Any, Any]:
        await loaded(writer, *folders)
        together = await asyncio.gather(*(tokens(writer, prompts[0], GREEDY, slot) for slot in slots))
        return together, [await tokens(writer, prompts[0], GREEDY, slot) for slot in slots]

    together, alone = run(answers())
    assert together == alone
    assert len({str(answer) for answer in together}) == 5


def test_adapters_take_turns(run: Run, writer: Writer, folders: list[Path], prompts: list[list[int]]) -> None:
    async def answers() -> list[list[list[int]]]:
        await loaded(writer, *folders)
        return [await tokens(writer, prompts[1], Sampling(3), turn % ADAPTERS) for turn in range(3 * ADAPTERS)]

    made = run(answers())
    assert made[:ADAPTERS] == made[ADAPTERS : 2 * ADAPTERS] == made[2 * ADAPTERS :]


def test_an_adapter_in_the_place_of_another_answers_as_itself(
    run: Run, writer: Writer, folders: list[Path], prompts: list[list[int]]
) -> None:
    """With the same prompt, of more than a block of the prefix cache, which has read it with the one before."""

    async def answers() -> list[list[list[int]]]:
        made = []
        for folder in (folders[0], folders[1], folders[0]):
            await writer.load(2, folder)
            made.append(await tokens(writer, prompts[2] * 3, GREEDY, 2))
        await writer.load(3, folders[1])
        return [*made, await tokens(writer, prompts[2] * 3, GREEDY, 3)]

    one, two, again, elsewhere = run(answers())
    assert one == again
    assert two == elsewhere
    assert one != two


def test_a_slot_takes_another_adapter_in_the_place_of_the_first(
    run: Run, writer: Writer, folders: list[Path], prompts: list[list[int]]
) -> None:
    async def answers() -> tuple[Any, Any]:
        await loaded(writer, *folders[:2])
        before = await tokens(writer, prompts[0], GREEDY, 1)
        await writer.load(0, folders[1])
        return before, await tokens(writer, prompts[0], GREEDY, 0)

    before, after = run(answers())
    assert before == after


def test_an_empty_slot_never_answers_as_the_bare_base(writer: Writer) -> None:
    with pytest.raises(KeyError):
        writer.ask([1], GREEDY, stops=NONE, slot=ADAPTERS)


def changed(folder: Path, to: Path, **config: Any) -> Path:
    shutil.copytree(folder, to)
    told = json.loads((to / ADAPTER_CONFIG).read_text())
    (to / ADAPTER_CONFIG).write_text(json.dumps({**told, **config}))
    return to


def of_another_base(folder: Path) -> Path:
    return made_up_adapter(tiny_base(folder / "base").path, folder / "adapter")


def cut_short(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    whole = (to / WEIGHTS).read_bytes()
    (to / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    return to


def beyond_the_last_layer(folder: Path, to: Path) -> Path:
    """Names that vLLM would leave out in silence."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, to)
    weights = load_file(to / WEIGHTS)
    name = next(name for name in weights if ".layers.0." in name)
    pair = [name.replace("lora_B", "lora_A"), name.replace("lora_A", "lora_B")]
    save_file(
        weights | {part.replace(".layers.0.", ".layers.77."): weights[part].clone() for part in pair}, to / WEIGHTS
    )
    return to


BROKEN: dict[str, tuple[Callable[[Path, Path], Path], type[Exception]]] = {
    "nothing there": (lambda whole, to: to / "none", FileNotFoundError),
    "more than plain LoRA": (lambda whole, to: changed(whole, to / "dora", use_dora=True), DataError),
    "of another base": (lambda whole, to: of_another_base(to), DataError),
    "cut short": (lambda whole, to: cut_short(whole, to / "short"), DataError),
    "a layer too many": (lambda whole, to: beyond_the_last_layer(whole, to / "layers"), DataError),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_adapter_is_refused_and_the_others_answer_as_before(
    kind: str, run: Run, writer: Writer, folders: list[Path], prompts: list[list[int]], tmp_path: Path
) -> None:
    make, error = BROKEN[kind]

    async def answers() -> list[Any]:
        return list(await asyncio.gather(*(tokens(writer, prompts[0], GREEDY, slot) for slot in (None, 0, 1))))

    run(loaded(writer, *folders[:2]))
    before = run(answers())
    broken = make(folders[2], tmp_path)
    with pytest.raises(error):
        run(writer.load(1, broken))
    assert run(answers()) == before
    assert writer.broken is None


def test_an_answer_ends_with_one_of_its_own_stops_which_counts(
    run: Run, writer: Writer, prompts: list[list[int]]
) -> None:
    (whole,) = run(tokens(writer, prompts[0], GREEDY))
    end = whole[2]
    first = whole.index(end)
    made = run(steps(writer, prompts[0], GREEDY, stops=frozenset({end, 0})))
    assert [step.chosen.token for step in made] == whole[: first + 1]
    assert [step.ended for step in made] == [False] * first + [True]


def test_samples_differ_and_come_again_with_the_seed_whoever_else_is_asked(
    run: Run, writer: Writer, prompts: list[list[int]]
) -> None:
    async def beside_others() -> list[list[int]]:
        mine = tokens(writer, prompts[0], WARM, samples=3)
        others = [tokens(writer, ids, WARM, samples=2) for ids in prompts[1:]]
        return (await asyncio.gather(mine, *others))[0]

    alone = run(tokens(writer, prompts[0], WARM, samples=3))
    assert len({tuple(answer) for answer in alone}) == 3
    assert run(beside_others()) == alone
    assert run(tokens(writer, prompts[0], WARM, samples=1)) == alone[:1]
    assert run(tokens(writer, prompts[0], Sampling(8, temperature=1.0, seed=8), samples=3)) != alone


def test_more_answers_than_are_written_at_once_take_turns(run: Run, writer: Writer, prompts: list[list[int]]) -> None:
    made = run(tokens(writer, prompts[1], WARM, samples=ROWS + 3))
    assert [len(answer) for answer in made] == [8] * (ROWS + 3)


def test_logarithms_are_those_of_temperature_1_whatever_was_asked(
    run: Run, writer: Writer, prompts: list[list[int]]
) -> None:
    cold = run(steps(writer, prompts[0], Sampling(1), likeliest=5))[0].chosen
    warm = run(steps(writer, prompts[0], Sampling(1, temperature=2.0, top_p=0.3, seed=1), likeliest=5))[0].chosen
    bare = run(steps(writer, prompts[0], Sampling(1), likeliest=0))[0].chosen
    untold = run(steps(writer, prompts[0], Sampling(1)))[0].chosen
    assert (cold.token, cold.logprob) == cold.likeliest[0]
    assert [value for _, value in cold.likeliest] == sorted((value for _, value in cold.likeliest), reverse=True)
    assert sum(math.exp(value) for _, value in cold.likeliest) < 1
    assert [token for token, _ in warm.likeliest] == [token for token, _ in cold.likeliest]
    assert [value for _, value in warm.likeliest] == pytest.approx([value for _, value in cold.likeliest], abs=1e-4)
    assert bare.likeliest == ()
    assert bare.logprob == pytest.approx(cold.logprob, abs=1e-4)
    assert (untold.token, untold.logprob, untold.likeliest) == (cold.token, None, ())


def test_logarithms_are_the_same_from_both(
    run: Run, transformers_writer: Writer, vllm_writer: Writer, prompts: list[list[int]]
) -> None:
    async def told(writer: Writer) -> list[float]:
        made = await steps(writer, prompts[2], Sampling(4), likeliest=3)
        return [value for step in made for _, value in ((0, step.chosen.logprob or 0.0), *step.chosen.likeliest)]

    assert run(told(vllm_writer)) == pytest.approx(run(told(transformers_writer)), abs=1e-3)


def test_one_answer_of_several_can_be_stopped(run: Run, writer: Writer, prompts: list[list[int]]) -> None:
    async def written() -> list[int]:
        counts = [0, 0, 0]
        conversation = writer.ask(prompts[0], Sampling(12), stops=NONE, slot=None, samples=3)
        async for step in conversation.steps():
            counts[step.sample] += 1
            if step.sample == 1 and counts[1] == 2:
                conversation.stop(1)
        return counts

    assert run(written()) == [12, 2, 12]


def test_who_closes_early_leaves_room_for_the_next_one(run: Run, writer: Writer, prompts: list[list[int]]) -> None:
    """All rows are taken by long answers: another one's first token would be minutes away."""
    long = Sampling(2000)

    async def begun() -> float:
        async with aclosing(writer.ask(prompts[0], long, stops=NONE, slot=None, samples=ROWS).steps()) as made:
            heard = set()
            async for step in made:
                heard.add(step.sample)
                if len(heard) == ROWS:
                    break
        started = time.monotonic()
        await tokens(writer, prompts[1], Sampling(2))
        return time.monotonic() - started

    assert run(begun()) < 20
    if isinstance(writer, VllmWriter):
        assert writer.engine.get_num_unfinished_requests() == 0


def test_an_answer_that_has_begun_is_written_to_its_end_by_the_adapter_it_began_with(
    run: Run, vllm_writer: VllmWriter, folders: list[Path], prompts: list[list[int]]
) -> None:
    async def answers() -> tuple[Any, Any, Any, set[int]]:
        await loaded(vllm_writer, *folders)
        whole = await tokens(vllm_writer, prompts[0], Sampling(12), 0)
        late = []
        async for step in vllm_writer.ask(prompts[0], Sampling(12), stops=NONE, slot=0).steps():
            late.append(step.chosen.token)
            if len(late) == 2:
                await vllm_writer.load(0, folders[3])
                await vllm_writer.load(0, folders[2])  # waits until the answer is written
                await vllm_writer.load(0, folders[3])
        after = await tokens(vllm_writer, prompts[0], Sampling(12), 0)
        expected = await tokens(vllm_writer, prompts[0], Sampling(12), 3)
        assert after == expected
        return whole, [late], after, await vllm_writer.engine.list_loras()

    whole, late, after, held = run(answers())
    assert whole == late != after
    assert len(held) == ADAPTERS  # what nobody uses is not kept


def test_an_adapter_of_too_high_a_rank_is_refused_with_figures(
    run: Run, vllm_writer: VllmWriter, folders: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"rank 64, and vLLM was started for {RANK}"):
        run(vllm_writer.load(0, changed(folders[0], tmp_path / "high", r=64)))


def test_what_vllm_alone_does_not_take_is_refused_by_its_own_words(
    run: Run, vllm_writer: VllmWriter, folders: list[Path], prompts: list[list[int]], tmp_path: Path
) -> None:
    run(vllm_writer.load(0, folders[0]))
    before = run(tokens(vllm_writer, prompts[0], GREEDY, 0))
    with pytest.raises(DataError, match="PiSSA"):
        run(vllm_writer.load(0, changed(folders[0], tmp_path / "pissa", init_lora_weights="pissa")))
    assert run(tokens(vllm_writer, prompts[0], GREEDY, 0)) == before


REPLICA = """
import asyncio, sys, time
from mlflow_llamaduo.inference.engine import Sampling
from mlflow_llamaduo.serving.vllm_writer import VllmWriter

async def main(writer):
    async for _ in writer.ask([5, 6, 7], Sampling(4000), stops=frozenset(), slot=None).steps():
        print("writing", flush=True)

if __name__ == "__main__":
    writer = VllmWriter(sys.argv[1], lora_rank=8, adapters=1, rows=4, gpus=0)
    try:
        asyncio.run(main(writer))
    except BaseException as error:
        print("failed", type(error).__name__, type(writer.broken).__name__, flush=True)
"""


@pytest.fixture
def replica(base: Path, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", list[psutil.Process]]]:
    """A process that writes an endless answer, and its children."""
    vllm_or_skip()
    script = tmp_path / "replica.py"
    script.write_text(REPLICA)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, str(script), str(base)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as process:
        assert process.stdout
        children = []
        try:
            assert any(line == "writing\n" for line in process.stdout)
            children = psutil.Process(process.pid).children(recursive=True)
            yield process, children
        finally:
            process.kill()
            for child in psutil.wait_procs(children, timeout=10)[1]:
                child.kill()


def test_a_replica_that_is_killed_leaves_no_process_behind(
    replica: tuple["subprocess.Popen[str]", list[psutil.Process]],
) -> None:
    process, children = replica
    assert any("EngineCore" in " ".join(child.cmdline()) for child in children)
    process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_an_engine_that_dies_is_heard_of(replica: tuple["subprocess.Popen[str]", list[psutil.Process]]) -> None:
    process, children = replica
    (engine,) = [child for child in children if "EngineCore" in " ".join(child.cmdline())]
    engine.kill()
    assert process.stdout
    assert "failed EngineDeadError EngineDeadError\n" in process.stdout.readlines()
