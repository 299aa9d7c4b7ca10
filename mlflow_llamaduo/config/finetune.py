"""The QLoRA recipe, and the workers of Ray Train that it runs on."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from mlflow_llamaduo.config.sections import Positive, Section, Usd, nearest

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
    """Rank of the adapter."""
    lora_alpha: Positive | None = None
    """Its scale."""
    epochs: Positive | None = None
    """At most."""


class FineTune(Section):
    """The QLoRA recipe (paper, appendix; figures in docs/reference), and the workers of Ray Train."""

    quantization: Literal["nf4", "none"] = "nf4"
    """Of the base during training."""
    chat_template: Literal["own", "chatml"] = "own"
    """The base model's own template; or ChatML, for a base without one, without new tokens."""
    lora_rank: Positive = 32
    """Rank of the adapter, which is on all linear layers."""
    lora_alpha: Positive = 64
    """Scale of the adapter: it is added `lora_alpha` / `lora_rank` times."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the adapter's inputs that a step leaves out."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """The highest, after the warm-up; the schedule is cosine."""
    epochs: Positive = 10
    """At most; the one with the least dev loss is kept."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Epochs without a lower dev loss that end the training; 0: all are trained."""
    batch_size: Positive = 4
    """Pairs a worker and step."""
    gradient_accumulation: Positive = 2
    """Batches an optimizer step."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which the rate rises."""
    max_length: Annotated[int, Field(ge=16)] = 1024
    """Tokens of prompt and response."""
    too_long: Literal["shorten", "reject"] = "shorten"
    """A longer row loses the middle of its longest user text, or is left out; an answer is never cut."""
    from_rows: dict[Positive, Volume] = Field(default_factory=dict)
    """Other `lora_rank`, `lora_alpha`, `epochs` from so many train rows on: `from_rows: {64000: {epochs: 15}}`."""
    seed: int = 42
    """Of the order of the pairs, the adapter's first weights and the dropout."""
    workers: Positive = 1
    """Ray Train workers."""
    gpus_per_worker: Annotated[int, Field(ge=0)] = 1
    """GPUs; 0 trains on the CPU."""
    cpus_per_worker: Positive = 1
    """CPUs that Ray reserves."""
    accelerator_type: str = ""
    """Ray's name of the GPU, such as `A100-80G`; empty: any."""
    storage: Annotated[str, AfterValidator(_reachable)] = ""
    """Folder or URL (`s3`, `gs`, `abfs`, `hdfs`, `file`) for checkpoints that all workers reach, without a key in it;
    tried before a run; empty: the working folder."""
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps between checkpoints within an epoch; 0: after epochs only."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Times that training goes on from the last checkpoint after a failure."""
    usd_per_hour: Usd = 0.0
    """Dollars an hour and worker; 0: its GPUs' price in the price book, and nothing for a CPU."""

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
