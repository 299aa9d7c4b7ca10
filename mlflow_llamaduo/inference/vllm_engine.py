"""Generation with vLLM in this process, without a server: one base, LoRA adapters on top, prefixes kept.

It reads our token ids and gives tokens back, which we decode: templates, ends and text are those of the transformers
engine. vLLM is the extra `[vllm]`; what to install is told in docs/how-to/inference.md.
"""

import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from mlflow_llamaduo import chat_template
from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.inference.engine import WEIGHTS, Chat, Generated, Sampling, stop_tokens

MISSING = (
    "inference.engine: vllm wants the package vllm, which is not installed here: pip install 'mlflow-llamaduo[vllm]' "
    "(docs/how-to/inference.md), or set inference.engine: transformers"
)


def missing() -> str | None:
    """What is to be said where vLLM is not installed, without importing it: that takes half a minute."""
    return None if find_spec("vllm") else MISSING


class VllmEngine:
    """A base model with at most one adapter.

    Args:
        base_path: the base model's folder.
        adapter_path: the adapter's folder; its tokenizer and template are used.
        template: the bare base's chat template: its `own`, or `chatml` for a base that has none.
        lora_rank: the highest rank of the adapters to come.
        rows: answers that are computed at once.
        gpus: GPUs that the weights are spread over; 0 computes on the CPU, in float32.

    Raises:
        ConfigError: vLLM is not installed.
    """

    def __init__(
        self,
        base_path: str,
        adapter_path: str | None = None,
        *,
        template: Literal["own", "chatml"] = "own",
        lora_rank: int = 16,
        rows: int = 256,
        gpus: int = 0,
    ) -> None:
        if problem := missing():
            raise ConfigError(problem)
        environment(gpus)
        from vllm import LLM

        self._base_path = base_path
        self._template: Literal["own", "chatml"] = template
        self._generation = generation_of(base_path)
        self._adapters = 0
        self._llm = LLM(**settings(base_path, lora_rank=lora_rank, rows=rows, gpus=gpus))
        self.use(adapter_path)

    def use(self, adapter_path: str | None) -> None:
        """Answer with this adapter from now on, or with the bare base; the files stay until the next call."""
        from transformers import AutoTokenizer
        from vllm.lora.request import LoRARequest

        self._lora = None
        if adapter_path is not None:
            if not (Path(adapter_path) / WEIGHTS).is_file():
                raise FileNotFoundError(f"no {WEIGHTS} in {adapter_path}")
            self._adapters += 1  # vLLM knows an adapter by its number: one that is used again is another one to it
            self._lora = LoRARequest(f"adapter-{self._adapters}", self._adapters, adapter_path)
        self._tokenizer = AutoTokenizer.from_pretrained(adapter_path or self._base_path)
        if adapter_path is None:
            chat_template.with_template(self._tokenizer, self._template)
        self._stops = stop_tokens(self._tokenizer, self._generation)

    @property
    def llm(self) -> Any:
        """VLLM's own object, for who measures it."""
        return self._llm

    @property
    def stops(self) -> list[int]:
        """The tokens that end an answer."""
        return sorted(self._stops)

    @property
    def context_tokens(self) -> int:
        """The most tokens that prompt and answer may have together: the model's, or what memory holds."""
        return int(self._llm.model_config.max_model_len)

    def prompt_ids(self, chats: Sequence[Chat]) -> list[list[int]]:
        """The token ids of each prompt as the model reads them, the opening of the answer included."""
        return [chat_template.prompt_ids(self._tokenizer, chat) for chat in chats]

    def generate(self, chats: Sequence[Chat], sampling: Sampling, samples: int = 1) -> list[list[Generated]]:
        """`samples` answers to each conversation; vLLM packs them itself, so that more at once is better.

        A prompt that fills the context leaves no room: its answers are empty, and end for `length`.
        """
        prompts = self.prompt_ids(chats)
        asked = [ids for ids in prompts if len(ids) < self.context_tokens]
        made = iter(
            self._llm.generate(
                [{"prompt_token_ids": ids} for ids in asked],
                [
                    parameters(ids, sampling, stops=self.stops, context=self.context_tokens, n=samples)
                    for ids in asked
                ],
                use_tqdm=False,
                lora_request=self._lora,
            )
        )
        return [
            [self._generated(ids, out.token_ids) for out in sorted(next(made).outputs, key=lambda out: out.index)]
            if len(ids) < self.context_tokens
            else [self._generated(ids, ())] * samples
            for ids in prompts
        ]

    def _generated(self, prompt: list[int], ids: Sequence[int]) -> Generated:
        finish = "stop" if ids and ids[-1] in self._stops else "length"
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return Generated(str(text).strip(), len(prompt), len(ids), finish)


def generation_of(base_path: str) -> Any:
    """The base's own generation settings, or None."""
    from transformers import GenerationConfig

    named = (Path(base_path) / "generation_config.json").is_file()
    return GenerationConfig.from_pretrained(base_path) if named else None


def skeleton(base_path: str) -> Any:
    """The base without its weights, on torch's `meta` device: names and shapes of its layers, and no memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base_path))


def parameters(
    ids: list[int], sampling: Sampling, *, stops: Iterable[int], context: int, sample: int = 0, **more: Any
) -> Any:
    """VLLM's SamplingParams for a prompt.

    A prompt has its own seed, so that its answers do not change with its neighbours. Asked for `n` answers, vLLM
    counts on from it; whoever asks for them one by one says which `sample` it is, and gets the same.
    """
    from vllm import SamplingParams

    seed = None if sampling.seed is None else int(digest(sampling.seed, ids)[:7], 16) + sample
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed,
        max_tokens=min(sampling.max_new_tokens, context - len(ids)),
        stop_token_ids=sorted(stops),
        ignore_eos=True,  # the ends are those above, the same as in the other engine
        detokenize=False,
        **more,
    )


def settings(base_path: str, *, lora_rank: int, rows: int, gpus: int, loras: int = 1) -> dict[str, Any]:
    """How vLLM is started, with room for `loras` adapters; the benchmark starts it alike on its own."""
    from vllm.config.lora import MaxLoRARanks

    ranks = sorted(rank for rank in MaxLoRARanks.__args__ if rank >= lora_rank)
    if not ranks:
        raise ConfigError(f"vLLM takes adapters of rank {max(MaxLoRARanks.__args__)} at most, not {lora_rank}")
    return {
        "model": base_path,
        "dtype": "bfloat16" if gpus and _bf16() else "float32",
        "enforce_eager": not gpus,  # there are no CUDA graphs to capture
        "tensor_parallel_size": max(1, gpus),
        "gpu_memory_utilization": 0.9,
        "max_model_len": -1,  # the model's own, or less where memory does not hold one such answer
        "max_num_seqs": rows,
        "enable_lora": True,
        "max_lora_rank": ranks[0],
        "max_loras": loras,
        # On CPU a prompt that is read in pieces ends vLLM 0.32 where a seed is given: its generator has no offset.
        "enable_chunked_prefill": bool(gpus),
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # no defaults from the base's file: how to sample is ours to say
        "seed": 0,
    }


def _bf16() -> bool:
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def environment(gpus: int) -> None:
    """Before vLLM is imported: quiet, no network, in this process, and on all cores where there is no GPU."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # no child that outlives a killed actor
    if not gpus:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB
        cores = sorted(os.sched_getaffinity(0))  # by default it leaves one out, of two
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)))
