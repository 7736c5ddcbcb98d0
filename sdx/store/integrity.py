"""Whether the files of an artifact are as they were published.

A manifest holds each file's bytes, SHA-256 and time of last change. A file with the same size and time counts as
unchanged. A file with another time, because the cache was copied or the file was edited, is hashed.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

from sdx.process.disk import sha256_of, sync

THREADS = 8
"""Files that are hashed at once."""
Files = dict[str, Any]
"""Path in the artifact -> fingerprint, `{"bytes", "sha256", "mtime_ns"}`; an older sdx wrote the bytes alone."""
FINGERPRINT = {"bytes": int, "sha256": str, "mtime_ns": int}


def fingerprints(directory: Path, names: Iterator[str]) -> Files:
    """Fingerprints of these files, which are first synced to disk: a power cut cannot damage a published artifact."""

    def fingerprint(name: str) -> tuple[str, Any]:
        file = directory / name
        if not file.is_symlink():
            sync(file)
        return name, _fingerprint(file)

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(pool.map(fingerprint, names))


def changes(directory: Path, files: Mapping[str, Any], thorough: bool = False) -> tuple[dict[Path, str], Files]:
    """Each changed file with what is wrong with it, and the files with their present times for the manifest.

    Files with the same size and time are only hashed if `thorough`.
    """

    def check(name: str, known: Any) -> tuple[str | None, Any]:
        file = directory / name
        if not os.path.lexists(file):
            return "is gone", known
        state = file.lstat()
        if state.st_size != (expected := bytes_of(known)):
            return f"has {state.st_size} bytes instead of {expected}", known
        if isinstance(known, int) or (known["mtime_ns"] == state.st_mtime_ns and not thorough):
            return None, known
        now = _fingerprint(file)
        return (None, now) if now["sha256"] == known["sha256"] else ("is not as it was made", known)

    with ThreadPoolExecutor(THREADS) as pool:
        checked = dict(zip(files, pool.map(check, files, files.values()), strict=True))
    wrong = {directory / name: why for name, (why, _) in checked.items() if why}
    return wrong, {name: now for name, (_, now) in checked.items()}


def bytes_of(fingerprint: Any) -> int:
    size: int = fingerprint if isinstance(fingerprint, int) else fingerprint["bytes"]
    return size


def are_files(value: Any) -> bool:
    """Whether a value read from a manifest is of the type `Files`."""
    return isinstance(value, dict) and all(
        isinstance(one, int)
        or (isinstance(one, dict) and all(isinstance(one.get(name), kind) for name, kind in FINGERPRINT.items()))
        for one in value.values()
    )


def _fingerprint(file: Path) -> dict[str, Any]:
    """Of a symbolic link, the fingerprint of the link itself."""
    state = file.lstat()
    digest = sha256(os.fsencode(os.readlink(file))).hexdigest() if file.is_symlink() else sha256_of(file)
    return {"bytes": state.st_size, "sha256": digest, "mtime_ns": state.st_mtime_ns}
