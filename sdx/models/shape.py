"""How large a model is, from its files."""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from sdx.artifacts import read_json
from sdx.config import ShapeConfig
from sdx.models.hub import PYTORCH, SAFETENSORS

HEADER_BYTES = 8
"""A safetensors file begins with the length of its JSON header, little-endian."""


def shape_in(model_dir: Path) -> ShapeConfig | None:
    """The shape of the model in a Hugging Face directory; none where config or weights are missing.

    The parameters are counted over the headers of the safetensors files, where shared weights are stored once. A
    directory with PyTorch's own files alone has those of the Llama architecture, norms left out.
    """
    if not (model_dir / "config.json").is_file():
        return None
    config = read_json(model_dir / "config.json")
    config = config.get("text_config", config)  # of a model that also sees

    def first(*names: str) -> int:
        """The first of the names that the config gives: translation models have names of their own."""
        return next((int(config[name]) for name in names if config.get(name)), 0)

    hidden, heads = first("hidden_size", "d_model"), first("num_attention_heads", "decoder_attention_heads") or 1
    head = first("head_dim") or hidden // heads
    shape = ShapeConfig(
        layers=first("num_hidden_layers", "decoder_layers"),
        hidden_size=hidden,
        intermediate_size=first("intermediate_size", "decoder_ffn_dim") or 4 * hidden,
        kv_width=head * (first("num_key_value_heads") or heads),
        vocab_size=first("vocab_size"),
    )
    if weights := sorted(model_dir.glob(SAFETENSORS)):
        shape.parameters = sum(map(_parameters, weights))
    elif next(model_dir.glob(PYTORCH), None):
        layer = hidden * (2 * head * heads + 2 * shape.kv_width + 3 * shape.intermediate_size)
        tables = 1 if config.get("tie_word_embeddings") else 2
        shape.parameters = tables * shape.vocab_size * hidden + shape.layers * layer
    return shape if shape.parameters else None


def _parameters(path: Path) -> int:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_BYTES), "little")
        header: Mapping[str, Any] = json.loads(file.read(length))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
