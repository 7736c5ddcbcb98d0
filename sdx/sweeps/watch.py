"""The runs below a directory and what has become of each: its own state, its job in SLURM's queue, signs of life."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx.store.files import read_intact
from sdx.store.run_dir import RESULTS
from sdx.tracking.state import STATE, RunState, read_state

JOB = "job.json"
LAUNCHED = ("job", "log", "stages", "prepare", "prepare_log")
"""What is in it, `{"job": "17_3", "log": path, "stages": "all"}`, written by the launcher when it hands the run to
SLURM; the last two where another job makes its data."""
SILENT_S = 60.0
"""A run that was watched this long without a beat is dead; it beats every 10 s."""
STALE_S = 120.0
"""A file of another age, old or in the future, is no sign of life."""
ANSWER_S = 20.0
"""How long SLURM may take to answer. It may be busy, or not there: then nobody knows."""
JOB_ID = re.compile(r"\d+(_\d+)?")
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
OVER = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
)
Queue = Mapping[str, tuple[RunState, str]]
"""Jobs, whether each is queued or running, and why it waits."""


@dataclass(frozen=True)
class RunStatus:
    """A run as found."""

    directory: Path
    state: RunState
    note: str
    """Its last error, or why it waits; may be empty."""
    record: Mapping[str, Any] | None
    """As `read_state`; none where the file does not tell of what runs now."""
    job: str | None
    log: str | None
    age_s: float | None
    """Since its last beat, as far as that is known; below 0 where a clock jumped."""


@dataclass
class _Pulse:
    """The beats of a run as they were watched."""

    beat: tuple[Any, ...]
    since_s: float
    """By the monotonic clock."""
    changed: bool = False


class Watch:
    """Looks at the runs below a directory, and remembers between looks whose beat stands still."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._pulses: dict[Path, _Pulse] = {}

    def look(self) -> list[RunStatus]:
        """All runs: those that want attention first, then by name."""
        found = [(run_dir, read_state(run_dir), launched(run_dir)) for run_dir in _run_dirs(self.directory)]
        jobs = {
            job
            for _, told, launched in found
            for job in (launched.get("job"), told and told["job"])
            if job and not (told and told["state"] is RunState.done)
        }
        queue = squeue(jobs)
        seen = [self._seen(*one, queue) for one in found]
        order = list(RunState)
        return sorted(seen, key=lambda run: (order.index(run.state), str(run.directory)))

    def _seen(
        self, directory: Path, told: dict[str, Any] | None, launched: Mapping[str, str], queue: Queue | None
    ) -> RunStatus:
        own, later = told["job"] if told else None, launched.get("job")
        places = {job: _place(job, queue) for job in (later, own) if job}
        age_s = _age_s(directory)
        state, note = RunState.done, ""
        waits = next((why for where, why in places.values() if where is RunState.queued), None)
        if told is None:
            if not (directory / RESULTS).exists():
                state, note = _unbegun(later, places)
        elif told["state"] is RunState.done:
            pass
        elif waits is not None and not (
            told["state"] is RunState.running and own != later and places.get(own, (None,))[0] is RunState.running
        ):
            state, note = RunState.queued, waits
        elif later and later != own and places[later][0] is RunState.running:
            state, note, told = RunState.running, "starts", None  # what the file tells is of an earlier job
        elif told["state"] is RunState.running:
            state, note = self._alive(directory, told, bool(own) and places[own][0] is RunState.lost, age_s)
        else:
            state, note = told["state"], told["error"] or ""
        log = (told and told["log"]) or launched.get("log")
        job = (later or own) if state is RunState.queued or told is None else (own or later)
        return RunStatus(directory, state, note, told, job, log, age_s)

    def _alive(
        self, directory: Path, told: Mapping[str, Any], left_queue: bool, age_s: float | None
    ) -> tuple[RunState, str]:
        """Running or lost. A beat that was watched is worth more than a file's time, which is a clock's word."""
        restarts = told["restarts"]
        now, beat = time.monotonic(), (told["host"], told["pid"], told["beat"])
        pulse = self._pulses.setdefault(directory, _Pulse(beat, now))
        if pulse.beat != beat:
            pulse = self._pulses[directory] = _Pulse(beat, now, changed=True)
        if now - pulse.since_s >= SILENT_S:
            return RunState.lost, f"no sign of life from {told['host']} since {told['updated']}"
        if pulse.changed or (age_s is not None and abs(age_s) <= STALE_S):
            return RunState.running, f"started again {restarts} times" if restarts > 1 else "started again" * restarts
        if told["host"] == platform.node() and _gone(told["pid"]):
            return RunState.lost, f"process {told['pid']} on {told['host']} is gone"
        if left_queue:
            return RunState.lost, f"job {told['job']} is no longer in the queue"
        return RunState.running, f"no sign of life since {told['updated']}"


def _age_s(directory: Path) -> float | None:
    try:
        return time.time() - (directory / STATE).stat().st_mtime
    except OSError:
        return None


def _unbegun(job: str | None, places: Mapping[str, tuple[RunState | None, str]]) -> tuple[RunState, str]:
    if job is None:
        return RunState.lost, f"{STATE} cannot be read"
    where, why = places[job]
    if where is RunState.lost:
        return RunState.lost, f"job {job} left the queue before the run began"
    return (RunState.running, "starts") if where is RunState.running else (RunState.queued, why)


def _run_dirs(path: Path) -> list[Path]:
    """Directories that a run wrote to or waits for. There is none inside another."""
    found = []
    for folder, inner, files in os.walk(path):
        if {STATE, RESULTS, JOB} & set(files):
            found.append(Path(folder))
            inner.clear()
        inner[:] = [name for name in inner if not name.startswith(".")]
    return found


def launched(directory: Path) -> dict[str, str]:
    """What a run was handed to SLURM as, see `LAUNCHED`; empty if it was not."""
    found = read_intact(directory / JOB)
    return {name: found[name] for name in LAUNCHED if isinstance(found.get(name), str)}


def _place(job: str, queue: Queue | None) -> tuple[RunState | None, str]:
    """Queued, running, lost where it is no longer in the queue, and none where nobody knows."""
    if queue is None or not JOB_ID.fullmatch(job):
        return None, ""
    return queue.get(job, (RunState.lost, ""))


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (PermissionError, OverflowError):
        return False
    except ProcessLookupError:
        return True
    return False


def squeue(jobs: Collection[str]) -> Queue | None:
    """Those of these jobs that are not over; none where SLURM does not tell."""
    asked = sorted(job for job in jobs if JOB_ID.fullmatch(job))
    if not asked:
        return None
    answer = ask("squeue", "--noheader", "--array", "--format=%i|%T|%r", f"--jobs={','.join(asked)}")
    if answer is None:
        return None
    if answer.returncode:  # a single job that it has forgotten is an error to it
        return {} if "Invalid job id" in answer.stderr else None
    rows = (line.split("|", 2) for line in answer.stdout.splitlines() if line.count("|") >= 2)
    return {
        job.strip(): (RunState.queued if word in WAITING else RunState.running, "" if why == "None" else why)
        for job, word, why in rows
        if word not in OVER
    }


def ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    """What one of SLURM's commands says; none where it cannot be asked."""
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=ANSWER_S, stdin=subprocess.DEVNULL
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
