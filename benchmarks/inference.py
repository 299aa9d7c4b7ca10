"""Answering test prompts: one by one, bare `generate` in batches, ours, vLLM called directly and through our engine.

All read the same prompts with the same base and sample alike, K answers to each, in one run. vLLM runs in its own
environment (`make test-vllm` builds it); without it its line says so.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.row import Row, of_turns
from mlflow_llamaduo.base_models import resolve
from mlflow_llamaduo.inference.engine import Chat, Generated, Sampling

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROMPTS = 24
SAMPLES = 4
ALONE = 3
"""Prompts that are answered one by one: it is slow, and as fast for three as for all."""
ROWS = 64
TURNS = 3
SAMPLING = Sampling(48, temperature=0.8, seed=42)
NAME = f"{PROMPTS} prompts of closed_qa, {SAMPLES} answers of {SAMPLING.max_new_tokens} tokens at most"


def measure() -> Iterator[Row]:
    """Tokens of answers a second; the first lines' peers are what one would write without us."""
    base = str(resolve(BASE).path)
    alone, bare, ours = _with_transformers(base)
    yield of_turns(f"{NAME}: transformers engine", "tokens/s", ours, ("one by one", alone))
    yield of_turns(f"{NAME}: transformers engine", "tokens/s", ours, ("`generate` in file order", bare))
    direct, engine = _with_vllm(base)
    if not direct:
        yield Row(f"{NAME}: vLLM engine, not measured (no environment: make test-vllm)", 0.0, "tokens/s")
        return
    before, beside = ("one by one", [median(alone)]), ("vLLM directly", direct)  # not in turns, and in turns
    yield of_turns(f"{NAME}: vLLM engine on CPU", "tokens/s", engine, before, beside, max)


def chats() -> list[Chat]:
    """The first prompts of the project's file, in its order."""
    file = Path(__file__).parent.parent / "projects/closed_qa/coverage.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()[:PROMPTS]]
    return [row["messages"][:-1] for row in rows]


def _with_transformers(base: str) -> tuple[list[float], list[float], list[float]]:
    """Rates one by one, in bare batches and of ours, `TURNS` of each."""
    from mlflow_llamaduo.inference.pool import batches
    from mlflow_llamaduo.inference.transformers_engine import TransformersEngine

    engine, asked = TransformersEngine(base), chats()

    def ours() -> int:
        lengths = [len(ids) for ids in engine.prompt_ids(asked)]
        return sum(
            _tokens(engine.generate([asked[i] for i in batch], SAMPLING, SAMPLES))
            for batch in batches(lengths, ROWS // SAMPLES)
        )

    engine.generate(asked[:2], SAMPLING)  # the first call is slower for all of them
    rates: tuple[list[float], list[float], list[float]] = ([], [], [])
    for _ in range(TURNS):
        rates[0].append(_rate(lambda: _bare(engine, [chat for chat in asked[:ALONE] for _ in range(SAMPLES)], 1, 1)))
        rates[1].append(_rate(lambda: _bare(engine, asked, ROWS // SAMPLES, SAMPLES)))
        rates[2].append(_rate(ours))
    return rates


def _bare(engine: Any, asked: list[Chat], at_once: int, samples: int) -> int:
    """Transformers' own `generate`, as its guide for batches has it: padded on the left, in the order of the file."""
    import torch

    tokenizer, made = engine.tokenizer, 0
    for start in range(0, len(asked), at_once):
        batch = tokenizer.apply_chat_template(
            asked[start : start + at_once],
            add_generation_prompt=True,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            tokens = engine.model.generate(
                **batch,
                max_new_tokens=SAMPLING.max_new_tokens,
                do_sample=True,
                temperature=SAMPLING.temperature,
                top_k=0,
                num_return_sequences=samples,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        for row in tokens[:, batch["input_ids"].shape[1] :].tolist():
            ended = tokenizer.eos_token_id in row
            made += row.index(tokenizer.eos_token_id) + 1 if ended else len(row)
    return made


def _with_vllm(base: str) -> tuple[list[float], list[float]]:
    python = Path(os.environ.get("VENV_VLLM", ".venv-vllm")) / "bin/python"
    if not python.is_file():
        return [], []
    done = subprocess.run(
        [str(python), "-m", "benchmarks.inference", base],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    direct, engine = json.loads(done.stdout.splitlines()[-1])
    return direct, engine


def _vllm(base: str) -> tuple[list[float], list[float]]:
    """Both in one process and with one loaded model, in turns; each has a seed of its own, and no prefix is known."""
    from vllm import SamplingParams

    from mlflow_llamaduo.inference.vllm_engine import VllmEngine

    engine, asked = VllmEngine(base, rows=ROWS), chats()
    llm = engine.llm
    prompts = [{"prompt_token_ids": ids} for ids in engine.prompt_ids(asked)]
    parameters = SamplingParams(
        n=SAMPLES,
        temperature=SAMPLING.temperature,
        max_tokens=SAMPLING.max_new_tokens,
        seed=SAMPLING.seed,
        stop_token_ids=engine.stops,
        detokenize=False,
    )

    def direct() -> int:
        return sum(
            len(out.token_ids) for made in llm.generate(prompts, parameters, use_tqdm=False) for out in made.outputs
        )

    llm.generate(prompts[:2], parameters, use_tqdm=False)
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(2 * TURNS):
        llm.reset_prefix_cache()
        which = turn % 2
        rates[which].append(
            _rate(direct if not which else lambda: _tokens(engine.generate(asked, SAMPLING, SAMPLES)))
        )
    return rates


def _tokens(answers: list[list[Generated]]) -> int:
    return sum(answer.completion_tokens for row in answers for answer in row)


def _rate(run: Callable[[], int]) -> float:
    began = time.perf_counter()
    made = run()
    return made / (time.perf_counter() - began)


if __name__ == "__main__":
    print(json.dumps(_vllm(sys.argv[1])))
