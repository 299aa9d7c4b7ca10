"""The whole of one alignment's configuration: the sections, the gate, and what follows from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlflow_llamaduo.config.coverage import Coverage
from mlflow_llamaduo.config.finetune import FineTune
from mlflow_llamaduo.config.gate import DEFAULT_GATE, GateForm, needed, rules_of
from mlflow_llamaduo.config.sections import Baselines, Costs, Inference, Judging, Section, Stops, Synthesis
from mlflow_llamaduo.config.service_models import ServiceLLMs
from mlflow_llamaduo.config.serving import Serving
from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.core.rules import BASELINES, OPPONENTS, GateRule

if TYPE_CHECKING:
    from mlflow_llamaduo.core.rounds import Limits

FLEET = {"accelerator_type", "storage", "max_failures", "checkpoint_steps", "cpus_per_worker"}
"""Of the fine-tuning: where it runs and how it recovers, which does not change the adapter."""


class Project(Section):
    """Everything one alignment needs to know."""

    task: str
    """A folder of `projects/`."""
    folder: Path
    """That folder."""
    profile: str
    """A file of `projects/profiles/`."""
    base_model: str
    """The local model: a folder, or a name on the model hub."""
    gate: GateForm = DEFAULT_GATE
    """What a version must reach."""
    category: str = ""
    """Keep coverage rows of this category, and rows without one; empty keeps all."""
    promotion: Literal["auto", "review"] = "review"
    """Whether a version that passes becomes champion at once."""
    coverage: Coverage = Coverage()
    service_llm: ServiceLLMs = ServiceLLMs()
    finetune: FineTune = FineTune()
    inference: Inference = Inference()
    judging: Judging = Judging()
    baselines: Baselines = Baselines()
    synthesis: Synthesis = Synthesis()
    limits: Stops = Stops()
    serving: Serving = Serving()
    costs: Costs = Costs()

    @property
    def categories(self) -> tuple[str, ...]:
        """The task's category, and then what the source may call it; none: all rows are taken."""
        own = (self.category,) if self.category else ()
        return own + tuple(name for name in self.coverage.categories if name not in own)

    @property
    def registered_model(self) -> str:
        """The name in the MLflow Model Registry."""
        return f"llamaduo-{self.task}"

    @property
    def rules(self) -> tuple[GateRule, ...]:
        """The gate as the rules that `decide` takes."""
        return rules_of(self.gate)

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """The models that rounds are compared with, in the order in which they are measured.

        The service LLM comes first: the others are matched with it, and a key that is refused costs no inference.
        """
        asked = {"base"} | needed(self.gate)[0]
        asked |= {"few_shot"} if self.baselines.few_shot else set()
        asked |= {"service_llm"} if self.baselines.service_llm else set()
        asked |= {name for name in self.opponents if name != "reference"}
        return tuple(sorted(asked, key=("service_llm", *BASELINES).index))

    @property
    def gated_baselines(self) -> frozenset[str]:
        """Those that the gate holds a round against."""
        return needed(self.gate)[0]

    @property
    def opponents(self) -> tuple[str, ...]:
        """Whom each response is compared with in pairs."""
        asked = needed(self.gate)[1].union(self.judging.pairwise)
        return tuple(name for name in OPPONENTS if name in asked)

    @property
    def stops(self) -> "Limits":
        """The limits as `stop_reason` takes them; the budget is kept by the service LLM's client."""
        from mlflow_llamaduo.core.rounds import Limits  # rounds need numpy, which `llamaduo --help` need not load

        return Limits(self.limits.rounds, self.limits.plateau_rounds, self.limits.plateau_points)

    @property
    def offline(self) -> bool:
        """True when all service LLMs are the offline stand-ins."""
        return all(llm.model.startswith("offline/") for llm in self.service_llm.models)

    @property
    def fingerprint(self) -> str:
        """Digest of all that shapes an alignment's rounds.

        Where it is served does not count, and neither do the limits: with more rounds, more money or at another
        rate the same alignment goes on.
        """
        outside: dict[str, Any] = {
            "folder": True,
            "serving": True,
            "costs": True,
            "limits": True,
            "finetune": FLEET | {"usd_per_hour"},
            "inference": {"actors", "accelerator_type"},
            "service_llm": True,
            "judging": {"trace_share", "thresholds", "metrics"},
            "synthesis": {"trace_share"},
        }
        asked = [llm.identity for llm in (*self.service_llm.judges, self.service_llm.generator)]
        return digest(self.model_dump(mode="json", exclude=outside), asked)
