"""The state of each run below a directory, from its own files, SLURM's queue and its heartbeat."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx.store.files import read_intact
from sdx.store.run_dir import RESULTS
from sdx.tracking.state import STATE, RunState, read_state

JOB = "job.json"
"""`{"job": "17_3", "log": path, "stages": "all"}`, written when the launcher submits the run to SLURM; `prepare` and
`prepare_log` too if another job, or an array of them, makes its data."""
SILENT_S = 60.0
"""A run is lost if its heartbeat was watched for this long without a change; it changes every 10 s."""
STALE_S = 120.0
"""A file that is older, or this far in the future, is no sign of life."""
ANSWER_S = 20.0
"""How long a command of SLURM may take to answer."""
JOB_ID = re.compile(r"\d+(_\d+)?")
WAITING = "PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT".split()
OVER = "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split()
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


class Watch:
    """Looks at the runs below a directory, and remembers their heartbeats between looks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._heartbeats: dict[Path, tuple[Any, float, bool]] = {}
        """Last heartbeat of a run, when it was first seen (monotonic clock), and whether an earlier one was seen."""

    def look(self) -> list[RunStatus]:
        """All runs, sorted by urgency, then by name."""
        found = [(run_dir, read_state(run_dir), job_of(run_dir)) for run_dir in _run_dirs(self.directory)]
        unfinished = [(record, job) for _, record, job in found if not record or record["state"] is not RunState.done]
        states = job_states(
            id_ for record, job in unfinished for id_ in (job.get("job"), record["job"] if record else None)
        )
        order = list(RunState)
        runs = [self._status(*one, states) for one in found]
        return sorted(runs, key=lambda run: (order.index(run.state), str(run.directory)))

    def _status(
        self, directory: Path, record: dict[str, Any] | None, job: Mapping[str, str], states: JobStates | None
    ) -> RunStatus:
        wrote, submitted = record["job"] if record else None, job.get("job")  # the state file; by the last launch
        found = [_job_state(id_, states) for id_ in (submitted, wrote)]
        (submitted_state, _), (wrote_state, _) = found
        waits = next((why for state, why in found if state is RunState.queued), None)
        age_s = None
        with suppress(OSError):
            age_s = time.time() - (directory / STATE).stat().st_mtime
        state, note = RunState.done, ""
        if record["state"] is RunState.done if record else (directory / RESULTS).exists():
            pass
        elif record is None and submitted is None:
            state, note = RunState.lost, f"{STATE} cannot be read"
        elif record is None and submitted_state is RunState.lost:
            state, note = RunState.lost, f"job {submitted} left the queue before the run began"
        elif waits is not None and not (
            record and record["state"] is wrote_state is RunState.running and submitted != wrote
        ):
            state, note = RunState.queued, waits
        elif submitted_state is RunState.running and submitted != wrote:
            state, note, record = RunState.running, "starts", None
        elif record is None:
            state = RunState.queued
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
        last, since_s, changed = self._heartbeats.get(directory, (beat, now, False))
        if last != beat:
            since_s, changed = now, True
        self._heartbeats[directory] = beat, since_s, changed
        if now - since_s >= SILENT_S:
            return RunState.lost, f"no sign of life from {host} since {record['updated']}"
        if changed or (age_s is not None and abs(age_s) <= STALE_S):
            return RunState.running, f"started again {restarts} times" if restarts > 1 else "started again" * restarts
        if host == platform.node() and _gone(pid):
            return RunState.lost, f"process {pid} on {host} is gone"
        if left_queue:
            return RunState.lost, f"job {record['job']} is no longer in the queue"
        return RunState.running, f"no sign of life since {record['updated']}"


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


def _job_state(job: str | None, states: JobStates | None) -> tuple[RunState | None, str]:
    """Queued, running, or lost if the job is no longer in the queue; none if unknown."""
    if states is None or not job or not JOB_ID.fullmatch(job):
        return None, ""
    return states.get(job, (RunState.lost, ""))


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError) as error:
        return isinstance(error, ProcessLookupError)
    return False


def job_states(jobs: Iterable[str | None]) -> JobStates | None:
    """The states of those jobs that are not over; none if SLURM does not answer."""
    known = sorted({job for job in jobs if job and JOB_ID.fullmatch(job)})
    if not known:
        return {}
    answer = ask("squeue", "--noheader", "--array", "--format=%i|%T|%r", f"--jobs={','.join(known)}")
    if answer.returncode:  # squeue fails if it has forgotten the only job
        return {} if "Invalid job id" in answer.stderr else None
    rows = (line.split("|", 2) for line in answer.stdout.splitlines() if line.count("|") >= 2)
    return {
        job.strip(): (RunState.queued if word in WAITING else RunState.running, "" if why == "None" else why)
        for job, word, why in rows
        if word not in OVER
    }


def ask(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of SLURM. A command that cannot be run or does not answer counts as failed, without output."""
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=ANSWER_S, stdin=subprocess.DEVNULL
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return subprocess.CompletedProcess(command, 1, "", "")
