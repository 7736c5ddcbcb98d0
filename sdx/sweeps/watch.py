"""The state of each run below a directory, from its own files, SLURM's queue and its heartbeat."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx.store.files import read_intact
from sdx.store.run_dir import RESULTS
from sdx.tracking.state import STATE, RunState, read_state

JOB = "job.json"
"""`{"job": "17_3", "log": path, "stages": "all"}`, written when the launcher submits the run to SLURM; `prepare` and
`prepare_log` too if another job makes its data."""
SILENT_S = 60.0
"""A run is lost if its heartbeat was watched for this long without a change; it changes every 10 s."""
STALE_S = 120.0
"""A file that is older, or this far in the future, is no sign of life."""
ANSWER_S = 20.0
"""How long a command of SLURM may take to answer."""
JOB_ID = re.compile(r"\d+(_\d+)?")
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
OVER = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
)
JobStates = Mapping[str, tuple[RunState, str]]
"""Job -> queued or running, and why it waits."""


@dataclass(frozen=True)
class RunStatus:
    """A run at one look."""

    directory: Path
    state: RunState
    note: str
    """The last error, or why the run waits; may be empty."""
    record: Mapping[str, Any] | None
    """As `read_state`; none if the file is not about the current job."""
    job: str | None
    log: str | None
    age_s: float | None
    """Seconds since the last heartbeat; none if unknown, negative if a clock jumped."""


@dataclass
class _Heartbeat:
    """The last heartbeat of a run that was seen."""

    beat: tuple[Any, ...]
    since_s: float
    """When it was first seen, by the monotonic clock."""
    changed: bool = False


class Watch:
    """Looks at the runs below a directory, and remembers their heartbeats between looks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._heartbeats: dict[Path, _Heartbeat] = {}

    def look(self) -> list[RunStatus]:
        """All runs, sorted by urgency, then by name."""
        found = [(run_dir, read_state(run_dir), job_of(run_dir)) for run_dir in _run_dirs(self.directory)]
        unfinished = [(record, job) for _, record, job in found if not record or record["state"] is not RunState.done]
        states = job_states(id_ for record, job in unfinished for id_ in (job.get("job"), record and record["job"]))
        order = list(RunState)
        runs = [self._status(*one, states) for one in found]
        return sorted(runs, key=lambda run: (order.index(run.state), str(run.directory)))

    def _status(
        self, directory: Path, record: dict[str, Any] | None, job: Mapping[str, str], states: JobStates | None
    ) -> RunStatus:
        # the job that wrote the state file, and the job that was submitted last
        wrote, submitted = record["job"] if record else None, job.get("job")
        jobs = {id_: _job_state(id_, states) for id_ in (submitted, wrote) if id_}
        waits = next((why for state, why in jobs.values() if state is RunState.queued), None)
        wrote_state, submitted_state = (jobs[id_][0] if id_ else None for id_ in (wrote, submitted))
        age_s = _age_s(directory)
        state, note = RunState.done, ""
        if record is None:
            if not (directory / RESULTS).exists():
                state, note = _unbegun(submitted, jobs)
        elif record["state"] is RunState.done:
            pass
        elif waits is not None and not (record["state"] is wrote_state is RunState.running and wrote != submitted):
            state, note = RunState.queued, waits
        elif submitted != wrote and submitted_state is RunState.running:
            state, note, record = RunState.running, "starts", None
        elif record["state"] is RunState.running:
            state, note = self._alive(directory, record, wrote_state is RunState.lost, age_s)
        else:
            state, note = record["state"], record["error"] or ""
        log = (record and record["log"]) or job.get("log")
        shown = (submitted or wrote) if state is RunState.queued or record is None else (wrote or submitted)
        return RunStatus(directory, state, note, record, shown, log, age_s)

    def _alive(
        self, directory: Path, record: Mapping[str, Any], left_queue: bool, age_s: float | None
    ) -> tuple[RunState, str]:
        """Running or lost. A heartbeat that was watched counts more than the age of the file, which clocks falsify."""
        restarts, host, pid = record["restarts"], record["host"], record["pid"]
        now, beat = time.monotonic(), (host, pid, record["beat"])
        last = self._heartbeats.setdefault(directory, _Heartbeat(beat, now))
        if last.beat != beat:
            last = self._heartbeats[directory] = _Heartbeat(beat, now, changed=True)
        if now - last.since_s >= SILENT_S:
            return RunState.lost, f"no sign of life from {host} since {record['updated']}"
        if last.changed or (age_s is not None and abs(age_s) <= STALE_S):
            return RunState.running, f"started again {restarts} times" if restarts > 1 else "started again" * restarts
        if host == platform.node() and _gone(pid):
            return RunState.lost, f"process {pid} on {host} is gone"
        if left_queue:
            return RunState.lost, f"job {record['job']} is no longer in the queue"
        return RunState.running, f"no sign of life since {record['updated']}"


def _age_s(directory: Path) -> float | None:
    try:
        return time.time() - (directory / STATE).stat().st_mtime
    except OSError:
        return None


def _unbegun(job: str | None, jobs: Mapping[str, tuple[RunState | None, str]]) -> tuple[RunState, str]:
    if job is None:
        return RunState.lost, f"{STATE} cannot be read"
    state, why = jobs[job]
    if state is RunState.lost:
        return RunState.lost, f"job {job} left the queue before the run began"
    return (RunState.running, "starts") if state is RunState.running else (RunState.queued, why)


def _run_dirs(path: Path) -> list[Path]:
    """Directories with files of a run; none of them is inside another."""
    found = []
    for folder, inner, files in os.walk(path):
        if {STATE, RESULTS, JOB} & set(files):
            found.append(Path(folder))
            inner.clear()
        inner[:] = [name for name in inner if not name.startswith(".")]
    return found


def job_of(run_dir: Path) -> dict[str, str]:
    """The content of `JOB`; empty if the run was not submitted to SLURM."""
    return {name: value for name, value in read_intact(run_dir / JOB).items() if isinstance(value, str)}


def _job_state(job: str, states: JobStates | None) -> tuple[RunState | None, str]:
    """Queued, running, or lost if it is no longer in the queue; none if unknown."""
    if states is None or not JOB_ID.fullmatch(job):
        return None, ""
    return states.get(job, (RunState.lost, ""))


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (PermissionError, OverflowError):
        return False
    except ProcessLookupError:
        return True
    return False


def job_states(jobs: Iterable[str | None]) -> JobStates | None:
    """The states of those jobs that are not over; none if SLURM does not answer."""
    known = sorted({job for job in jobs if job and JOB_ID.fullmatch(job)})
    if not known:
        return {}
    answer = ask("squeue", "--noheader", "--array", "--format=%i|%T|%r", f"--jobs={','.join(known)}")
    if answer is None:
        return None
    if answer.returncode:  # squeue fails if it has forgotten the only job
        return {} if "Invalid job id" in answer.stderr else None
    rows = (line.split("|", 2) for line in answer.stdout.splitlines() if line.count("|") >= 2)
    return {
        job.strip(): (RunState.queued if word in WAITING else RunState.running, "" if why == "None" else why)
        for job, word, why in rows
        if word not in OVER
    }


def ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    """Runs a command of SLURM; none if it cannot be run or does not answer."""
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=ANSWER_S, stdin=subprocess.DEVNULL
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
