"""What lies in a cache: each artifact with what it is about, its size, its age and the runs that use it."""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sdx.store import integrity, locks
from sdx.store.files import MANIFEST, PARTIAL, read_intact, write_json
from sdx.store.run_dir import RESULTS, directories
from sdx.store.step import Step
from sdx.store.store import KINDS

STEPS = "steps.json"
"""In the directory of a run: the steps that it is made of, `{"steps": [{"key", "what", "language"}]}`."""
TOLD = ("task", "translator", "hub_id", "asset", "name", "goal", "field")
"""Options that tell what a step is about, where no run does."""
SPOKEN = ("target", "answered", "language")
"""Options that tell its language."""


@dataclass(frozen=True)
class Artifact:
    """A step's directory in the cache, published or left by an interruption."""

    path: Path
    about: str
    size_bytes: int
    created_s: float
    """Seconds since 1970."""
    runs: frozenset[Path] = field(default_factory=frozenset)
    """Directories of those that use it."""

    @property
    def step(self) -> str:
        return self.path.parent.name

    @property
    def key(self) -> str:
        return self.path.name.removesuffix(PARTIAL)

    @property
    def finished(self) -> bool:
        return self.path.suffix != PARTIAL


@dataclass
class Use:
    """Of a step by runs."""

    about: str = ""
    runs: set[Path] = field(default_factory=set)


def note(run_dir: Path, steps: Iterable[Step]) -> None:
    """Writes down which steps a run is made of: its report comes in the end."""
    found: dict[str, dict[str, Any]] = {}

    def visit(step: Step) -> None:
        if step.key not in found:
            language = step.purpose_language
            about = {"what": step.about, "language": language.code if language else None}
            found[step.key] = {"name": step.name, "key": step.key, **about}
            for inner in step.inputs.values():
                visit(inner)

    for step in steps:
        visit(step)
    write_json(run_dir / STEPS, {"steps": list(found.values())})


def uses(runs: Sequence[Path]) -> dict[str, Use]:
    """By key, the use of steps by the runs in and below these directories."""
    found: dict[str, Use] = {}
    for run_dir in (directory for path in runs for directory in directories(path)):
        for file in (RESULTS, STEPS):
            steps = read_intact(run_dir / file).get("steps")
            for step in steps if isinstance(steps, list) else ():
                if isinstance(step, dict) and isinstance(step.get("key"), str):
                    use = found.setdefault(step["key"], Use())
                    use.about = ", ".join(str(step[name]) for name in ("what", "language") if step.get(name))
                    use.runs.add(run_dir.resolve())
    return found


def find(root: Path, runs: Sequence[Path] = ()) -> list[Artifact]:
    """All artifacts of a store, by step and time.

    Args:
        root: the store's.
        runs: directories of runs, or with runs below them.
    """
    used = uses(runs)
    found = [_artifact(path, used) for path in root.glob("*/*") if path.is_dir() and not path.is_symlink()]
    return sorted(found, key=lambda one: (one.step, one.created_s))


def _artifact(path: Path, used: Mapping[str, Use]) -> Artifact:
    manifest = read_intact(path / MANIFEST)
    whole = all(isinstance(manifest.get(name), kind) for name, kind in KINDS.items())
    use = used.get(path.name.removesuffix(PARTIAL), Use())
    about = use.about or (_about(manifest["config"]) if whole else "")
    about = about if whole else f"{about} ({'unfinished' if path.suffix == PARTIAL else 'damaged'})".strip()
    files = manifest.get("files", {})
    size = sum(integrity.sizes(files)) if whole and files and integrity.are_files(files) else _size(path)
    return Artifact(path, about, size, _created(manifest, path), frozenset(use.runs))


def _about(config: Mapping[str, Any]) -> str:
    named = [next((str(config[name]) for name in names if config.get(name)), "") for names in (TOLD, SPOKEN)]
    return ", ".join(filter(None, named))


def _size(path: Path) -> int:
    """Bytes in a directory, what lies behind links left out."""
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                size += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:  # it is being worked on
                continue
    return size


def _created(manifest: Mapping[str, Any], path: Path) -> float:
    try:
        return datetime.fromisoformat(manifest["created"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return path.stat().st_mtime


def in_use(root: Path) -> set[str]:
    """Keys of the steps that are being made in a store now, and of those that they read."""
    folders = (folder for folder in root.glob("*") if folder.is_dir())
    return {key for folder in folders for holder in locks.holders(folder) for key in holder.reads}


def remove(artifact: Artifact, used: set[str]) -> bool:
    """Frees an artifact, unless somebody makes it or reads it.

    Args:
        used: see `in_use`.
    """
    with locks.free(artifact.path.with_name(artifact.key)) as nobody:
        if not nobody or artifact.key in used:
            return False
        (artifact.path / MANIFEST).unlink(missing_ok=True)  # first: without it nothing counts as there
        shutil.rmtree(artifact.path)
    return True
