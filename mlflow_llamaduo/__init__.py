"""Move one task from a paid service LLM to a small local model you own.

The four words of the project: *coverage* (satisfactory pairs of prompt and response from the service LLM),
*fine-tune*, *judge*, *grow*. `llamaduo --help` is the way in; `loop.align` is the pipeline as code.

Importing this package loads neither mlflow, ray, torch, transformers nor litellm.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
