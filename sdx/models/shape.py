"""How large a model is, from its files."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from sdx.config import ShapeConfig
from sdx.models.hub import PYTORCH, SAFETENSORS
from sdx.models.weights import header
from sdx.store.files import read_json


def shape_in(model_dir: Path) -> ShapeConfig | None:
    """The shape of the model in a Hugging Face directory; none where config or weights are missing.

    The parameters are counted over the headers of the safetensors files, where shared weights are stored once. A
    directory with PyTorch's own files alone has those of the Llama architecture, norms left out.
    """
    if not (model_dir / "config.json").is_file():
        return None
    config = read_json(model_dir / "config.json")
    shape = shape_of(config)
    if weights := sorted(model_dir.glob(SAFETENSORS)):
        shape.parameters = sum(map(_parameters, weights))
    elif next(model_dir.glob(PYTORCH), None):
        config = config.get("text_config", config)
        queries = _head_width(config) * _heads(config)
        layer = shape.hidden_size * (2 * queries + 2 * shape.kv_width + 3 * shape.intermediate_size)
        tables = 1 if config.get("tie_word_embeddings") else 2
        shape.parameters = tables * shape.vocab_size * shape.hidden_size + shape.layers * layer
    return shape if shape.parameters else None


def shape_of(config: Mapping[str, Any]) -> ShapeConfig:
    """What a model's config says of its shape; the parameters are not counted."""
    config = config.get("text_config", config)  # of a model that also sees
    hidden = _hidden(config)
    return ShapeConfig(
        layers=_first(config, "num_hidden_layers", "decoder_layers", "num_layers", "n_layer", "n_layers"),
        hidden_size=hidden,
        intermediate_size=_first(config, "intermediate_size", "decoder_ffn_dim", "d_ff", "n_inner", "hidden_dim")
        or 4 * hidden,
        kv_width=_head_width(config) * (_first(config, "num_key_value_heads") or _heads(config)),
        vocab_size=_first(config, "vocab_size"),
    )


def _heads(config: Mapping[str, Any]) -> int:
    return _first(config, "num_attention_heads", "decoder_attention_heads", "num_heads", "n_head", "n_heads") or 1


def _hidden(config: Mapping[str, Any]) -> int:
    return _first(config, "hidden_size", "d_model", "n_embd", "dim")


def _head_width(config: Mapping[str, Any]) -> int:
    return _first(config, "head_dim", "d_kv") or _hidden(config) // _heads(config)


def _first(config: Mapping[str, Any], *names: str) -> int:
    """The first of the names that the config gives: translation models have names of their own. Of layers that differ
    the largest counts."""
    found = next((config[name] for name in names if config.get(name)), 0)
    return int(max(found) if isinstance(found, list) else found)


def _parameters(path: Path) -> int:
    return sum(prod(tensor["shape"]) for tensor in header(path).values())
