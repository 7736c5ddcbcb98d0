"""What SLURM says when it is asked. It may be busy, or not there: then nobody knows."""

import re
import subprocess
from collections.abc import Collection
from enum import Enum

ANSWER_S = 20.0
JOB_ID = re.compile(r"\d+(_\d+)?")
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
OVER = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
)
ARRAY = 1000
"""Jobs in an array where the cluster does not say how many it takes."""


class Queue(str, Enum):
    """What SLURM knows of a job."""

    waiting = "waiting"
    running = "running"
    gone = "gone"
    unknown = "unknown"


def squeue(jobs: Collection[str]) -> dict[str, tuple[Queue, str]] | None:
    """Where jobs are, those in the queue at all, and why they wait; none where SLURM does not tell."""
    asked = sorted(job for job in jobs if JOB_ID.fullmatch(job))
    if not asked:
        return None
    answer = _ask("squeue", "--noheader", "--array", "--format=%i|%T|%r", f"--jobs={','.join(asked)}")
    if answer is None:
        return None
    if answer.returncode:  # a single job that it has forgotten is an error to it
        return {} if "Invalid job id" in answer.stderr else None
    found = {}
    for job, word, why in (line.split("|", 2) for line in answer.stdout.splitlines() if line.count("|") >= 2):
        where = Queue.waiting if word in WAITING else Queue.gone if word in OVER else Queue.running
        found[job.strip()] = where, "" if why == "None" else why
    return found


def runs(job: str) -> bool:
    """Whether a job runs, and nothing has told it to end."""
    answer = _ask("squeue", "--noheader", "--format=%T", f"--jobs={job}")
    return answer is not None and answer.stdout.split() == ["RUNNING"]


def end_of(job: str) -> str:
    """How a job ended, as long as SLURM knows: `JobState=... Reason=... ExitCode=...`."""
    answer = _ask("scontrol", "--oneliner", "show", "job", job)
    said = answer.stdout.split() if answer else []
    return " ".join(word for word in said if word.startswith(("JobState=", "Reason=", "ExitCode=")))


def most_in_an_array() -> int:
    """Jobs, by the cluster's configuration."""
    answer = _ask("scontrol", "show", "config")
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", answer.stdout) if answer else None
    return max(1, int(found[1])) if found else ARRAY


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=ANSWER_S, stdin=subprocess.DEVNULL
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
