"""The endpoint under load on this machine: beside `mlflow models serve`, `generate` one by one, and `vllm serve`.

All answer the same prompts with the same base and adapter and sample alike. vLLM's part runs in vLLM's environment
(`make test-vllm` builds it); without it its line says so.
"""

import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.load import Load, load
from benchmarks.row import Row, of_turns
from benchmarks.served import BASE, ROOT, Served, clear, ours, server, versions
from mlflow_llamaduo.base_models import resolve
from tools.servers import free_port

TOKENS = 48
AT_ONCE = 16
REQUESTS = 32
ALONE = 6
"""Requests one by one: slow, and as fast for six as for all."""
FOUR = 4
SAMPLING = {"temperature": 0.8, "max_tokens": TOKENS}


def measure() -> Iterator[Row]:
    """Tokens of answers a second, and milliseconds to the first."""
    folder = Path(tempfile.mkdtemp(prefix="llamaduo-serving-"))
    try:
        adapters = versions(folder, FOUR)
        yield from _beside_mlflow(folder, adapters[0])
        yield from _beside_vllm(folder, adapters[0])
    finally:
        clear(folder)


def prompts() -> list[str]:
    """Prompts of the project's file, in its order."""
    rows = [json.loads(line) for line in (ROOT / "projects/closed_qa/coverage.jsonl").read_text().splitlines()]
    return [row["messages"][-2]["content"] for row in rows]


def bodies(count: int, models: list[str]) -> list[dict[str, Any]]:
    """Requests, each with a seed of its own; `models` take turns."""
    texts = prompts()
    return [
        {
            "model": models[number % len(models)],
            "messages": [{"role": "user", "content": texts[number % len(texts)]}],
            "seed": number,
            **SAMPLING,
        }
        for number in range(count)
    ]


def _beside_mlflow(folder: Path, adapter: Path) -> Iterator[Row]:
    four = [f"closed_qa@{n}" for n in range(1, FOUR + 1)]
    found: list[dict[str, float]] = []
    one_by_one = _one_by_one(adapter)
    with _mlflow(folder) as (peer, asked), ours(folder, batch_size=AT_ONCE, adapters=FOUR) as own:
        load(own.url, bodies(FOUR, four), 1)  # all adapters are loaded
        for number in range(TURNS):
            with peer.paused():
                one = load(own.url, _turn_of(REQUESTS, number, ["closed_qa"]), AT_ONCE, stream=False)
                rotating = load(own.url, _turn_of(REQUESTS, number, four), AT_ONCE, stream=False)
                streamed = load(own.url, _turn_of(REQUESTS, number, ["closed_qa"]), AT_ONCE)
                single = load(own.url, _turn_of(ALONE, number, ["closed_qa"]), 1)
            turn = {"one": one.rate, "four": rotating.rate, "streamed": streamed.rate, "single": single.rate}
            with own.paused():
                turn |= {"first": single.first_ms, "mlflow": asked()}
                with peer.paused():
                    found.append(turn | {"alone": one_by_one()})
    every = {key: [turn[key] for turn in found] for key in found[0]}
    name = f"transformers engine on Ray Serve, {AT_ONCE} at once, answers of {TOKENS} tokens at most"
    alone = ("`generate` one by one", every["alone"])
    for what, unit, key, beside in (
        (name, "tokens/s", "one", ("`mlflow models serve`, as many at once", every["mlflow"])),
        (name, "tokens/s", "one", alone),
        (f"{name}: four adapters in rotation", "tokens/s", "four", ("one adapter", every["one"])),
        (f"{name}: streamed", "tokens/s", "streamed", ("whole answers", every["one"])),
        ("the same, one at a time", "tokens/s", "single", alone),
        ("the same, to the first token", "ms", "first", None),
    ):
        yield of_turns(what, unit, every[key], beside)


