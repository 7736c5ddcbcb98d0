"""Content-addressed step outputs: what is done once is never done again, and a half-done step goes on.

The key of a `Step` is the hash of all that decides its output. The same step in another run is a cache hit; a changed
option, input, model or step version has another directory. A step works in `<name>/<key>.partial` under a lock and is
published by one rename, so a reader sees all of it or nothing.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx import InputError, __version__
from sdx.process import events
from sdx.process.disk import disk_full, writing
from sdx.process.ranks import launch_id, rank, world_size
from sdx.store import integrity, locks
from sdx.store.batch_log import BatchLog
from sdx.store.files import MANIFEST, PARTIAL, WRITING, read_json, text_of, write_json
from sdx.store.provenance import provenance
from sdx.store.step import Step, Workspace

log = getLogger("sdx")
LAUNCH = "launch"
"""File by which rank 0 calls the other ranks of its launch to a collective step."""
MANIFEST_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("key", "name", "created"), str),
    **dict.fromkeys(("config", "inputs", "counts"), dict),
    "seconds": (int, float),
}
LAYOUT = 1
"""Version of the cache directory. Raise it when sdx can no longer read what an older sdx wrote there."""


class Store:
    """The artifacts of a cache directory, shared between runs and processes.

    Args:
        by_ray: row steps are processed by a Ray cluster.

    Raises InputError if an sdx with another layout wrote the cache, or `~` is used without a home directory.
    """

    def __init__(self, cache_dir: Path, by_ray: bool = False) -> None:
        self._by_ray = by_ray
        try:
            cache_dir = cache_dir.expanduser()
        except RuntimeError:
            raise InputError(f"cache_dir={cache_dir}: the home directory is unknown; set SDX_CACHE or HOME") from None
        self.root = cache_dir / "artifacts"
        self._origin = f"cache_dir={cache_dir}"
        self._layout = cache_dir / "layout"
        self._seen: set[str] = set()
        layout = (text_of(self._layout) or str(LAYOUT)).strip()
        if layout != str(LAYOUT):
            raise InputError(
                f"{self._origin} has layout {repr(layout[:20])[1:-1]}, this sdx {__version__} has layout {LAYOUT}; "
                f"give another cache_dir, or run the sdx that wrote it; if {self._layout} is damaged, delete it"
            )

    @classmethod
    def shared(cls) -> "Store":
        """The store of runs without a `cache_dir` option: in the environment's SDX_CACHE, or in the home directory."""
        return cls(Path(os.environ.get("SDX_CACHE") or "~/.cache/sdx"))

    def path(self, step: Step) -> Path:
        return self.root / step.name / step.key

    def cached(self, step: Step) -> bool:
        return (self.path(step) / MANIFEST).is_file()

    def manifest(self, step: Step) -> dict[str, Any]:
        return _manifest(self.path(step))

    def realise(self, step: Step) -> Path:
        """The step's output directory, made now unless it is cached. Inputs of a cached step are not looked at."""
        path = self.path(step)
        if self.cached(step):
            if path.name not in self._seen:
                verify(path)
                log.info("%-12s cached  %s", step.name, _title(step))
            self._seen.add(path.name)
            return path
        inputs = {name: self.realise(needed) for name, needed in step.inputs.items()}
        work = self._workspace(step, inputs)
        help_once = cache(lambda: self._help(step, work))
        if rank() > 0 and not step.collective:
            locks.wait_until(lambda: self.cached(step) or (work.dir.is_dir() and help_once() and self.cached(step)))
            return path
        self._make_folder(path.parent)
        if rank() > 0:
            self._join(step, work)
            return path
        reads = [needed.key for needed in step.inputs.values()]

        def awaited() -> None:
            events.step_awaited(step.name, step.key)

        def meanwhile() -> None:
            if work.dir.is_dir():
                help_once()

        with locks.held(path, self._origin, step.name, awaited, reads, meanwhile):
            if not self.cached(step):
                self._publish(step, work)
        return path

    def begun(self, step: Step) -> bool:
        """Whether somebody makes the step, or has left it unfinished, and all its inputs are there."""
        return self._partial(step).is_dir() and all(map(self.cached, step.inputs.values()))

    def help(self, step: Step) -> None:
        """Does a part of a step that has begun."""
        inputs = {name: self.path(needed) for name, needed in step.inputs.items()}
        self._help(step, self._workspace(step, inputs))

    def _workspace(self, step: Step, inputs: Mapping[str, Path]) -> Workspace:
        return Workspace(self._partial(step), inputs, cache_dir=self.root.parent, by_ray=self._by_ray)

    def _help(self, step: Step, work: Workspace) -> bool:
        try:
            step.help(work)
        except FileNotFoundError:
            publishes = (work.dir / MANIFEST).exists() or not work.dir.exists()
            if not publishes and not self.cached(step):
                raise
        return True

    def needed(self, steps: Sequence[Step]) -> dict[str, Step]:
        """Key -> step, for all that `realise` would read or make: inputs of cached steps are left out."""
        found: dict[str, Step] = {}

        def need(step: Step) -> None:
            if step.key not in found:
                found[step.key] = step
                for inner in () if self.cached(step) else step.inputs.values():
                    need(inner)

        for step in steps:
            need(step)
        return found

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if rank() == 0:
                locks.check(self.root, self._origin)
                if not self._layout.exists():
                    self._layout.write_text(f"{LAYOUT}\n", encoding="utf-8")
        except OSError as error:
            if disk_full(error):
                raise
            raise InputError(f"{self._origin} cannot be written ({error.strerror}); give another") from None

    def _join(self, step: Step, work: Workspace) -> None:
        """Ranks > 0 of a collective step: run it with rank 0 if it calls, and return when it is published."""
        locks.wait_until(lambda: self.cached(step) or text_of(work.dir / LAUNCH) == launch_id())
        if not self.cached(step):
            step.run(work)
        locks.wait_until(lambda: self.cached(step))

    def _partial(self, step: Step) -> Path:
        return Path(f"{self.path(step)}{PARTIAL}")

    def _publish(self, step: Step, work: Workspace) -> None:
        path, partial = self.path(step), work.dir
        if not (partial / MANIFEST).exists():
            with writing(partial):
                self._work(step, work)
        for leftover in (*partial.glob(f"*{BatchLog.SUFFIX}"), partial / LAUNCH):
            leftover.unlink(missing_ok=True)
        if path.exists():  # without a manifest: left by a deletion that did not finish
            shutil.rmtree(path)
        os.replace(partial, path)

    def _work(self, step: Step, workspace: Workspace) -> None:
        resumed = workspace.dir.exists()
        log.info("%-12s %s %s", step.name, "resumes" if resumed else "starts ", _title(step))
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
            "files": integrity.fingerprints(workspace.dir, _published_files(workspace.dir)),
            "seconds": seconds,
            "resumed": resumed,
            "workers": world_size() if step.collective else workspace.workers,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "provenance": provenance(),
        }
        write_json(workspace.dir / MANIFEST, manifest)
        self._seen.add(step.key)
        events.step_done(step.name, step.key, manifest)
        counts = ", ".join(f"{name} {value}" for name, value in workspace.counts.items())
        log.info("%-12s done in %.1f s%s", step.name, seconds, f": {counts}" if counts else "")


