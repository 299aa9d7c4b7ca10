"""Which grammar writes which task's pairs."""

from collections.abc import Callable, Mapping

from mlflow_llamaduo.service_llm.offline import classification, closed_qa, coding, summarization
from mlflow_llamaduo.service_llm.offline.templates import WrittenPair

TEACHERS: Mapping[str, Callable[..., tuple[WrittenPair, ...]]] = {
    "classification": classification.write_pairs,
    "closed_qa": closed_qa.write_pairs,
    "coding": coding.write_pairs,
    "summarization": summarization.write_pairs,
}
"""`write_pairs(*, seed, count)` of each task that has a grammar."""
