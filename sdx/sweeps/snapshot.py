"""A copy of sdx for the jobs of a sweep: what is edited while they wait in the queue does not change them."""

import os
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from sdx.store.provenance import GIT_STATE, git_state

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parent


def take(folder: Path) -> Path:
    """The directory of the copy, `<folder>/code-<hash>`: to be put into PYTHONPATH. Equal code is copied once."""
    files = {path.relative_to(ROOT): path.read_bytes() for path in _files()}
    files[Path(GIT_STATE)] = (git_state() or "").encode()
    digest = sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    path = folder / f"code-{digest.hexdigest()[:12]}"
    if not path.is_dir():
        _write(files, path)
    return path


def _files() -> Iterator[Path]:
    """The package, its part of `hydra_plugins`, and in a checkout what a wheel has inside of the package."""
    yield ROOT / "hydra_plugins/sdx.py"
    folders = [PACKAGE] if (PACKAGE / "conf").is_dir() else [PACKAGE, ROOT / "conf", ROOT / "experiments"]
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _write(files: dict[Path, bytes], path: Path) -> None:
    """All of it or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    for name, content in files.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(content)
    try:
        partial.rename(path)
    except OSError:
        if not path.is_dir():  # else another launch was faster
            raise
        shutil.rmtree(partial)
