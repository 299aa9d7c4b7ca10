"""The shape of a decoder, out of its config.json alone: how many parameters it has, and where.

The families whose layers are counted here: attention with separate q, k, v and o, and a gated MLP (Llama, Mistral,
Gemma 1 to 3, Qwen 2 to 3, SmolLM3, Granite).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_llamaduo.errors import BaseModelError

FAMILIES = (
    "gemma",
    "gemma2",
    "gemma3_text",
    "granite",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
)
TIED = {"gemma", "gemma2", "gemma3_text", "smollm3"}
"""Families whose head is the embedding where config.json does not say."""
FOUR_NORMS = {"gemma2", "gemma3_text"}
"""Families with a norm before and behind both halves of a layer."""
NORMED_HEADS = {"gemma3_text", "qwen3"}
"""Families that norm queries and keys, head by head."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one model. `window` is the reach of its windowed layers in tokens, and 0 if it has none."""

    name: str
    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    positions: int
    tied: bool
    biases: int = 0
    window: int = 0
    windowed_layers: int = 0

    @property
    def queries(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads together; the values are as wide."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """The linear layers of one decoder layer, in and out: q, k, v, o, gate, up, down."""
        h, q, kv, i = self.hidden, self.queries, self.keys, self.intermediate
        return (h, q), (h, kv), (h, kv), (q, h), (h, i), (h, i), (i, h)

    @property
    def linear_parameters(self) -> int:
        """Weights of all layers' linear layers: what NF4 quantizes and LoRA adapts (`all-linear`)."""
        return self.layers * sum(n_in * n_out for n_in, n_out in self.linears)

    @property
    def other_parameters(self) -> int:
        """Embedding, head, norms and biases: never quantized."""
        norms = (4 if self.family in FOUR_NORMS else 2) * self.hidden
        norms += 2 * self.head_dim if self.family in NORMED_HEADS else 0
        tables = self.vocab * self.hidden * (1 if self.tied else 2)
        return tables + self.hidden + self.layers * (norms + self.biases)

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.linear_parameters + self.other_parameters

    def adapter_parameters(self, rank: int) -> int:
        """Of a LoRA adapter on all linear layers: `rank` rows in, `rank` columns out, each."""
        return self.layers * sum(rank * (n_in + n_out) for n_in, n_out in self.linears)

    def kept(self, length: int) -> int:
        """Keys (or values) that a conversation of `length` tokens keeps in the cache, summed over the layers."""
        near = min(length, self.window) if self.window else length
        return self.keys * (self.windowed_layers * near + (self.layers - self.windowed_layers) * length)


def shape_of(name: str, config: Mapping[str, Any]) -> Shape:
    """Read a config.json.

    Raises:
        BaseModelError: the family is another, or a size is missing.
    """
    text = config.get("text_config", config)
    family = str(text.get("model_type"))
    if family not in FAMILIES:
        raise BaseModelError(f"{name} is of the family {family}; its memory is reckoned for {', '.join(FAMILIES)}")
    try:
        heads, hidden, layers = (
            int(text[key]) for key in ("num_attention_heads", "hidden_size", "num_hidden_layers")
        )
        kv_heads = int(text.get("num_key_value_heads") or heads)
        head_dim = int(text.get("head_dim") or hidden // heads)
        window, windowed = _windowed(text, family, layers)
        return Shape(
            name=name,
            family=family,
            layers=layers,
            hidden=hidden,
            intermediate=int(text["intermediate_size"]),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            vocab=int(text["vocab_size"]),
            positions=int(text["max_position_embeddings"]),
            tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", family in TIED))),
            biases=_biases(text, family, heads * head_dim, kv_heads * head_dim),
            window=window,
            windowed_layers=windowed,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BaseModelError(f"config.json of {name}: cannot be read as sizes of a model ({error!r})") from error


def _biases(text: Mapping[str, Any], family: str, queries: int, keys: int) -> int:
    """Bias values of one layer."""
    hidden, intermediate = int(text["hidden_size"]), int(text["intermediate_size"])
    count = queries + 2 * keys if family == "qwen2" or text.get("attention_bias") else 0
    count += hidden if text.get("attention_bias") and family != "qwen2" else 0
    return count + (2 * intermediate + hidden if text.get("mlp_bias") else 0)


def _windowed(text: Mapping[str, Any], family: str, layers: int) -> tuple[int, int]:
    """Reach and number of the layers that attend to the last tokens only."""
    window = int(text.get("sliding_window") or 0)
    if not window or text.get("use_sliding_window") is False or family in ("llama", "gemma", "granite"):
        return 0, 0
    if kinds := text.get("layer_types"):
        windowed = sum(kind == "sliding_attention" for kind in kinds)
    elif family == "gemma2":
        windowed = -(-layers // 2)
    elif family == "gemma3_text":
        windowed = layers - layers // int(text.get("sliding_window_pattern") or 6)
    else:
        windowed = layers if family == "mistral" else 0
    return (window, windowed) if windowed else (0, 0)
