"""Full disks told from other errors, files flushed to the disk, and damage found."""

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
"""Errors that end when somebody frees space."""
NO_SPACE = (*FULL, errno.EFBIG)


def disk_full(error: BaseException) -> bool:
    """Whether an error, or one of its causes, is a full disk or quota."""
    return no_space(error) is not None


def no_space(error: BaseException) -> int | None:
    """Which of `NO_SPACE` an error or one of its causes is. torch and safetensors wrap the system's error."""
    for each in _causes(error):
        if isinstance(each, OSError) and each.errno in NO_SPACE:
            return each.errno
        if numbers := [number for number in NO_SPACE if os.strerror(number) in str(each)]:
            return numbers[0]
    return errno.ENOSPC if any("PytorchStreamWriter failed" in str(each) for each in _causes(error)) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Puts the path into the error of a full disk: the system does not name a file that was already open."""
    try:
        yield
    except Exception as error:
        if (number := no_space(error)) is None or _unwritten(error):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def full_disk_message(error: BaseException, directories: Mapping[str, str | Path]) -> str:
    """What a user reads about an error that is `disk_full`: the file that did not fit, and its directory.

    `directories` maps configuration keys to the directories that may be full.
    """
    path = _unwritten(error)
    named = {f"{key}={given}": Path(given).expanduser().absolute() for key, given in directories.items()}
    if path is None:
        places = {**named, "TMPDIR": Path(tempfile.gettempdir())}
        tight = [name for name, place in places.items() if free_bytes(place) < 2**20]
        return f"no space left on the disk of {' or '.join(tight or named)}"
    inside = next((name for name, place in named.items() if path.is_relative_to(place)), None)
    return f"no space left on the disk of {f'{inside}, for {path}' if inside else path}"


def _unwritten(error: BaseException) -> Path | None:
    """The file that did not fit on the disk, if the error or one of its causes names a file."""
    for each in _causes(error):
        path = getattr(each, "filename2", None) or getattr(each, "filename", None)
        if isinstance(each, OSError) and each.errno in NO_SPACE and isinstance(path, str):
            return Path(path).absolute()
    return None


def free_bytes(directory: Path) -> int:
    """Free space on the disk of a directory, which need not exist yet."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def sync(path: Path) -> None:
    """Flushes a file, or the entries of a directory, to the disk itself."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sha256_of(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def whole_zip(path: Path) -> bool:
    """Whether a zip archive, as torch writes them, exists and all its members match their checksums."""
    try:
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # damaged headers raise many kinds of errors
        return False
