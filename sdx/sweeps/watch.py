"""The cells below a directory and what has become of each: its own state, its job in SLURM's queue, signs of life."""

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from sdx.store.files import read_intact
from sdx.store.run_dir import RESULTS
from sdx.sweeps.scheduler import JOB_ID, Queue, squeue
from sdx.tracking.state import STATE, State, read_state

JOB = "job.json"
LAUNCHED = ("job", "log", "stages", "prepare", "prepare_log")
"""What is in it, `{"job": "17_3", "log": path, "stages": "all"}`, written by the launcher when it hands the cell to
SLURM; the last two where another job makes its data."""
SILENT_S = 60.0
"""So long watched without a beat, a cell is dead; it beats every 10 s."""
STALE_S = 120.0
"""A file of another age, old or in the future, is no sign of life."""


class Status(str, Enum):
    """What has become of a cell, in the order in which people want to see them."""

    failed = "failed"
    lost = "lost"
    """It says that it runs, and nobody is there."""
    running = "running"
    queued = "queued"
    interrupted = "interrupted"
    prepared = "prepared"
    done = "done"


@dataclass(frozen=True)
class Seen:
    """A cell as found."""

    directory: Path
    status: Status
    note: str
    """Its last error, or why it waits; may be empty."""
    state: Mapping[str, Any] | None
    """As `read_state`; none where the file does not tell of what runs now."""
    job: str | None
    log: str | None
    age_s: float | None
    """Since its last beat, as far as that is known; below 0 where a clock jumped."""


@dataclass
class _Pulse:
    """The beats of a cell as they were watched."""

    beat: tuple[Any, ...]
    since_s: float
    """By the monotonic clock."""
    changed: bool = False


class Watch:
    """Looks at the cells below a directory, and remembers between looks whose beat stands still."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._pulses: dict[Path, _Pulse] = {}

    def look(self) -> list[Seen]:
        """All cells: those that want attention first, then by name."""
        found = [(cell, read_state(cell), launched(cell)) for cell in _cells(self.directory)]
        jobs = {
            job
            for _, state, launched in found
            for job in (launched.get("job"), state and state["job"])
            if job and not (state and state["state"] is State.done)
        }
        queue = squeue(jobs)
        seen = [self._seen(*one, queue) for one in found]
        order = list(Status)
        return sorted(seen, key=lambda cell: (order.index(cell.status), str(cell.directory)))

    def _seen(
        self,
        directory: Path,
        state: dict[str, Any] | None,
        launched: Mapping[str, str],
        queue: Mapping[str, tuple[Queue, str]] | None,
    ) -> Seen:
        own, later = state["job"] if state else None, launched.get("job")
        places = {job: _place(job, queue) for job in (later, own) if job}
        age_s = self._age(directory)
        status, note = Status.done, ""
        waits = next((why for where, why in places.values() if where is Queue.waiting), None)
        if state is None:
            if not (directory / RESULTS).exists():
                status, note = _unbegun(later, places)
        elif state["state"] is State.done:
            pass
        elif waits is not None and not (
            state["state"] is State.running and own != later and places.get(own, (None,))[0] is Queue.running
        ):
            status, note = Status.queued, waits
        elif later and later != own and places[later][0] is Queue.running:
            status, note, state = Status.running, "starts", None  # what the file tells is of an earlier job
        elif state["state"] is State.running:
            own_place = places[own][0] if own else Queue.unknown
            status, note = self._alive(directory, state, own_place, age_s)
        else:
            status, note = Status(state["state"].value), state["error"] or ""
        log = (state and state["log"]) or launched.get("log")
        job = (later or own) if status is Status.queued or state is None else (own or later)
        return Seen(directory, status, note, state, job, log, age_s)

    def _age(self, directory: Path) -> float | None:
        try:
            return time.time() - (directory / STATE).stat().st_mtime
        except OSError:
            return None

    def _alive(
        self, directory: Path, state: Mapping[str, Any], place: Queue, age_s: float | None
    ) -> tuple[Status, str]:
        """Running or lost. A beat that was watched is worth more than a file's time, which is a clock's word."""
        restarts = state["restarts"]
        running = Status.running, f"started again {restarts} times" if restarts > 1 else "started again" * restarts
        now, beat = time.monotonic(), (state["host"], state["pid"], state["beat"])
        pulse = self._pulses.setdefault(directory, _Pulse(beat, now))
        if pulse.beat != beat:
            pulse = self._pulses[directory] = _Pulse(beat, now, changed=True)
        if now - pulse.since_s >= SILENT_S:
            return Status.lost, f"no sign of life from {state['host']} since {state['updated']}"
        if pulse.changed or (age_s is not None and abs(age_s) <= STALE_S):
            return running
        if state["host"] == platform.node() and _gone(state["pid"]):
            return Status.lost, f"process {state['pid']} on {state['host']} is gone"
        if place is Queue.gone:
            return Status.lost, f"job {state['job']} is no longer in the queue"
        return Status.running, f"no sign of life since {state['updated']}"


def _unbegun(job: str | None, places: Mapping[str, tuple[Queue, str]]) -> tuple[Status, str]:
    if job is None:
        return Status.lost, f"{STATE} cannot be read"
    where, why = places[job]
    if where is Queue.gone:
        return Status.lost, f"job {job} left the queue before the cell began"
    return (Status.running, "starts") if where is Queue.running else (Status.queued, why)


def _cells(path: Path) -> list[Path]:
    """Directories that a cell wrote to or waits for. There is none inside another."""
    found = []
    for folder, inner, files in os.walk(path):
        if {STATE, RESULTS, JOB} & set(files):
            found.append(Path(folder))
            inner.clear()
        inner[:] = [name for name in inner if not name.startswith(".")]
    return found


def launched(directory: Path) -> dict[str, str]:
    """What a cell was handed to SLURM as, see `LAUNCHED`; empty if it was not."""
    found = read_intact(directory / JOB)
    return {name: found[name] for name in LAUNCHED if isinstance(found.get(name), str)}


def _place(job: str, queue: Mapping[str, tuple[Queue, str]] | None) -> tuple[Queue, str]:
    if queue is None or not JOB_ID.fullmatch(job):
        return Queue.unknown, ""
    return queue.get(job, (Queue.gone, ""))


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
