"""What can be configured, with units and limits, section by section.

Defaults stand here and nowhere else. Secrets are never in the tree: it holds the *name* of an environment variable.
"""

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from mlflow_llamaduo.core.redact import KINDS, REGIONS
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


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"unknown kind{nearest(kind, KINDS)}; known: {', '.join(KINDS)}")
    return kind


def _listed(value: Any) -> Any:
    """`US,DE` is the command line's form of a list."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Listed = BeforeValidator(_listed)


class Coverage(Section):
    """Where the satisfactory pairs come from, and the split. Rows are counted in pairs.

    `source` is a file or folder (relative to the project's), `hub:<dataset>[@<revision>][#<split>]`, or
    `traces:<experiment>`, of which `trace_filter` (MLflow's) and `feedback` (`thumbs_up=true`) choose. `categories`
    are the names that the source has for the task's category. Redaction `auto` is on for traces; it goes for
    synthetic pairs too. A row of more than `max_characters` is left out.
    """

    source: str = "coverage.jsonl"
    categories: Annotated[tuple[str, ...], Listed] = ()
    trace_filter: str = ""
    feedback: str = ""
    redact: Literal["auto"] | bool = "auto"
    redact_kinds: Annotated[tuple[Annotated[str, AfterValidator(_known_kind)], ...], Listed] = KINDS
    phone_regions: Annotated[tuple[Annotated[str, Field(pattern="^[A-Z]{2}$")], ...], Listed] = REGIONS
    max_characters: Positive = 100_000
    test_rows: Annotated[int, Field(ge=2)] = 24
    dev_rows: Positive = 12

    @property
    def redacts(self) -> bool:
        """Whether redaction is on."""
        return self.source.startswith("traces:") if self.redact == "auto" else self.redact


class ServiceModel(Section):
    """One paid model, or an offline stand-in; a text alone is its name.

    `model` is the short name of a preset (`llamaduo doctor` lists them) or litellm's name (`openai/gpt-4o`). Limits
    are requests and tokens a minute, prices dollars per million tokens; unset, the preset's or litellm's count.
    """

    model: str
    api_base: str | None = None
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = None
    rpm: Positive | None = None
    tpm: Positive | None = None
    concurrency: Positive = 64
    max_tokens: Positive = 4096
    timeout_s: Annotated[float, Field(gt=0)] = 120
    retries: Annotated[int, Field(ge=0)] = 6
    input_usd_per_mtok: Usd | None = None
    output_usd_per_mtok: Usd | None = None
    json_schema: bool | None = None
    batch: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the replies; how fast, by which key and for how much they are asked does not."""
        return self.model_dump(include={"model", "api_base", "max_tokens", "json_schema"})


def _named(default: str) -> BeforeValidator:
    """A name alone is short for a section; a section without a name is about the stand-in."""

    def section(value: Any) -> Any:
        if isinstance(value, str):
            return {"model": value}
        return {"model": default, **value} if isinstance(value, dict) else value

    return BeforeValidator(section)


class ServiceLLMs(Section):
    """The service LLM in its parts: the generator writes pairs, the judge scores responses and holds the gate.

    `other_judges` score the same responses. Their scores are kept apart, and are in no gate: judges differ.
    """

    generator: Annotated[ServiceModel, _named("offline/teacher")] = ServiceModel(model="offline/teacher")
    judge: Annotated[ServiceModel, _named("offline/judge")] = ServiceModel(model="offline/judge")
    other_judges: Annotated[tuple[Annotated[ServiceModel, _named("offline/judge")], ...], Listed] = ()

    @property
    def models(self) -> tuple[ServiceModel, ...]:
        """The distinct ones of all."""
        return tuple(dict.fromkeys((self.judge, self.generator, *self.other_judges)))

    @property
    def judges(self) -> tuple[ServiceModel, ...]:
        """All that judge, the gate's first."""
        return (self.judge, *self.other_judges)


STORAGES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
"""The schemes of pyarrow 25, with which Ray Train writes; another one is refused by it after Ray has started."""


def _reachable(storage: str) -> str:
    scheme, mark, _ = storage.partition("://")
    if storage and not mark and not storage.startswith("/"):
        raise ValueError("give an absolute folder that all workers reach, or a URL such as s3://bucket/folder")
    if mark and scheme not in STORAGES:
        raise ValueError(
            f"no storage is known by {scheme}://{nearest(scheme, STORAGES)}; known: {', '.join(STORAGES)}"
        )
    return storage


class Volume(Section):
    """What of the recipe is another from some number of train rows on."""

    lora_rank: Positive | None = None
    lora_alpha: Positive | None = None
    epochs: Positive | None = None


class FineTune(Section):
    """The QLoRA recipe (paper, appendix; figures in docs/reference), and the workers of Ray Train. Lengths in tokens.

    `from_rows` changes rank, alpha and epochs with the number of train rows. `chat_template` is the base model's own,
    or ChatML for a base that has none. A row of more than `max_length` tokens loses the middle of its longest user
    text (`shorten`) or is left out (`reject`). Training stops after `patience` epochs without a lower dev loss (0:
    never). A checkpoint is kept after each epoch and every `checkpoint_steps` optimizer steps (0: none) in `storage`,
    a folder or URL (`s3://...`) that all workers reach (empty: the working folder); after a failure, `max_failures`
    times at most, training goes on from it.
    """

    quantization: Literal["nf4", "none"] = "nf4"
    chat_template: Literal["own", "chatml"] = "own"
    lora_rank: Positive = 32
    lora_alpha: Positive = 64
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    epochs: Positive = 10
    batch_size: Positive = 4
    gradient_accumulation: Positive = 2
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_length: Annotated[int, Field(ge=16)] = 1024
    too_long: Literal["shorten", "reject"] = "shorten"
    from_rows: dict[Positive, Volume] = {}
    patience: Annotated[int, Field(ge=0)] = 3
    seed: int = 42
    workers: Positive = 1
    gpus_per_worker: Annotated[int, Field(ge=0)] = 1
    cpus_per_worker: Positive = 1
    accelerator_type: str = ""
    storage: Annotated[str, AfterValidator(_reachable)] = ""
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    max_failures: Annotated[int, Field(ge=0)] = 2
    usd_per_hour: Usd = 0.0

    def at(self, rows: int) -> "FineTune":
        """The recipe for so many train rows."""
        changed: dict[str, Any] = {}
        for least in sorted(self.from_rows):
            if rows >= least:
                changed |= self.from_rows[least].model_dump(exclude_none=True)
        return self.model_copy(update={**changed, "from_rows": {}})

    @property
    def largest_rank(self) -> int:
        """Of the adapters that any number of rows makes."""
        return max(self.lora_rank, *(volume.lora_rank or 0 for volume in self.from_rows.values()), 0)


class Inference(Section):
    """How the local model answers the test prompts: K responses a prompt, sampled (paper, section 4.1).

    `engine` vllm wants the extra `[vllm]`. `actors` engines share the prompts, each with `gpus` GPUs of
    `accelerator_type` (Ray's names: A100-80G, L4; empty: any).
    """

    engine: Literal["transformers", "vllm"] = "transformers"
    actors: Positive = 1
    responses_per_prompt: Positive = 4
    temperature: Annotated[float, Field(ge=0)] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Positive = 1024
    batch_size: Positive = 16
    seed: int = 42
    gpus: Annotated[int, Field(ge=0)] = 1
    accelerator_type: str = ""


class Judging(Section):
    """M judgings a response; `trace_share` of the calls (0 to 1) become MLflow traces.

    With `adaptive`, asking about a round's responses stops once the gate's decision can no longer change. Coverage
    is told at `thresholds`. `pairwise` compares each response with the `reference`, the answer of the `service_llm`
    or the `champion`'s, in both orders. `metrics` are the reference metrics; unset, those of the task. `prompt` is a
    file of the project, or `prompts:/...` in the MLflow Prompt Registry; empty is prompts/judge.md.
    """

    prompt: str = ""
    repeats: Positive = 10
    adaptive: bool = True
    thresholds: Annotated[tuple[Percent, ...], Listed] = THRESHOLDS
    pairwise: Annotated[tuple[Literal["reference", "service_llm", "champion"], ...], Listed] = ()
    metrics: Annotated[tuple[Metric, ...], Listed] | None = None
    trace_share: Share = 0.05


class Baselines(Section):
    """What a round is compared with beside the base model, on the same test prompts by the same judge.

    `few_shot` is how many train pairs stand before the prompt as examples, 0 for none; the service LLM's own answers
    are those of the generator. What the gate needs is measured whatever is said here.
    """

    few_shot: Annotated[int, Field(ge=0)] = 3
    service_llm: bool = True


class Synthesis(Section):
    """How many pairs to ask for in a round, how many in one call, and the share of calls that become traces.

    `growth` is the volume ladder: `fixed` asks for `rows_per_round` every round, `doubling` so that the pairs asked
    for in all are 1, 2, 4, 8 ... times as many (paper, section 4: 1K, 2K, 4K ... 256K). `prompt` as in `Judging`;
    pairs of more than `max_characters`, prompt and response together, are not kept (unset: four for every token
    of `finetune.max_length`).
    """

    prompt: str = ""
    rows_per_round: Positive = 1000
    growth: Literal["fixed", "doubling"] = "fixed"
    pairs_per_call: Positive = 10
    max_characters: Positive | None = None
    trace_share: Share = 0.0

    def rows(self, number: int) -> int:
        """Pairs to ask for in round `number`, from 1."""
        return self.rows_per_round * (2 ** max(0, number - 2) if self.growth == "doubling" else 1)


class Stops(Section):
    """When to stop without having passed the gate. Dollars are the service LLM's.

    `budget_usd` is for one run, `folder_budget_usd` for all that was ever spent from this working folder; a run that
    is likely to cost more than `ask_above_usd` wants `--yes`.
    """

    rounds: Positive = 5
    plateau_rounds: Annotated[int, Field(ge=0)] = 3
    plateau_points: Percent = 1.0
    budget_usd: Usd = 50.0
    folder_budget_usd: Usd | None = None
    ask_above_usd: Usd = 10.0


class Costs(Section):
    """The break-even question: millions of tokens a day, and names of the price book (paper, Table 2, light).

    With `tokens_per_second`, of answers by one server, servers follow from the load, and `servers` does not count.
    """

    input_mtok_per_day: Usd = 10.0
    output_mtok_per_day: Usd = 1.0
    api: str = "gpt-4o-2024-08"
    server: str = "l4"
    servers: Positive = 1
    tokens_per_second: Annotated[float, Field(gt=0)] | None = None
    peak: Annotated[float, Field(ge=1)] = 1.0
    prices: str = ""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known name is close, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
