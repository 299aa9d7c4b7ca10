"""The parts of the service LLM benchmark; benchmarks/service_llm.py says what each compares."""
