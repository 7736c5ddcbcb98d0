"""JSON files of the store: written completely or not at all, read with an error that names what is damaged."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.process.disk import writing

MANIFEST = "manifest.json"
SENTENCES = "sentences"
"""Directory of a cache with remembered translations, as `<engine and pair>/<key>`."""
PARTIAL = ".partial"
"""Suffix of the directory of an unpublished step."""
WRITING = ".writing"
"""Suffix of an unfinished file."""


def text_of(path: Path) -> str | None:
    """The text of a file; None if there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError if the file is damaged (no JSON, not UTF-8, or no object), and
    OSError if it cannot be read."""
    return _object(path.read_bytes(), str(path), path)


def read_intact(path: Path) -> dict[str, Any]:
    """The object in a JSON file that can be made again; empty if the file is missing or damaged."""
    try:
        return read_json(path)
    except (OSError, InputError):
        return {}


def _object(content: bytes, name: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        why = "it holds zeros" if b"\0" in content else f"it is not JSON ({str(error)[:80]})"
    else:
        if isinstance(value, dict):
            return value
        why = f"it is a JSON {type(value).__name__} , not an object"
    steps = (folder for folder in path.parents if folder.suffix == PARTIAL or (folder / MANIFEST).is_file())
    fix = next((f"delete {folder}, and it is made again" for folder in steps), "mend it or get it again")
    raise InputError(f"{name} is damaged: {why}; {fix}")


def write_json(path: Path, value: Any) -> None:
    write_lines(path, [json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"])


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects in a JSONL file. Raises InputError if a line is damaged."""
    return list(rows_in(path))


def rows_in(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a JSONL file one by one, see `read_rows`."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            yield _object(line, f"{path}, line {number}", path)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes a JSONL file row by row; how many there were."""
    return write_lines(path, (json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))


def write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Writes a file one line at a time, because memory may not hold all of them; how many there were."""
    count = 0
    temporary = path.with_name(f".{path.name}.{os.getpid()}{WRITING}")
    with writing(path), temporary.open("wb") as file:
        for line in lines:
            file.write(line)
            count += 1
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return count
