"""Whether the files of a published artifact are what they were: by size and time of change at every run, by hash then.

A manifest has of each file its bytes, its SHA-256 and the time of its last change. A file with the same size and time
is taken for the same. One with another time, in a cache that was copied or in a file that was edited, is hashed.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sdx.process.disk import sha256_of, sync

THREADS = 8
"""Files that are hashed at once."""
Files = dict[str, Any]
"""Of each file, by its path in the artifact, the fields of `Print`; an older sdx wrote the bytes alone."""


@dataclass(frozen=True)
class Print:
    """What a file was when it was last hashed. Of a link it is the link itself, not what lies behind it."""

    bytes: int
    sha256: str
    mtime_ns: int


def prints(directory: Path, names: Iterator[str]) -> Files:
    """Of these files, put on the disk first: what a power cut leaves of a published artifact is whole."""

    def of(name: str) -> tuple[str, Any]:
        file = directory / name
        if not file.is_symlink():
            sync(file)
        return name, vars(_print(file))

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(pool.map(of, names))


def changed(directory: Path, files: Mapping[str, Any], thorough: bool = False) -> tuple[dict[Path, str], Files]:
    """What is wrong with each file that is not what it was, in words, and the files as the manifest should have them.

    Args:
        thorough: hash files whose size and time are the same, too.
    """

    def look(name: str, known: Any) -> tuple[str | None, Any]:
        file = directory / name
        [size] = sizes({name: known})
        if not os.path.lexists(file):
            return "is gone", known
        found = file.lstat()
        if found.st_size != size:
            return f"has {found.st_size} bytes instead of {size}", known
        if not isinstance(known, Mapping) or (known["mtime_ns"] == found.st_mtime_ns and not thorough):
            return None, known
        now = _print(file)
        return (None, vars(now)) if now.sha256 == known["sha256"] else ("is not as it was made", known)

    with ThreadPoolExecutor(THREADS) as pool:
        looks = dict(zip(files, pool.map(look, files, files.values()), strict=True))
    wrong = {directory / name: why for name, (why, _) in looks.items() if why}
    return wrong, {name: now for name, (_, now) in looks.items()}


def sizes(files: Mapping[str, Any]) -> list[int]:
    """The bytes of each."""
    return [known["bytes"] if isinstance(known, Mapping) else known for known in files.values()]


def are_files(found: Any) -> bool:
    """Whether it is what a manifest says of files."""
    return isinstance(found, dict) and all(_is_file(one) for one in found.values())


def _is_file(one: Any) -> bool:
    if isinstance(one, dict):
        return all(isinstance(one.get(name), kind) for name, kind in Print.__annotations__.items())
    return isinstance(one, int)


def _print(file: Path) -> Print:
    state = file.lstat()
    digest = sha256(os.fsencode(os.readlink(file))).hexdigest() if file.is_symlink() else sha256_of(file)
    return Print(state.st_size, digest, state.st_mtime_ns)
