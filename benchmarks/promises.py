"""What the project promises of its speed and its exactness: of each benchmark, the rows that show it.

A name is that of a row of the benchmark at its full size. The page's one table has these rows and no others.
"""

_CURATED, _KNOWN = "curate 256K rows", "curate 16K new beside 256K known"
_SERVED = "transformers engine on Ray Serve, 16 at once, answers of 48 tokens at most"
_ANSWERED = "24 prompts of closed_qa, 4 answers of 48 tokens at most"
_SATURATED = "600 s at saturation, 64 clients, 30 % of the streams left in the middle"
_VLLM = "vLLM engine on Ray Serve, on CPU"
_PROXIED = "registry and adapters cost little beside vLLM's own server"

PROMISES: dict[str, dict[str, str]] = {
    "startup": {
        "`llamaduo --help`": "a command answers in a tenth of MLflow's time",
        "`import mlflow_llamaduo`": "the plugin adds nothing to MLflow's start that one could feel",
    },
    "service_llm": {
        "6,000 requests a minute: share of it in steady state": "what a provider allows is used",
        "6,000 requests a minute: requests lost": "no request is given up for the provider's limit",
        "2,000 requests, 13 % faults: lost": "no request is lost when the provider fails",
        "2,000 requests, 13 % faults: paid twice": "no reply is paid twice",
        "a call that takes no time": "store, budget and limits add little to LiteLLM's own call",
        "stored replies out of 1,000,000, store alone": "what was paid is found as fast as SQLite reads",
        "200 random budgets: largest share spent": "no run passes its cap",
    },
    "curate": {
        "curate 64K rows": "copies are found in a third of the time of datasketch",
        "curate 64K rows: near copies at 0.95 found": "more near copies are found than by either peer",
        _CURATED: "a quarter of a million rows in less than a minute",
        f"{_CURATED}: memory of all processes": "on a laptop",
        f"{_CURATED}: near copies at 0.95 found": "near copies are found",
        f"{_CURATED}: leaks of prompts of 40 to 149 words": "test prompts in the training rows are found",
        f"{_CURATED}: clean rows flagged": "rows that leak nothing stay",
        _KNOWN: "a round waits seconds for it",
    },
    "gate": {
        "gate passes a candidate 5 points under the line, 15 prompts": "what is not good enough is not passed",
        "gate passes a candidate 5 points over the line, 100 prompts": "what is good enough is, with more prompts",
        "95 % intervals that hold a mean of 80, 15 prompts": "an interval holds what it says",
        "judge calls saved, candidate on the line": "judging stops when it is settled",
        "decisions that are those of all 10 judgings, candidate on the line": "and the decision is the same",
    },
    "finetune": {
        "real tokens trained": "faster than bare trl, and as fast as a loop that only trains",
        "dev loss after one epoch": "and learns the same",
        "memory of a training process": "in no more memory than that loop",
    },
    "inference": {
        f"{_ANSWERED}: transformers engine": "test prompts are answered faster than by `generate`",
        f"{_ANSWERED}: vLLM engine on CPU": "vLLM is as fast through our engine as without it",
    },
    "serving": {
        _SERVED: "a champion is served faster than by MLflow's own server",
        f"{_SERVED}: four adapters in rotation": "four versions at once cost little",
        f"{_VLLM}, 1 at once": _PROXIED,
        f"{_VLLM}, 8 at once": _PROXIED,
        f"{_VLLM}, 32 at once": _PROXIED,
    },
    "saturation": {
        f"{_SATURATED}: other errors, and streams that did not end": "too much is said no to, properly",
        f"{_SATURATED}: memory at the end": "and memory does not grow",
    },
}
