"""Stage 4: responses become verdicts."""

from mlflow_llamaduo.judging.judge import judge, judge_each

__all__ = ["judge", "judge_each"]
