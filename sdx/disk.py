"""Files that have to last: a full disk told from other errors, what is written put on the disk, damage found."""

import errno
import os
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_full(error: BaseException) -> bool:
    """Whether an error, or what it came from, is a full disk or quota. torch and safetensors wrap the system's."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return True
    wrapped = [os.strerror(number) for number in NO_SPACE] + ["PytorchStreamWriter failed"]
    if any(sign in str(error) for sign in wrapped):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and disk_full(cause)


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
