import pytest

from mlflow_llamaduo.config import ServiceLLMs, ServiceModel
from mlflow_llamaduo.errors import ConfigError
from mlflow_llamaduo.preflight import check_judges, same_family
from mlflow_llamaduo.service_llm.family import family, told
from tests.unit.builders import project

FAMILIES = {
    "gpt-4o": "OpenAI",  # a preset
    "openai/gpt-4o-mini": "OpenAI",
    "azure/prod-gpt-4o": "OpenAI",  # a deployment's own name
    "azure/gpt-4o-2024": "OpenAI",
    "openrouter/openai/o3-mini": "OpenAI",
    "openai/o1": "OpenAI",
    "openai/chatgpt-4o-latest": "OpenAI",
    "anthropic/claude-3-5-sonnet": "Anthropic",
    "bedrock/anthropic.claude-3-sonnet-20240229-v1:0": "Anthropic",
    "bedrock/eu.anthropic.claude-sonnet-4": "Anthropic",
    "vertex_ai/claude-3-opus@20240229": "Anthropic",
    "gemini/gemini-1.5-flash": "Google",
    "vertex_ai/gemini-2.0-pro": "Google",
    "ollama/gemma2:27b": "Google",
    "together_ai/meta-llama/Meta-Llama-3-70B-Instruct": "Meta",
    "bedrock/meta.llama3-70b-instruct-v1:0": "Meta",
    "mistral/open-mixtral-8x22b": "Mistral",
    "mistral/codestral-latest": "Mistral",
    "openai/Qwen2.5-72B-Instruct": "Qwen",
    "deepseek/deepseek-chat": "DeepSeek",
    "cohere/command-r-plus": "Cohere",
    "xai/grok-2": "xAI",
    "openai/oracle-7b": "oracle",  # no o1: a letter and a word are not a letter and a digit
    "hosted_vllm/acme-judge-v2": "acme",
    "offline/judge": "offline/judge",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_who_made_the_model_and_not_who_serves_it(name: str) -> None:
    assert family(ServiceModel(model=name)) == FAMILIES[name]


def llms(judge: str, generator: str) -> ServiceLLMs:
    return ServiceLLMs(judge=ServiceModel(model=judge), generator=ServiceModel(model=generator))


def test_the_tag_says_which_families_they_are() -> None:
    assert told(llms("gpt-4o", "openai/gpt-4o-mini")) == "same: OpenAI"
    assert told(llms("gemini/gemini-2.0-pro", "gpt-4o")) == "different: Google judges OpenAI"
    assert told(llms("offline/judge", "offline/teacher")) == "offline stand-ins"


def test_a_judge_of_the_generators_family_is_warned_of_and_under_the_gate_forbidden() -> None:
    related = {"judge": "gpt-4o", "generator": "openai/gpt-4o-mini"}

    assert "one family (OpenAI)" in str(same_family(project(service_llm=related)))
    check_judges(project(service_llm=related))
    with pytest.raises(ConfigError, match=r"gate\.forbid_same_family.*one family"):
        check_judges(project(service_llm=related, gate={"precision_mean": 70, "forbid_same_family": True}))


def test_judges_of_two_families_and_stand_ins_are_no_matter() -> None:
    forbidden = {"precision_mean": 70, "forbid_same_family": True}

    assert same_family(project()) is None
    check_judges(project(gate=forbidden))
    check_judges(project(gate=forbidden, service_llm={"judge": "claude-sonnet-5.5", "generator": "gpt-4o"}))


def test_a_judge_that_is_named_twice_is_told() -> None:
    with pytest.raises(ConfigError, match="openai/gpt-4o judges already"):
        check_judges(project(service_llm={"judge": "gpt-4o", "other_judges": ["openai/gpt-4o"]}))
