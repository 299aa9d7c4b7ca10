"""Families of models: judges favour students of their own family (preference leakage, arXiv 2502.01534).

A family is who made the model, whoever serves it: `azure/gpt-4o`, `openrouter/openai/gpt-4o` and `openai/gpt-4o` are
one. Models that are not known are told by the first part of their own name.
"""

import re
from collections.abc import Mapping

from mlflow_llamaduo.config import ServiceLLMs, ServiceModel
from mlflow_llamaduo.service_llm.terms import presets

FAMILIES: Mapping[str, str] = {
    "OpenAI": r"gpt|chatgpt|o[1-9](-|$)|davinci",
    "Anthropic": r"claude",
    "Google": r"gemini|gemma|palm|bison",
    "Meta": r"(meta-?)?llama",
    "Mistral": r"(open-?)?mi[sx]tral|ministral|codestral|magistral|pixtral|devstral",
    "Qwen": r"qwen|qwq",
    "DeepSeek": r"deepseek",
    "Cohere": r"command|c4ai",
    "xAI": r"grok",
    "Amazon": r"nova|titan",
    "Microsoft": r"phi-",
    "Zhipu": r"(chat)?glm",
    "Moonshot": r"kimi|moonshot",
}


def family(llm: ServiceModel) -> str:
    """The family of a configured model; `offline/...` stand-ins are each one of their own."""
    name = str(presets().get(llm.model, {}).get("model", llm.model)).lower()
    if name.startswith("offline/"):
        return name
    own = name.rpartition("/")[2]
    own = re.sub(r"^(us|eu|apac|global)\.", "", own)  # Bedrock's regions: eu.anthropic.claude-...
    words = [word for word in re.split(r"[.:@]", own) if word]
    for known, pattern in FAMILIES.items():
        if any(re.search(rf"(^|[-_])({pattern})", word) for word in words):  # deployments: prod-gpt-4o
            return known
    return re.split(r"[-_.:@]", own)[0]


def told(llms: ServiceLLMs) -> str:
    """`same: OpenAI`, `different: OpenAI judges Anthropic`, `offline stand-ins`: the judge's and the generator's."""
    judge, generator = family(llms.judge), family(llms.generator)
    if judge.startswith("offline/") and generator.startswith("offline/"):
        return "offline stand-ins"
    return f"same: {judge}" if judge == generator else f"different: {judge} judges {generator}"
