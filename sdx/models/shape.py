"""The shape of a model, from its files."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from sdx.config import ShapeConfig
from sdx.models.directory import HEAD_DIM, HEADS, HIDDEN, INTERMEDIATE, LAYERS
from sdx.models.hub import PYTORCH, SAFETENSORS
from sdx.models.weights import header
from sdx.store.files import read_json


def shape_in(model_dir: Path) -> ShapeConfig | None:
    """The shape of the model in a Hugging Face directory; None if config or weights are missing.

    Parameters are counted from the headers of the safetensors files, which store shared weights once; with only
    PyTorch's own files, as in the Llama architecture without norms.
    """
    if not (model_dir / "config.json").is_file():
        return None
    config = read_json(model_dir / "config.json")
    shape = shape_of(config)
    if weights := sorted(model_dir.glob(SAFETENSORS)):
        shape.parameters = sum(prod(tensor["shape"]) for path in weights for tensor in header(path).values())
    elif next(model_dir.glob(PYTORCH), None):
        config = config.get("text_config", config)
        queries = prod(_attention(config))
        layer = shape.hidden_size * (2 * queries + 2 * shape.kv_width + 3 * shape.intermediate_size)
        tables = 1 if config.get("tie_word_embeddings") else 2
        shape.parameters = tables * shape.vocab_size * shape.hidden_size + shape.layers * layer
    return shape if shape.parameters else None


def shape_of(config: Mapping[str, Any]) -> ShapeConfig:
    """The shape in a model's config, without the number of parameters."""
    config = config.get("text_config", config)  # of a multimodal model
    hidden = _first(config, HIDDEN)
    head_width, heads = _attention(config)
    return ShapeConfig(
        layers=_first(config, LAYERS),
        hidden_size=hidden,
        intermediate_size=_first(config, INTERMEDIATE) or 4 * hidden,
        kv_width=head_width * (_first(config, ("num_key_value_heads",)) or heads),
        vocab_size=_first(config, ("vocab_size",)),
    )


def _attention(config: Mapping[str, Any]) -> tuple[int, int]:
    """Width and number of the heads."""
    heads = _first(config, HEADS) or 1
    return _first(config, HEAD_DIM) or _first(config, HIDDEN) // heads, heads


def _first(config: Mapping[str, Any], names: Sequence[str]) -> int:
    """The value of the first name that the config has, since translation models use other names; the maximum over
    layers if there is one for each."""
    found = next((config[name] for name in names if config.get(name)), 0)
    return int(max(found) if isinstance(found, list) else found)
