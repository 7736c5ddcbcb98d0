"""Checks a model directory in Hugging Face format without torch and transformers: config, weights, tokenizer.

`sdx.models.load_check` then checks what transformers makes of the directory.
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.models.weights import COPY_AGAIN, check_file, files, json_object

CONFIG = "config.json"
TEMPLATE = "chat_template.jinja"
OBJECTS = (
    *("generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json"),
)
"""Optional files, each with a JSON object."""
HIDDEN = ("hidden_size", "d_model", "n_embd", "dim")
LAYERS = ("num_hidden_layers", "decoder_layers", "num_layers", "n_layer", "n_layers")
HEADS = ("num_attention_heads", "decoder_attention_heads", "num_heads", "n_head", "n_heads")
INTERMEDIATE = ("intermediate_size", "decoder_ffn_dim", "d_ff", "n_inner", "hidden_dim")
HEAD_DIM = ("head_dim", "d_kv")
NUMBERS = (
    *(*HIDDEN, *LAYERS, *HEADS, *INTERMEDIATE, *HEAD_DIM),
    *("encoder_layers", "num_key_value_heads", "vocab_size", "max_position_embeddings"),
)
"""Numbers that sdx reads from a config: not negative, or a list with one for each layer."""


def check(directory: Path, what: str, pickles: bool = True, again: str = COPY_AGAIN) -> None:
    """Raises InputError if the directory cannot be loaded. The arguments are those of `sdx.models.weights`."""
    try:
        if directory.is_symlink() and not directory.exists():
            raise InputError(f"{what} is a link to {directory.readlink()}, which is gone; give the directory itself")
        if directory.exists() and not directory.is_dir():
            raise InputError(f"{what} is a file; give the directory with config.json and the weights")
        found = [path for path in directory.iterdir() if path.exists()] if directory.exists() else []
        stats = frozenset((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in found)
        _check(directory, what, pickles, again, stats)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # no permission, a name that is too long or has a NUL
        raise InputError(f"{what} cannot be read ({error}); give a directory that can be read") from None


def config_of(directory: Path, what: str, again: str = COPY_AGAIN) -> dict[str, Any]:
    """The content of config.json. Raises InputError if it is missing or describes no model."""
    if not (directory / CONFIG).is_file():
        raise InputError(f"{what} has no config.json; give a directory in Hugging Face format")
    config = json_object(directory / CONFIG, what, again)
    inner = config.get("text_config")
    if inner is not None and not isinstance(inner, dict):
        raise InputError(f"{what}: config.json has text_config={inner!r}, which is no object; {again}")
    for name, value in ((name, part.get(name)) for part in (config, inner or {}) for name in NUMBERS):
        values = value if isinstance(value, list) else [] if value is None else [value]
        if bad := [number for number in values if type(number) is not int or number < 0]:
            raise InputError(f"{what}: config.json has {name}={bad[0]!r}, which is no possible number; {again}")
    if not isinstance(config.get("model_type"), str):
        raise InputError(
            f"{what}: config.json names no model_type, which says how to load it; copy the model's own config.json"
        )
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise InputError(
            f"{what} is quantised (quantization_config in config.json: {method}), and sdx loads and trains bf16 and "
            "fp32; give the model that it was made from"
        )
    return config


@lru_cache(maxsize=32)  # an unchanged directory is checked once
def _check(directory: Path, what: str, pickles: bool, again: str, stats: frozenset[tuple[str, int, int]]) -> None:
    config_of(directory, what, again)
    for path in files(directory, what, pickles, again):
        check_file(path, what, again)
    found = {name: json_object(directory / name, what, again) for name in OBJECTS if (directory / name).is_file()}
    if "tokenizer.json" in found and not isinstance(found["tokenizer.json"].get("model"), dict):
        raise InputError(f"{what}: tokenizer.json describes no tokenizer (it has no model); {again}")
    try:
        if (directory / TEMPLATE).is_file():
            (directory / TEMPLATE).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{what}: {TEMPLATE} cannot be read: it is not UTF-8; {again}") from None
    pieces = next((path for pattern in ("*.spm", "*.model") for path in directory.glob(pattern)), None)
    if pieces and "tokenizer.json" not in found and not find_spec("sentencepiece"):
        raise InputError(
            f"{what} has its tokenizer in {pieces.name}; pip install sentencepiece, or save it with tokenizer.json"
        )
