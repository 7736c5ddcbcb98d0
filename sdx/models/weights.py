"""The weight files of a model directory: those that transformers would read, and whether they are whole.

Headers are read, weights are not, so that 100 GB are judged in milliseconds.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from sdx import InputError

SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
COPY_AGAIN = "copy it again"
LFS_POINTER = b"version https://git-lfs"
OLD_PICKLE = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of `torch.save` begin that are no zip archives: torch before 1.6."""
HEADER_BYTES = 8
"""A safetensors file begins with the length of its JSON header, little-endian."""
LONGEST_HEADER_BYTES = 100_000_000
"""More the format does not allow."""
CONVERT = "convert it: AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW), and the tokenizer's likewise"


def files(directory: Path, what: str, pickles: bool, again: str = COPY_AGAIN) -> list[Path]:
    """The files that transformers reads the weights from.

    Args:
        what: names the directory in messages, as `backbone.path=/models/mine`.
        pickles: whether PyTorch's own format will do.
        again: what to do about a file that is broken.

    Raises:
        InputError: there are none, or an index names one that is missing or lies elsewhere.
    """
    formats = [(SAFE, SAFE_INDEX, ".safetensors"), (PICKLE, PICKLE_INDEX, ".bin")]
    for single, index, suffix in formats if pickles else formats[:1]:
        if (directory / single).is_file() or (directory / single).is_symlink():
            return [directory / single]
        if (directory / index).is_file():
            return [directory / name for name in parts(directory / index, what, suffix, again)]
    raise InputError(f"{what} {_instead(directory, pickles)}")


def parts(index: Path, what: str, suffix: str, again: str = COPY_AGAIN) -> list[str]:
    """The names of the files that a weight index names, all of which are there."""
    content = json_object(index, what, again)
    places = content.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{what}: {index.name} has no weight_map from weights to files; {again}")
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(suffix):
            raise InputError(f"{what}: {index.name} names {name!r}, which is no *{suffix} file beside it; {again}")
    if missing := [name for name in names if not (index.parent / name).exists()]:
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise InputError(
            f"{what} has no weights in {missing[0]}{more}, which {index.name} names (not all of {len(names)} files are "
            f"there); {again}"
        )
    return names


def check_file(path: Path, what: str, again: str = COPY_AGAIN) -> None:
    """Raises InputError for a weight file that is not whole, or something else."""
    begins = _beginning(path, what, again)
    named, size = f"{what}: {path.name}", path.stat().st_size
    if not size:
        raise InputError(f"{named} is empty; {again}")
    if begins.startswith(LFS_POINTER):
        raise InputError(f"{named} is a pointer of Git LFS; fetch the weights with git lfs pull")
    if begins.lstrip().startswith(b"<"):
        raise InputError(f"{named} is a web page, not weights; {again}")
    if path.suffix != ".safetensors":
        if not (is_zipfile(path) or begins.startswith(OLD_PICKLE)):
            cut = "is cut off" if begins.startswith(b"PK") else "is no file of torch.save"
            raise InputError(f"{named} ({_size(size)}) {cut}; {again}")
        return
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            return
    except SafetensorError as error:
        reason = _why(path, size) or f"is no sound safetensors file ({error})"
        raise InputError(f"{named} {reason}; {again}") from None


def header(path: Path) -> Mapping[str, Any]:
    """By name of the weight its shape, dtype and place in a safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_BYTES), "little")
        content: dict[str, Any] = json.loads(file.read(length))
    content.pop("__metadata__", None)
    return content


def json_object(path: Path, what: str, again: str = COPY_AGAIN) -> dict[str, Any]:
    """Raises InputError for a file that holds no JSON object."""
    try:
        text = path.read_bytes().decode("utf-8")
        content = json.loads(text)
    except OSError as error:
        raise InputError(f"{what}: {path.name} cannot be read ({error.strerror}); see to it") from None
    except UnicodeDecodeError:
        raise InputError(f"{what}: {path.name} cannot be read: it is not UTF-8; {again}") from None
    except (ValueError, RecursionError) as error:
        reason = "it is empty" if not text.strip() else f"it is no JSON ({error})"
        if text.encode().startswith(LFS_POINTER):
            reason = "it is a pointer of Git LFS, see git lfs pull"
        raise InputError(f"{what}: {path.name} cannot be read: {reason}; {again}") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{what}: {path.name} cannot be read: it holds no JSON object, but {text.strip()[:20]}; {again}"
        )
    return content


def _instead(directory: Path, pickles: bool) -> str:
    """What is there instead of weights, and what to do."""

    def first(pattern: str) -> str | None:
        return next((path.name for path in sorted(directory.glob(pattern))), None)

    if not pickles and (found := first("pytorch_model*.bin")):
        return f"has its weights as a pickle only ({found}), which can run code; {CONVERT}"
    if first("adapter_config.json"):
        return "has an adapter instead of weights; merge it into its model (peft: merge_and_unload) and save that"
    if found := first("*-of-*.safetensors") or first("pytorch_model-*-of-*.bin"):
        return f"has no weights that can be found: {found} is there and its index, *.index.json, is not; copy that"
    if found := first("*.gguf"):
        return f"has no weights but GGUF ({found}), which cannot be trained; give the safetensors that it was made from"
    wanted = "*.safetensors or pytorch_model*.bin" if pickles else "*.safetensors"
    others = next(filter(None, map(first, ("*.safetensors", "*.bin", "*.pt*", "*.h5", "*.msgpack"))), None)
    named = f" but {others}, a name that transformers does not look for" if others else ""
    return f"has no weights ({wanted}){named}; copy {SAFE}, or {SAFE_INDEX} and all that it names"


def _beginning(path: Path, what: str, again: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except FileNotFoundError:
        raise InputError(f"{what}: {path.name} is a link to {path.readlink()}, which is gone; {again}") from None
    except OSError as error:
        raise InputError(f"{what}: {path.name} cannot be read ({error.strerror}); see to it") from None


def _why(path: Path, size: int) -> str | None:
    """What is wrong with a safetensors file, where its length tells."""
    with path.open("rb") as file:
        length, first = int.from_bytes(file.read(HEADER_BYTES), "little"), file.read(1)
    if size <= HEADER_BYTES or length > LONGEST_HEADER_BYTES or first != b"{":
        return f"({_size(size)}) is no safetensors file"
    if HEADER_BYTES + length > size:
        return f"has {_size(size)} and ends within its header"
    try:
        whole = HEADER_BYTES + length + max((entry["data_offsets"][1] for entry in header(path).values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    return f"has {_size(size)} of {_size(whole)}" if whole != size else None


def _size(count: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:,} bytes"