def _title(step: Step) -> str:
    return f"{step.summary}  {step.key}" if step.summary else step.key


def is_manifest(value: Mapping[str, Any]) -> bool:
    typed = all(isinstance(value.get(name), kind) for name, kind in MANIFEST_TYPES.items())
    return typed and integrity.are_files(value.get("files", {}))


def _manifest(path: Path) -> dict[str, Any]:
    manifest = read_json(path / MANIFEST)
    if not is_manifest(manifest):
        raise InputError(f"{path / MANIFEST} is damaged: it is no manifest; delete {path}, and it is made again")
    return manifest


def _published_files(path: Path) -> Iterator[str]:
    """Paths of all files but logs of an unfinished step; directories that are symbolic links are not entered."""
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return (str(file.relative_to(path)) for file in files if file.suffix != BatchLog.SUFFIX and file.name != LAUNCH)


def verify(path: Path, thorough: bool = False) -> None:
    """Checks that the files of an artifact are as they were published. The manifest gets new times of change.

    Files with the same size and time of change are only hashed if `thorough`. Raises InputError if the artifact lost a
    file or a part of one, or somebody changed one.
    """
    manifest = _manifest(path)
    wrong, files = integrity.changes(path, manifest.get("files", {}), thorough)
    if wrong:
        file, why = next(iter(wrong.items()))
        more = f" (and {len(wrong) - 1} more files)" if len(wrong) > 1 else ""
        raise InputError(f"{file} {why}{more}: the cache was changed; delete {path}, and it is made again")
    if files != manifest.get("files", {}):
        with suppress(OSError):  # the cache may belong to somebody else
            write_json(path / MANIFEST, {**manifest, "files": files})
