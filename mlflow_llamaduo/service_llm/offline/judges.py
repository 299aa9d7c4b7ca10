"""What `offline/judge` scores by: reference metrics, each task by its own.

They compare words, labels or characters with the reference. They are not an LLM's opinion.
"""

from collections.abc import Callable, Mapping

from mlflow_llamaduo.core.overlap import containment, rouge_l, token_f1
from mlflow_llamaduo.service_llm.offline.classification_judge import by_labels
from mlflow_llamaduo.service_llm.offline.coding_judge import by_code
from mlflow_llamaduo.service_llm.offline.metrics import Given
from mlflow_llamaduo.service_llm.offline.summarization_judge import by_facts


def assess(task: str, reference: str, response: str, instruction: str = "") -> tuple[Given, Given]:
    """Similarity and precision of a response; a task that is not known is scored like closed QA.

    Args:
        task: the task's name.
        reference: the answer that is known to be good.
        response: the answer to score.
        instruction: the prompt; of a classification it says what other labels there were.
    """
    return JUDGES.get(task, by_words)(reference, response, instruction)


def by_words(reference: str, response: str, _instruction: str = "") -> tuple[Given, Given]:
    """Closed QA: how many words are shared.

    Similarity is the mean of token F1 and ROUGE-L; precision the mean of containment (is the reference answer
    in the response?) and token F1 (is there little else?).
    """
    f1, rouge, held = token_f1(reference, response), rouge_l(reference, response), containment(reference, response)
    return (
        Given((f1 + rouge) / 2, f"token F1 {f1:.2f}, ROUGE-L {rouge:.2f}"),
        Given((held + f1) / 2, f"containment {held:.2f}, token F1 {f1:.2f}"),
    )


JUDGES: Mapping[str, Callable[[str, str, str], tuple[Given, Given]]] = {
    "classification": by_labels,
    "closed_qa": by_words,
    "coding": by_code,
    "summarization": by_facts,
}
