"""The whole of one alignment's configuration: the sections, the gate, and what follows from them."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from mlflow_llamaduo.config.sections import (
    Costs,
    Coverage,
    FineTune,
    Inference,
    Judging,
    Percent,
    Section,
    ServiceLLMs,
    Serving,
    Stops,
    Synthesis,
    nearest,
)
from mlflow_llamaduo.core.gate import FIGURES, GateRule
from mlflow_llamaduo.core.records import digest
from mlflow_llamaduo.core.rounds import Limits


def _gate_form(value: Any) -> Any:
    """A number asks for both means (the authors' gate); `figure=70,other=50` is the command line's form."""
    if isinstance(value, str):
        try:
            value = float(value) if "=" not in value else dict(part.split("=", 1) for part in value.split(","))
        except ValueError as error:
            raise ValueError(f"expected a number or figure=number,..., not {value!r}") from error
    if isinstance(value, dict) and any(isinstance(least, bool) for least in value.values()):
        raise ValueError("a least value is a number, not true or false")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"precision_mean": value, "similarity_mean": value}
    return value


def _known_figures(gate: dict[str, float]) -> dict[str, float]:
    for figure in gate:
        if figure not in FIGURES:
            raise ValueError(f"unknown figure {figure!r}{nearest(figure, FIGURES)}; known: {', '.join(FIGURES)}")
    return gate


Gate = Annotated[dict[str, Percent], Field(min_length=1), BeforeValidator(_gate_form), AfterValidator(_known_figures)]


class Project(Section):
    """Everything one alignment needs to know."""

    task: str
    folder: Path
    profile: str
    category: str = ""
    base_model: str
    promotion: Literal["auto", "review"] = "review"
    gate: Gate
    coverage: Coverage = Coverage()
    service_llm: ServiceLLMs = ServiceLLMs()
    finetune: FineTune = FineTune()
    inference: Inference = Inference()
    judging: Judging = Judging()
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
        return tuple(GateRule(figure, least) for figure, least in sorted(self.gate.items()))

    @property
    def stops(self) -> Limits:
        """The limits as `stop_reason` takes them; the budget is kept by the service LLM's client."""
        return Limits(self.limits.rounds, self.limits.plateau_rounds, self.limits.plateau_points)

    @property
    def offline(self) -> bool:
        """True when both service LLMs are the offline stand-ins."""
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
            "finetune": {"usd_per_hour"},
            "service_llm": True,
            "judging": {"trace_share"},
            "synthesis": {"trace_share"},
        }
        asked = [self.service_llm.judge.identity, self.service_llm.generator.identity]
        return digest(self.model_dump(mode="json", exclude=outside), asked)
