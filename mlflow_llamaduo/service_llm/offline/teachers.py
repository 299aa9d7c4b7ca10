"""Which grammar writes which task's pairs."""

from collections.abc import Callable, Mapping

from mlflow_llamaduo.service_llm.offline import closed_qa
from mlflow_llamaduo.service_llm.offline.templates import WrittenPair

TEACHERS: Mapping[str, Callable[..., tuple[WrittenPair, ...]]] = {
    "closed_qa": closed_qa.write_pairs,
}
"""`write_pairs(*, seed, count)` of each task that has a grammar."""
