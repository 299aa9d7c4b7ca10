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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.load import Load, load
from benchmarks.row import Row
from benchmarks.served import BASE, ROOT, clear, free_port, ours, server, versions
from mlflow_llamaduo.base_models import resolve

TOKENS = 48
AT_ONCE = 16
REQUESTS = 48
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
    alone = _one_by_one(adapter)
    peer = _mlflow(folder)
    with ours(folder, batch_size=AT_ONCE, adapters=FOUR) as url:
        load(url, bodies(FOUR, [f"closed_qa@{n}" for n in range(1, FOUR + 1)]), 1)  # all adapters are loaded
        one = load(url, bodies(REQUESTS, ["closed_qa"]), AT_ONCE, stream=False)
        four = load(url, bodies(REQUESTS, [f"closed_qa@{n}" for n in range(1, FOUR + 1)]), AT_ONCE, stream=False)
        streamed = load(url, bodies(REQUESTS, ["closed_qa"]), AT_ONCE)
        single = load(url, bodies(ALONE, ["closed_qa"]), 1)
    name = f"transformers engine on Ray Serve, {AT_ONCE} at once, answers of {TOKENS} tokens at most"
    yield Row(name, one.rate, "tokens/s", "`mlflow models serve`, as many at once", peer)
    yield Row(name, one.rate, "tokens/s", "`generate` one by one", alone)
    yield Row(f"{name}: four adapters in rotation", four.rate, "tokens/s", "one adapter", one.rate)
    yield Row(f"{name}: streamed", streamed.rate, "tokens/s", "whole answers", one.rate)
    yield Row("the same, one at a time", single.rate, "tokens/s", "`generate` one by one", alone)
    yield Row("the same, to the first token", single.first_ms, "ms")


def _one_by_one(adapter: Path) -> float:
    """`generate`, as one writes it without us."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(os.cpu_count() or 1)
    base = AutoModelForCausalLM.from_pretrained(resolve(BASE).path, dtype=torch.float32)
    model, tokenizer = PeftModel.from_pretrained(base, adapter).eval(), AutoTokenizer.from_pretrained(adapter)
    made, began = 0, time.perf_counter()
    for text in prompts()[:ALONE]:
        chat = [{"role": "user", "content": text}]
        asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        answer = model.generate(**asked, do_sample=True, temperature=0.8, max_new_tokens=TOKENS)
        made += answer.shape[1] - asked["input_ids"].shape[1]
    return made / (time.perf_counter() - began)


def _mlflow(folder: Path) -> float:
    """`mlflow models serve` with the same version, asked by as many clients at once."""
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

    with server(command, folder, f"{url}/ping"), ThreadPoolExecutor(AT_ONCE) as pool:
        ask(0)  # the first one loads
        began = time.perf_counter()
        made = sum(pool.map(ask, range(AT_ONCE)))
        return made / (time.perf_counter() - began)


def _beside_vllm(folder: Path, adapter: Path) -> Iterator[Row]:
    python = ROOT / os.environ.get("VENV_VLLM", ".venv-vllm") / "bin/python"
    if not python.is_file():
        yield Row("vLLM engine on Ray Serve, not measured (no environment: make test-vllm)", 0.0, "tokens/s")
        return
    peer, found = _vllm(folder, python, adapter), _through_ours(folder, python)
    for at_once, own in found.items():
        name = f"vLLM engine on Ray Serve, on CPU, {at_once} at once"
        yield Row(name, own.rate, "tokens/s", "vLLM's own server", peer[at_once].rate)
        yield Row(f"{name}: to the first token", own.first_ms, "ms", "vLLM's own server", peer[at_once].first_ms)


LEVELS = {1: 6, 8: 32, 32: 96}
"""Requests by how many are open at once."""


def _levels(url: str, model: str) -> dict[int, Load]:
    load(url, bodies(8, [model]), 8)
    return {at_once: load(url, bodies(count, [model]), at_once) for at_once, count in LEVELS.items()}


def _through_ours(folder: Path, python: Path) -> dict[int, Load]:
    with ours(folder, str(python), engine="vllm", batch_size=32, adapters=1, waiting=64) as url:
        return _levels(url, "closed_qa")


def _vllm(folder: Path, python: Path, adapter: Path) -> dict[int, Load]:
    """VLLM's own server with the same settings as our engine has."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(resolve(BASE).path)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--max-num-seqs", "32", "--enable-lora", "--max-lora-rank", "16", "--max-loras", "2"]
    command += [
        "--lora-modules",
        f"closed_qa={adapter}",
        "--no-enable-chunked-prefill",
        "--generation-config",
        "vllm",
    ]
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    variables = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": cores, "VLLM_NO_USAGE_STATS": "1"}
    with server(command, folder, f"{url}/health", VLLM_LOGGING_LEVEL="ERROR", **variables):
        return _levels(url, "closed_qa")
