"""A directory in Hugging Face format that somebody hands us, looked at before anything is loaded.

What its files say by themselves is found here, without torch and transformers; what transformers makes of them is
tried in `sdx.models.trial`.
"""

import os
from collections.abc import Mapping
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
"""Files that are read where they are there; each holds a JSON object."""
NUMBERS = (
    *("hidden_size", "d_model", "n_embd", "dim", "vocab_size", "max_position_embeddings", "head_dim", "d_kv"),
    *("num_hidden_layers", "decoder_layers", "encoder_layers", "num_layers", "n_layer", "n_layers"),
    *("num_attention_heads", "decoder_attention_heads", "num_heads", "n_head", "n_heads", "num_key_value_heads"),
    *("intermediate_size", "decoder_ffn_dim", "d_ff", "n_inner", "hidden_dim"),
)
"""What sdx reads of a config: positive, or one for each layer."""
NEEDS_SENTENCEPIECE = ("*.spm", "*.model")


def check(directory: Path, what: str, pickles: bool = True, again: str = COPY_AGAIN) -> None:
    """Looks at config, weights and tokenizer. Loads nothing; a directory that did not change is looked at once.

    Args:
        what: names the directory in messages, as `backbone.path=/models/mine`.
        pickles: whether weights in PyTorch's own format will do.
        again: what to do about a file that is broken.

    Raises:
        InputError: it cannot be loaded.
    """
    try:
        _check_place(directory, what)
        stamps = tuple(sorted(map(_stamp, os.scandir(directory)))) if directory.exists() else ()
        _check(directory, what, pickles, again, stamps)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # no right to it, a name that is too long, a NUL in it
        raise InputError(f"{what} cannot be read ({getattr(error, 'strerror', None) or error}); see to it") from None


def config_of(directory: Path, what: str, again: str = COPY_AGAIN) -> dict[str, Any]:
    """The content of config.json. Raises InputError where it is missing or describes no model."""
    if not (directory / CONFIG).is_file():
        raise InputError(f"{what} has no config.json; give a directory in Hugging Face format")
    config = json_object(directory / CONFIG, what, again)
    inner = config.get("text_config")
    if inner is not None and not isinstance(inner, dict):
        raise InputError(f"{what}: config.json has text_config={inner!r}, which is no object; {again}")
    for part in (config, inner or {}):
        for name in NUMBERS:
            _check_number(f"{what}: config.json has {name}", part.get(name), again)
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


def _check_place(directory: Path, what: str) -> None:
    if directory.is_symlink() and not directory.exists():
        raise InputError(f"{what} is a link to {directory.readlink()}, which is gone; give the directory itself")
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{what} is a file; give the directory that config.json and the weights lie in")


def _stamp(entry: os.DirEntry[str]) -> tuple[str, int, int]:
    try:
        found = entry.stat()
    except OSError:  # a link into the void
        return entry.name, -1, -1
    return entry.name, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=32)
def _check(directory: Path, what: str, pickles: bool, again: str, stamps: tuple[tuple[str, int, int], ...]) -> None:
    config_of(directory, what, again)
    for path in files(directory, what, pickles, again):
        check_file(path, what, again)
    found = {name: json_object(directory / name, what, again) for name in OBJECTS if (directory / name).is_file()}
    _check_tokenizer(directory, what, again, found)


def _check_tokenizer(directory: Path, what: str, again: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    if "tokenizer.json" in found and not isinstance(found["tokenizer.json"].get("model"), dict):
        raise InputError(f"{what}: tokenizer.json describes no tokenizer (it has no model); {again}")
    try:
        if (directory / TEMPLATE).is_file():
            (directory / TEMPLATE).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{what}: {TEMPLATE} cannot be read: it is not UTF-8; {again}") from None
    if "tokenizer.json" in found or find_spec("sentencepiece"):
        return
    for pattern in NEEDS_SENTENCEPIECE:
        if pieces := next(directory.glob(pattern), None):
            raise InputError(
                f"{what} has its tokenizer in {pieces.name}; pip install sentencepiece, or save it with tokenizer.json"
            )


def _check_number(what: str, value: Any, again: str) -> None:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if bad := [one for one in values if isinstance(one, bool) or not isinstance(one, int) or one < 0]:
        raise InputError(f"{what}={bad[0]!r}, which is no number that a model can have; {again}")
