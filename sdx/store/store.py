"""Content-addressed step outputs: what is done once is never done again, and a half-done step goes on.

A `Step` names everything that decides its output. Its key is the hash of that, so the same step in another run is a
cache hit, and a changed option, input, model or step version is another directory. A step works in
`<name>/<key>.partial` under a lock and is published by one rename; a reader sees all of it or nothing.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx import InputError, __version__
from sdx.process import events
from sdx.process.disk import disk_full, writing
from sdx.process.ranks import is_main, launch_id
from sdx.store import integrity, locks
from sdx.store.batch_log import BatchLog
from sdx.store.files import MANIFEST, PARTIAL, WRITING, read_json, text_of, write_json
from sdx.store.provenance import provenance
from sdx.store.step import Step, Workspace

log = getLogger("sdx")
LAUNCH = "launch"
"""File by which rank 0 calls the other ranks of its launch to a collective step."""
KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("key", "name", "created"), str),
    **dict.fromkeys(("config", "inputs", "counts"), dict),
    "seconds": (int, float),
}
"""What a manifest has at least, and of which type."""
LAYOUT = 1
"""Of the cache directory. Raise it when what an older sdx wrote there can no longer be read."""


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
        found = (text_of(self._layout) or str(LAYOUT)).strip()
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
                log.info("%-12s cached  %s", step.name, _told(step))
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
            return self.cached(step) or text_of(partial / LAUNCH) == launch_id()

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
        log.info("%-12s %s %s", step.name, "resumes" if resumed else "starts ", _told(step))
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


def _told(step: Step) -> str:
    return f"{step.summary}  {step.key}" if step.summary else step.key


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
