"""The weight files of a model directory that transformers would read, and whether they are complete.

Only headers are read: 100 GB take milliseconds. In all functions `what` names the directory in messages, such as
`backbone.path=/models/mine`, and `again` is what to do about a broken file.
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
"""Beginning of `torch.save` files before torch 1.6, which are no zip archives."""
LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header, little-endian."""
CONVERT = "convert it: AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW), and the tokenizer's likewise"


def files(directory: Path, what: str, pickles: bool, again: str = COPY_AGAIN) -> list[Path]:
    """The files from which transformers reads the weights; PyTorch's own format only if `pickles` are accepted.

    Raises:
        InputError: there are none, or an index names a file that is missing or elsewhere.
    """
    formats = [(SAFE, SAFE_INDEX, ".safetensors"), (PICKLE, PICKLE_INDEX, ".bin")]
    for single, index, suffix in formats if pickles else formats[:1]:
        if (directory / single).is_file() or (directory / single).is_symlink():
            return [directory / single]
        if (directory / index).is_file():
            return [directory / name for name in parts(directory / index, what, suffix, again)]
    raise InputError(f"{what} {_instead(directory, pickles)}")


def parts(index: Path, what: str, suffix: str, again: str = COPY_AGAIN) -> list[str]:
    """The files that a weight index names; all of them exist."""
    files_of = json_object(index, what, again).get("weight_map")
    if not isinstance(files_of, dict) or not files_of or not all(isinstance(name, str) for name in files_of.values()):
        raise InputError(f"{what}: {index.name} has no weight_map from weights to files; {again}")
    names = sorted(set(files_of.values()))
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
    """Raises InputError for a weight file that is incomplete, or something else."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise InputError(f"{what}: {path.name} is a link to {path.readlink()}, which is gone; {again}") from None
    if problem := _problem(path, start, path.stat().st_size):
        raise InputError(f"{what}: {path.name} {problem}; {again}")


def _problem(path: Path, start: bytes, size: int) -> str | None:
    """What is wrong with a weight file, as a predicate."""
    if not size:
        return "is empty"
    if start.startswith(LFS_POINTER):
        return "is a pointer of Git LFS: fetch the weights with git lfs pull"
    if start.lstrip().startswith(b"<"):
        return "is a web page, not weights"
    if path.suffix != ".safetensors":
        if is_zipfile(path) or start.startswith(OLD_PICKLE):
            return None
        return f"({size:,} bytes) {'is cut off' if start.startswith(b'PK') else 'is no file of torch.save'}"
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            return None
    except SafetensorError as error:
        reason = str(error)
    header_end = LENGTH_BYTES + int.from_bytes(start[:LENGTH_BYTES], "little")
    if start[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{" or header_end > 100_000_000:  # the limit of the format
        return f"({size:,} bytes) is no safetensors file"
    if header_end > size:
        return f"has {size:,} bytes and ends within its header"
    try:
        whole = header_end + max((entry["data_offsets"][1] for entry in header(path).values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError):
        whole = size
    return f"has {size:,} bytes of {whole:,} bytes" if whole != size else f"is no sound safetensors file ({reason})"


def header(path: Path) -> Mapping[str, Any]:
    """Weight -> its shape, dtype and offsets in a safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        content: dict[str, Any] = json.loads(file.read(length))
    content.pop("__metadata__", None)
    return content


def json_object(path: Path, what: str, again: str = COPY_AGAIN) -> dict[str, Any]:
    """Raises InputError for a file without a JSON object."""
    content = path.read_bytes()
    try:
        found = json.loads(content.decode())
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except (ValueError, RecursionError) as error:
        reason = f"it is no JSON ({error})" if content.strip() else "it is empty"
        if content.startswith(LFS_POINTER):
            reason = "it is a pointer of Git LFS, see git lfs pull"
    else:
        if isinstance(found, dict):
            return found
        reason = f"it holds no JSON object, but {content.decode().strip()[:20]}"
    raise InputError(f"{what}: {path.name} cannot be read: {reason}; {again}")


def _instead(directory: Path, pickles: bool) -> str:
    """What the directory has instead of weights, and what to do."""

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
