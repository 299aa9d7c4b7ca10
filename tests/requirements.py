"""What a test run must not skip: LLAMADUO_REQUIRE names it (gpu, vllm, netns, browser), with commas between."""

import os


def required() -> frozenset[str]:
    """The names."""
    return frozenset(filter(None, os.environ.get("LLAMADUO_REQUIRE", "").split(",")))
