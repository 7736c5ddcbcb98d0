"""What lies in a cache: each artifact with its subject, its size, its age and the runs that use it."""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sdx.store import locks
from sdx.store.batch_log import BatchLog
from sdx.store.files import MANIFEST, PARTIAL, SENTENCES, read_intact, write_json
from sdx.store.integrity import bytes_of
from sdx.store.run_dir import RESULTS, directories
from sdx.store.step import Step
from sdx.store.store import is_manifest

STEPS = "steps.json"
"""In the directory of a run: its steps, `{"steps": [{"name", "key", "what", "language"}]}`."""
SUBJECT_OPTIONS = ("task", "translator", "hub_id", "asset", "name", "goal", "field")
"""Options that tell what a step is about if no run does."""
LANGUAGE_OPTIONS = ("target", "answered", "language")


@dataclass(frozen=True)
class Artifact:
    """A step's directory in the cache, published or left by an interruption, or a memory of translated sentences."""

    path: Path
    step: str
    key: str
    finished: bool
    about: str
    size_bytes: int
    created_s: float
    """Seconds since 1970."""
    runs: frozenset[Path]
    """Directories of the runs that use the artifact."""


@dataclass
class Use:
    """What the directories of runs tell about a step."""

    about: str = ""
    runs: set[Path] = field(default_factory=set)


def lineage(steps: Iterable[Step]) -> list[Step]:
    """The steps and all steps that they are made from, inputs first, each once."""
    found: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.key not in found:
            for needed in step.inputs.values():
                visit(needed)
            found[step.key] = step

    for step in steps:
        visit(step)
    return list(found.values())


def subject(step: Step) -> dict[str, Any]:
    """What a step is about, as files of a run say it."""
    language = step.purpose_language
    return {"what": step.about, "language": language.code if language else None}


def write_steps(run_dir: Path, steps: Iterable[Step]) -> None:
    """Writes down the steps of a run when it begins: its report exists only at the end."""
    found = [{"name": step.name, "key": step.key, **subject(step)} for step in lineage(steps)]
    write_json(run_dir / STEPS, {"steps": found})


def uses(runs: Sequence[Path]) -> dict[str, Use]:
    """Key of a step -> its use by the runs in and below these directories."""
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


def artifacts(root: Path, runs: Sequence[Path] = ()) -> list[Artifact]:
    """All artifacts of a store, by step and time, with their use by the runs in and below these directories."""
    used = uses(runs)
    found = [_artifact(path, used) for path in root.glob("*/*") if path.is_dir() and not path.is_symlink()]
    found += [_memory(path) for path in root.with_name(SENTENCES).glob("*/*") if path.is_dir()]
    return sorted(found, key=lambda artifact: (artifact.step, artifact.created_s))


def _artifact(path: Path, used: Mapping[str, Use]) -> Artifact:
    step, key, finished = path.parent.name, path.name.removesuffix(PARTIAL), path.suffix != PARTIAL
    manifest = read_intact(path / MANIFEST)
    intact = is_manifest(manifest)
    use = used.get(key, Use())
    about = use.about or (_about(manifest["config"]) if intact else "")
    if not intact:
        about = f"{about} ({'damaged' if finished else 'unfinished'})".strip()
    files = manifest.get("files") if intact else None
    size = sum(map(bytes_of, files.values())) if files else _size(path)
    return Artifact(path, step, key, finished, about, size, _created(manifest, path), frozenset(use.runs))


def _memory(path: Path) -> Artifact:
    """A memory of translated sentences, which is never finished, of no run, and as old as its last sentence."""
    changed_s = max((file.stat().st_mtime for file in path.iterdir()), default=path.stat().st_mtime)
    return Artifact(path, SENTENCES, path.name, False, path.parent.name, _size(path), changed_s, frozenset())


def _about(config: Mapping[str, Any]) -> str:
    values = ([config[name] for name in names if config.get(name)] for names in (SUBJECT_OPTIONS, LANGUAGE_OPTIONS))
    return ", ".join(str(first) for first, *_ in filter(None, values))


def _size(path: Path) -> int:
    """Bytes in a directory; a symbolic link counts as the link itself."""
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):  # a run is working there
                size += os.lstat(os.path.join(folder, name)).st_size
    return size


def _created(manifest: Mapping[str, Any], path: Path) -> float:
    try:
        return datetime.fromisoformat(manifest["created"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return path.stat().st_mtime


def in_use(root: Path) -> set[str]:
    """Keys of the steps that running steps of a store read."""
    return {key for folder in root.glob("*") for holder in locks.holders(folder) for key in holder.reads}


def remove(artifact: Artifact, used: set[str]) -> bool:
    """Deletes an artifact unless a run is making it, or adds to it, or its key is in `used`, see `in_use`."""
    with locks.free(artifact.path.with_name(artifact.key)) as nobody:
        if not nobody or artifact.key in used or _is_extended(artifact):
            return False
        (artifact.path / MANIFEST).unlink(missing_ok=True)  # first: without a manifest the artifact does not count
        shutil.rmtree(artifact.path)
    return True


def _is_extended(artifact: Artifact) -> bool:
    """Whether a run adds sentences to a memory."""
    files = artifact.path.iterdir() if artifact.step == SENTENCES else ()
    return any(map(BatchLog.is_written, files))
