"""A run as a job of SLURM: one process for each rank, started by srun through submitit."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx.process.failure import ERROR, in_a_line
from sdx.process.secret import print_exception, scrub
from sdx.store.provenance import GIT_STATE, git_state
from sdx.sweeps.watch import ask

log = getLogger("sdx")

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parent
TRIES = 30
RETRY_S = 10
GONE_S = 3600


class RunFailed(Exception):
    """The run has said itself what is wrong."""


class RunJob:
    """Does one run on every rank of a job; asked to leave by SIGUSR2, it has SLURM start the job again.

    Until sdx listens, submitit's own handler requeues the job, with what `checkpoint` returns.

    Args:
        overrides: what follows `python -m sdx`.
        run_dir: the run's.
        grace_s: how long rank 0 may take to finish its batch after SIGUSR2.
        code: the copy of sdx that has to run; none for what Python finds.
    """

    def __init__(self, overrides: list[str], run_dir: Path, grace_s: float, code: Path | None) -> None:
        self.overrides, self.run_dir, self.grace_s, self.code = overrides, run_dir, grace_s, code

    def __call__(self) -> None:
        self._check_code()
        from submitit.helpers import TorchDistributedEnvironment

        os.environ.pop("MASTER_PORT", None)  # of the job from which this one was submitted
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        sys.argv = ["sdx", *self.overrides]
        from sdx.process.preemption import Preempted

        first = os.environ["RANK"] == "0"
        try:
            runpy.run_module("sdx", run_name="__main__", alter_sys=True)
        except Preempted as left:
            if not first:
                self._wait_for_rank_0(left.signal)
            # After SIGTERM: a job that runs on is being preempted, with a time of grace; scancel would have ended it.
            if left.signal is signal.SIGUSR2 or _runs_on(os.environ["SLURM_JOB_ID"]):
                requeue(first)
            raise
        except SystemExit as stop:
            if stop.code:
                raise RunFailed(f"exit code {stop.code}") from None
        except Exception as error:  # of which submitit would write all that it says
            print_exception(error)
            raise RunFailed(scrub(in_a_line(error))) from None

    def _check_code(self) -> None:
        if self.code and ROOT.resolve() != self.code.resolve():
            error = (
                f"sdx runs from {ROOT} instead of its snapshot {self.code}: hydra.launcher.python has to hand "
                "PYTHONPATH on, and before Python 3.11 the directory it starts in comes first"
            )
            with suppress(OSError):
                (self.run_dir / ERROR).write_text(f"{error}\n", encoding="utf-8")
            raise RunFailed(error)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _wait_for_rank_0(self, number: signal.Signals) -> None:
        """Were this rank to end first, srun would end rank 0 in the middle of its batch. SLURM ends this one then."""
        asked = number is signal.SIGUSR2
        signal.signal(signal.SIGTERM, signal.SIG_DFL if asked else signal.SIG_IGN)  # after SIGUSR2: rank 0 is done
        time.sleep(self.grace_s if asked else GONE_S)


def _runs_on(job: str) -> bool:
    """Whether a job runs, and nothing has told it to end."""
    answer = ask("squeue", "--noheader", "--format=%T", f"--jobs={job}")
    return answer is not None and answer.stdout.split() == ["RUNNING"]


def requeue(first: bool) -> None:
    """Has SLURM put this job back into the queue, which ends all ranks.

    Rank 0 does it when its batch is finished. Another rank does it in the end: rank 0 may not have been signalled, or
    waits for this rank.
    """
    from submitit import JobEnvironment

    for _ in range(TRIES):  # the controller may be down for a moment
        try:
            if first:
                signal.raise_signal(signal.SIGUSR2)  # submitit's handler, which exits
            subprocess.run(["scontrol", "requeue", JobEnvironment().job_id], check=True, timeout=RETRY_S)
            time.sleep(GONE_S)
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("%-12s cannot requeue the job, trying again in %d s: %s", "slurm", RETRY_S, error)
            time.sleep(RETRY_S)


def copy_code(folder: Path) -> Path:
    """Copies sdx, so that what is edited while jobs wait in the queue does not change them. Equal code is copied once.

    Returns:
        The directory of the copy, `<folder>/code-<hash>`, to be put into PYTHONPATH.
    """
    files = {path.relative_to(ROOT): path.read_bytes() for path in _code()}
    files[Path(GIT_STATE)] = (git_state() or "").encode()
    digest = sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    path = folder / f"code-{digest.hexdigest()[:12]}"
    if not path.is_dir():
        _write(files, path)
    return path


def _code() -> Iterator[Path]:
    """The package, its part of `hydra_plugins`, and in a checkout what a wheel has inside of the package."""
    yield ROOT / "hydra_plugins/sdx.py"
    folders = [PACKAGE] if (PACKAGE / "conf").is_dir() else [PACKAGE, ROOT / "conf", ROOT / "experiments"]
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _write(files: dict[Path, bytes], path: Path) -> None:
    """All of it or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    for name, content in files.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(content)
    try:
        partial.rename(path)
    except OSError:
        if not path.is_dir():  # else another launch was faster
            raise
        shutil.rmtree(partial)
