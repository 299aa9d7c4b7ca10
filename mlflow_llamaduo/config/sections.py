"""What sections are made of, and those that are small: answering, judging, growing, stopping, costs.

Defaults stand in this folder and nowhere else, and so does what each key means: `make reference` writes the page of
the configuration from the text below each key. Secrets are never in the tree: it holds the *name* of an environment
variable.
"""

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mlflow_llamaduo.core.rules import THRESHOLDS

Percent = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[int, Field(ge=1)]
Usd = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Metric = Literal[
    "exact_match", "token_f1", "rouge_l", "chrf", "label_accuracy", "edit_similarity"
]  # judging.reference computes them


class Section(BaseModel):
    """A part of the tree: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _listed(value: Any) -> Any:
    """`US,DE` is the command line's form of a list."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Listed = BeforeValidator(_listed)


class Inference(Section):
    """How the local model answers the test prompts: K responses a prompt, sampled (paper, section 4.1)."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """What writes the answers; `vllm` wants the extra `[vllm]`."""
    actors: Positive = 1
    """Engines that share the prompts."""
    responses_per_prompt: Positive = 4
    """Answers (K)."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The likeliest tokens that make up this share are drawn from."""
    max_new_tokens: Positive = 1024
    """Tokens of an answer."""
    batch_size: Positive = 16
    """Answers generated at once."""
    seed: int = 42
    """Of the drawing; each answer has its own from it."""
    gpus: Annotated[int, Field(ge=0)] = 1
    """GPUs of each engine; 0 answers on the CPU."""
    accelerator_type: str = ""
    """Ray's name of the GPU, such as `A100-80G`; empty: any."""


class Judging(Section):
    """How responses are scored: how often, at which thresholds, and what stands beside the judge."""

    prompt: str = ""
    """What the judge is told: a file, relative to the task's folder, or `prompts:/<name>/<version>`,
    `prompts:/<name>@<alias>` in the MLflow Prompt Registry; empty: `prompts/judge.md` if it is there, else a general
    prompt."""
    repeats: Positive = 10
    """Judgings of each response at most (M)."""
    adaptive: bool = True
    """Stop once the gate's decision can no longer change; not with `batch`."""
    thresholds: Annotated[tuple[Percent, ...], Listed] = THRESHOLDS
    """Of coverage, in tables and metrics."""
    pairwise: Annotated[tuple[Literal["reference", "service_llm", "champion"], ...], Listed] = ()
    """Whom each response is compared with, in both orders."""
    metrics: Annotated[tuple[Metric, ...], Listed] | None = None
    """Reference metrics; not set: the task's."""
    trace_share: Share = 0.05
    """Share of the calls that become MLflow traces."""


class Baselines(Section):
    """What a round is compared with beside the base model, on the same test prompts by the same judge.

    What the gate needs is measured whatever is said here.
    """

    few_shot: Annotated[int, Field(ge=0)] = 3
    """Train pairs that stand before the prompt as examples; 0: no such baseline."""
    service_llm: bool = True
    """The generator's own answers to the test prompts, K to each."""


class Synthesis(Section):
    """How many pairs to ask for in a round, by which prompt, and which of them are too long."""

    prompt: str = ""
    """What the generator is told, as in `judging`; empty: `prompts/synthesize.md` if it is there, else a general
    prompt."""
    rows_per_round: Positive = 1000
    """Pairs to ask for."""
    growth: Literal["fixed", "doubling"] = "fixed"
    """`doubling`: `rows_per_round` in rounds 1 and 2, then twice as many in each, so that the sum doubles (paper,
    section 4: 1K, 2K, 4K ... 256K)."""
    pairs_per_call: Positive = 10
    """Pairs asked for in a call."""
    max_characters: Positive | None = None
    """Characters of a new pair, prompt and response; not set: 4 for each token of `finetune.max_length`."""
    trace_share: Share = 0.0
    """Share of the calls that become MLflow traces."""

    def rows(self, number: int) -> int:
        """Pairs to ask for in round `number`, from 1."""
        return self.rows_per_round * (2 ** max(0, number - 2) if self.growth == "doubling" else 1)


class Stops(Section):
    """When to stop without having passed the gate. Dollars are those of the service LLM and of our own machines."""

    rounds: Positive = 5
    """Fine-tunings at most."""
    plateau_rounds: Annotated[int, Field(ge=0)] = 3
    """Rounds over which the best mean precision must rise; 0 turns the rule off."""
    plateau_points: Percent = 1.0
    """Points of mean precision by which it must rise."""
    budget_usd: Usd = 50.0
    """Dollars for service LLM and machines in one alignment, or for one output file of `judge` or `synthesize`."""
    folder_budget_usd: Usd | None = None
    """Dollars for all that is ever spent from this working folder."""
    ask_above_usd: Usd = 10.0
    """Dollars; what is likely to cost more wants `--yes`."""


class Costs(Section):
    """The break-even question: the load of a day, and names of the price book (paper, Table 2, light)."""

    input_mtok_per_day: Usd = 10.0
    """Millions of tokens a day that the task reads."""
    output_mtok_per_day: Usd = 1.0
    """Millions of tokens a day that it writes."""
    api: str = "gpt-4o-2024-08"
    """The service LLM that it would be without."""
    server: str = "l4"
    """What the local model is served on."""
    servers: Positive = 1
    """Servers, where nobody says how fast one is."""
    tokens_per_second: Annotated[float, Field(gt=0)] | None = None
    """Tokens of answers that one server writes a second; servers follow from it."""
    peak: Annotated[float, Field(ge=1)] = 1.0
    """The busiest hour's load over the mean."""
    prices: str = ""
    """A file with prices of one's own, which win; from the current folder."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known name is close, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
