"""Generation with transformers: one base, one adapter at a time, left-padded batches.

The same class answers the test prompts, the pyfunc model and the Ray Serve replica, so what the gate judged is
what is served: unquantized base, adapter on top, the tokenizer and template that the adapter carries.
"""

import threading
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BatchEncoding,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)
from transformers.utils import logging as transformers_logging

from mlflow_llamaduo.inference.engine import Chat, Generated, Sampling


class TransformersEngine:
    """A base model with at most one adapter, on the GPU if there is one."""

    def __init__(self, base_path: str, adapter_path: str | None = None) -> None:
        warnings.simplefilter("ignore")
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        cuda = torch.cuda.is_available()
        bf16 = cuda and torch.cuda.is_bf16_supported()
        self._base = AutoModelForCausalLM.from_pretrained(
            base_path, dtype=torch.bfloat16 if bf16 else torch.float32, use_safetensors=True
        )
        self._base.to("cuda" if cuda else "cpu").eval()
        self._base_path = base_path
        self._peft: PeftModel | None = None
        self.use(adapter_path)

    def use(self, adapter_path: str | None) -> None:
        """Answer with this adapter from now on, or with the bare base."""
        if self._peft is not None:
            self._base = self._peft.unload()
            self._peft = None
        if adapter_path is not None:
            if not (Path(adapter_path) / "adapter_model.safetensors").is_file():
                raise FileNotFoundError(f"no adapter_model.safetensors in {adapter_path}")
            self._peft = PeftModel.from_pretrained(self._base, adapter_path, low_cpu_mem_usage=True).eval()
        self._model = self._peft or self._base
        self._tokenizer = AutoTokenizer.from_pretrained(adapter_path or self._base_path, padding_side="left")
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    @property
    def context_tokens(self) -> int:
        """The most tokens that prompt and answer may have together."""
        return int(self._base.config.max_position_embeddings)

    def count(self, chat: Chat) -> int:
        """Tokens of a conversation as the model reads it."""
        return int(self._encode([chat])["input_ids"].shape[1])

    @property
    def dtype(self) -> str:
        """The number format that the base computes in: `float32`, `bfloat16`."""
        return str(self._base.dtype).removeprefix("torch.")

    @property
    def adapter_active(self) -> bool:
        """True if an adapter is in use that changes anything: not all of its update is zero."""
        if self._peft is None:
            return False
        return any(bool(weight.any()) for name, weight in self._peft.named_parameters() if "lora_B" in name)

    def prompt_ids(self, chats: Sequence[Chat]) -> list[list[int]]:
        """The token ids of each prompt as the model reads them, the opening of the answer included."""
        return [
            self._tokenizer.apply_chat_template(list(chat), add_generation_prompt=True, return_dict=True)["input_ids"]
            for chat in chats
        ]

    def first_token_logprobs(self, chats: Sequence[Chat]) -> np.ndarray:
        """Natural logarithms of the probabilities of each answer's first token at temperature 1: [chats, vocabulary].

        Each prompt is read alone, without padding; the numbers are float32 whatever the base computes in.
        """
        rows = []
        with torch.inference_mode():
            for ids in self.prompt_ids(chats):
                logits = self._model(torch.tensor([ids], device=self._base.device), logits_to_keep=1).logits
                rows.append(torch.log_softmax(logits[0, -1].float(), dim=-1).cpu().numpy())
        return np.stack(rows)

    def generate(self, chats: Sequence[Chat], sampling: Sampling, samples: int = 1) -> list[list[Generated]]:
        """`samples` answers to each conversation, all in one left-padded batch."""
        batch = self._encode(chats)
        prompt_lengths = batch["attention_mask"].sum(dim=1).tolist()
        with torch.inference_mode():
            tokens = self._model.generate(**batch, **self._arguments(sampling), num_return_sequences=samples)
        written = tokens[:, batch["input_ids"].shape[1] :].tolist()
        answers = [self._generated(ids, prompt_lengths[row // samples], sampling) for row, ids in enumerate(written)]
        return [answers[start : start + samples] for start in range(0, len(answers), samples)]

    def stream(
        self, chat: Chat, sampling: Sampling, stopped: threading.Event
    ) -> Generator[str | Generated, None, None]:
        """Pieces of text as they are made, then the whole answer; ends early once `stopped` is set."""
        batch = self._encode([chat])
        streamer = TextIteratorStreamer(self._tokenizer, skip_prompt=True, skip_special_tokens=True)
        result: list[Any] = []

        def run() -> None:
            try:
                with torch.inference_mode():
                    criteria = StoppingCriteriaList([_Stopped(stopped)])
                    arguments = self._arguments(sampling)
                    result.append(
                        self._model.generate(**batch, **arguments, streamer=streamer, stopping_criteria=criteria)
                    )
            except Exception as error:  # noqa: BLE001 - handed to the caller's thread, and raised there
                result.append(error)
                streamer.end()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            stopped.set()
            thread.join()
        if isinstance(result[0], Exception):
            raise result[0]
        prompt = batch["input_ids"].shape[1]
        yield self._generated(result[0][0, prompt:].tolist(), prompt, sampling)

    def _encode(self, chats: Sequence[Chat]) -> BatchEncoding:
        encoded: BatchEncoding = self._tokenizer.apply_chat_template(
            [list(chat) for chat in chats],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        return encoded.to(self._base.device)

    def _arguments(self, sampling: Sampling) -> dict[str, Any]:
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        greedy = sampling.temperature == 0
        chosen = {} if greedy else {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        return {
            "max_new_tokens": sampling.max_new_tokens,
            "do_sample": not greedy,
            "pad_token_id": self._tokenizer.pad_token_id,
            "eos_token_id": self._tokenizer.eos_token_id,
            **chosen,
        }

    def _generated(self, ids: list[int], prompt_tokens: int, sampling: Sampling) -> Generated:
        end = self._tokenizer.eos_token_id
        stopped = end in ids
        written = ids[: ids.index(end) + 1] if stopped else ids[: sampling.max_new_tokens]
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        return Generated(text.strip(), prompt_tokens, len(written), "stop" if stopped else "length")


class _Stopped(StoppingCriteria):
    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._event.is_set(), device=input_ids.device)