def _one_by_one(adapter: Path) -> Callable[[], float]:
    """`generate`, as one writes it without us; tokens a second."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(os.cpu_count() or 1)
    base = AutoModelForCausalLM.from_pretrained(resolve(BASE).path, dtype=torch.float32)
    model, tokenizer = PeftModel.from_pretrained(base, adapter).eval(), AutoTokenizer.from_pretrained(adapter)

    def answered() -> float:
        made, began = 0, time.perf_counter()
        for text in prompts()[:ALONE]:
            chat = [{"role": "user", "content": text}]
            asked = tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            answer = model.generate(**asked, do_sample=True, temperature=0.8, max_new_tokens=TOKENS)
            made += answer.shape[1] - asked["input_ids"].shape[1]
        return made / (time.perf_counter() - began)

    return answered


@contextmanager
def _mlflow(folder: Path) -> Iterator[tuple[Served, Callable[[], float]]]:
    """`mlflow models serve` with the same version; and its tokens a second, asked by as many clients at once."""
    from transformers import AutoTokenizer

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).parent / "mlflow"), "models", "serve", "-m", "models:/llamaduo-closed_qa/1"]
    command += ["--env-manager", "local", "-p", str(port), "--timeout", "600"]
    texts, tokenizer = prompts()[:AT_ONCE], AutoTokenizer.from_pretrained(resolve(BASE).path)

    def ask(number: int) -> int:
        params = {"temperature": 0.8, "max_new_tokens": TOKENS, "seed": number}
        body = json.dumps({"inputs": [texts[number]], "params": params}).encode()
        asked = urllib.request.Request(f"{url}/invocations", body, {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=600) as found:
            (answer,) = json.loads(found.read())["predictions"]
        return len(tokenizer(answer)["input_ids"])

    def asked_at_once() -> float:
        began = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            made = sum(pool.map(ask, range(AT_ONCE)))
        return made / (time.perf_counter() - began)

    with server(command, folder, f"{url}/ping") as process:
        ask(0)  # the first one loads
        yield Served(url, process), asked_at_once


def _beside_vllm(folder: Path, adapter: Path) -> Iterator[Row]:
    python = ROOT / os.environ.get("VENV_VLLM", ".venv-vllm") / "bin/python"
    if not python.is_file():
        yield Row("vLLM engine on Ray Serve, not measured (no environment: make test-vllm)", 0.0, "tokens/s")
        return
    more: dict[str, Any] = {"engine": "vllm", "batch_size": 32, "adapters": 1, "waiting": 64}
    with _vllm(folder, python, adapter) as peer, ours(folder, str(python), **more) as own:
        for one in (peer, own):
            load(one.url, bodies(8, ["closed_qa"]), 8)
        for at_once, count in LEVELS.items():
            turns = [_turn(own, peer, count, at_once, number) for number in range(TURNS)]
            mine, its = ([turn[side] for turn in turns] for side in (0, 1))
            name = f"vLLM engine on Ray Serve, on CPU, {at_once} at once"
            yield _beside(name, "tokens/s", mine, its, _rate)
            yield _beside(f"{name}: to the first token", "ms", mine, its, _first)


LEVELS = {1: 3, 8: 16, 32: 32}
"""Requests of a turn by how many are open at once."""
TURNS = 3
"""The two take turns, each with the other stopped: a machine is faster and slower from minute to minute."""


def _turn(own: Served, peer: Served, count: int, at_once: int, number: int) -> tuple[Load, Load]:
    """The same requests to both, new ones at every turn: both keep what they have read."""
    asked = _turn_of(count, number, ["closed_qa"])
    with peer.paused():
        mine = load(own.url, asked, at_once)
    with own.paused():
        return mine, load(peer.url, asked, at_once)


def _turn_of(count: int, number: int, models: list[str]) -> list[dict[str, Any]]:
    return bodies(count * TURNS, models)[number * count : (number + 1) * count]


def _beside(name: str, unit: str, ours: list[Load], theirs: list[Load], figure: Callable[[list[Load]], float]) -> Row:
    """The figure of all turns together, and how far it goes from turn to turn."""
    single = [[figure([turn]) for turn in side] for side in (ours, theirs)]
    row = of_turns(name, unit, single[0], ("vLLM's own server", single[1]))
    mine, its = figure(ours), figure(theirs)
    ratio = row.peer_ratio and replace(row.peer_ratio, at=mine / its)
    return replace(row, figure=mine, peer_figure=its, peer_ratio=ratio)


def _rate(turns: list[Load]) -> float:
    return sum(turn.tokens for turn in turns) / sum(turn.seconds for turn in turns)


def _first(turns: list[Load]) -> float:
    return 1000 * median(first for turn in turns for first in turn.first_s)


@contextmanager
def _vllm(folder: Path, python: Path, adapter: Path) -> Iterator[Served]:
    """VLLM's own server with the same settings as our engine has."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(resolve(BASE).path)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--max-num-seqs", "32", "--enable-lora", "--max-lora-rank", "16", "--max-loras", "2"]
    command += ["--lora-modules", f"closed_qa={adapter}", "--no-enable-chunked-prefill"]
    command += ["--generation-config", "vllm"]
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    variables = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": cores, "VLLM_NO_USAGE_STATS": "1"}
    with server(command, folder, f"{url}/health", VLLM_LOGGING_LEVEL="ERROR", **variables) as process:
        yield Served(url, process)
