"""Files that have to last: a full disk told from other errors, what is written put on the disk, damage found."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors that somebody may end who makes room."""
NO_SPACE = (*FULL, errno.EFBIG)
LITTLE_BYTES = 2**20
"""A disk with less is taken for the full one, where nobody knows the file."""


def disk_full(error: BaseException) -> bool:
    """Whether an error, or what it came from, is a full disk or quota."""
    return no_space(error) is not None


def no_space(error: BaseException) -> int | None:
    """Which of `NO_SPACE` an error, or what it came from, is. torch and safetensors wrap the system's."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return error.errno
    text = str(error)
    if told := [number for number in NO_SPACE if os.strerror(number) in text]:
        return told[0]
    cause = error.__cause__ or error.__context__
    if cause is not None and (found := no_space(cause)):
        return found
    return errno.ENOSPC if "PytorchStreamWriter failed" in text else None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names the file, or the directory, in the error of a full disk: the system names none that was open already."""
    try:
        yield
    except Exception as error:
        if (number := no_space(error)) is None or _unwritten(error):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def no_room(error: BaseException, places: Mapping[str, str | Path]) -> str:
    """What a user reads of a full disk: the file that found no room, and where it lies.

    Args:
        error: `disk_full`.
        places: key of a configuration -> directory.
    """
    path = _unwritten(error)
    named = {f"{key}={place}": Path(place).expanduser().absolute() for key, place in places.items()}
    if path is None:
        named["TMPDIR"] = Path(tempfile.gettempdir())
        tight = [name for name, place in named.items() if free_bytes(place) < LITTLE_BYTES]
        return f"no space left on the disk of {' or '.join(tight or [name for name in named if name != 'TMPDIR'])}"
    inside = next((name for name, place in named.items() if path.is_relative_to(place)), None)
    return f"no space left on the disk of {f'{inside}, for {path}' if inside else path}"


def _unwritten(error: BaseException) -> Path | None:
    """The file that a full disk did not take, where the error or what it came from knows."""
    found = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if isinstance(error, OSError) and error.errno in NO_SPACE and isinstance(found, str):
        return Path(found).absolute()
    cause = error.__cause__ or error.__context__
    return _unwritten(cause) if cause is not None else None


def free_bytes(directory: Path) -> int:
    """Of the disk on which a directory is or will be."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def sync(path: Path) -> None:
    """Puts a file, or the entries of a directory, on the disk itself."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, block by block."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def whole_zip(path: Path) -> bool:
    """Whether a zip archive, as torch writes them, is there and all in it has its checksum."""
    try:
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # damaged headers raise whatever they are taken for
        return False
