"""A score with its reason: what the judges of `offline/judge` give. They reckon with `core.overlap`."""

from dataclasses import dataclass

from mlflow_llamaduo.core.overlap import ARTICLES, containment, rouge_l, token_f1, words

__all__ = ["ARTICLES", "Given", "containment", "rouge_l", "token_f1", "words"]


@dataclass(frozen=True, slots=True)
class Given:
    """A score as a share, 0 to 1, and what it was reckoned from."""

    share: float
    why: str
