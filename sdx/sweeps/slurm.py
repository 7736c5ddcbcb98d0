"""`hydra/launcher=slurm`: each cell of a sweep as a job of SLURM, a rank for each GPU.

The command that launches waits for the jobs and can be stopped and given again: what is done is skipped, and what is
in the queue is waited for and not submitted twice.
"""

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.options import conformity
from sdx.process.preemption import leave_if_asked
from sdx.store.files import write_json
from sdx.sweeps import snapshot
from sdx.sweeps.cells import SweepCell, forget, judge
from sdx.sweeps.job import CellJob
from sdx.sweeps.launcher import CellLauncher, end, start
from sdx.sweeps.options import SlurmConfig
from sdx.sweeps.sbatch import check, parameters
from sdx.sweeps.scheduler import Queue, end_of, most_in_an_array, squeue
from sdx.sweeps.watch import JOB, launched

log = getLogger("sdx")

SCANCEL_S = 20
FOLDER = "slurm"
"""In runs_dir: the scripts and the logs of the jobs, and copies of sdx."""
REQUEUES = 10_000
"""That submitit allows."""
DEAF = 'trap "" USR2; exec "$0" "$@"'
"""A signal that comes before Python listens would kill the job."""


class SlurmLauncher(CellLauncher):
    """Submits cells as one job array and waits for them.

    Args:
        options: `SlurmConfig`.
    """

    def __init__(self, prepare: Any, poll_s: float, **options: Any) -> None:
        self.options = {**options, "sbatch": _mapping("sbatch", options["sbatch"])}
        self.prepare = _mapping("prepare", prepare)
        conformity.check_part(SlurmConfig, options, self.prepare, "hydra.launcher.prepare")
        self.prepare = {"nodes": 1, "tasks_per_node": 1, **self.prepare} if self.prepare else {}
        self.poll_s = poll_s
        if not shutil.which("sbatch"):
            raise InputError("hydra/launcher=slurm finds no sbatch here; run it where jobs are submitted or take local")
        if options["snapshot"] and sys.version_info < (3, 11) and Path("sdx").is_dir():
            raise InputError(
                "hydra.launcher.snapshot=true: before Python 3.11 jobs would import the sdx of the directory that they "
                "are launched from; launch from another one, or with Python 3.11"
            )
        self.code: Path | None = None
        for where, given in (("", options), ("prepare.", {**options, **self.prepare})):
            check(given, f"hydra.launcher.{where}")

    def run(self, cells: Sequence[SweepCell]) -> None:
        queue = _queue(job for cell in cells for job in _jobs(cell))
        if queue is None:
            raise InputError("squeue does not answer, so nobody knows which cells are in the queue; try again later")
        jobs = {}
        for cell in cells:
            if job := _waited_for(cell, queue):
                jobs[cell.run_dir] = job
        new = [cell for cell in cells if cell.run_dir not in jobs]
        for cell in cells:
            if cell.run_dir in jobs:
                log.info("%-12s %s  is in the queue as job %s", "slurm", cell.name, jobs[cell.run_dir])
        if new and self.options["snapshot"]:
            self.code = snapshot.take(_folder(new))
            log.info("%-12s the jobs run the copy of sdx in %s", "slurm", self.code)
        for first in range(0, len(new), most := most_in_an_array()):
            jobs |= self._submit(new[first : first + most])
        try:
            self._wait(cells, jobs)
        except KeyboardInterrupt:
            left = " ".join(job for cell in cells if cell.ending is None for job in _jobs(cell))
            log.warning("%-12s the jobs go on; the same command waits for them, scancel %s ends them", "slurm", left)
            raise

    def _submit(self, cells: Sequence[SweepCell]) -> dict[Path, str]:
        for cell in cells:  # before one of them can have said anything
            cell.run_dir.mkdir(parents=True, exist_ok=True)
            forget(cell.run_dir)
        arrays: list[list[Any]] = []
        try:
            after = None
            if self.prepare:
                arrays.append(self._array(cells, {**self.options, **self.prepare}, ["stages=prepare"], None))
                after = f"{'aftercorr' if len(cells) > 1 else 'afterok'}:{_array_id(arrays[0])}"
            arrays.append(self._array(cells, self.options, [], after))
            jobs = arrays[-1]
            for cell, job, *prepares in zip(cells, jobs, *arrays[:-1], strict=True):
                told = {"job": job.job_id, "log": str(job.paths.stdout), "stages": cell.config.stages.value}
                for one in prepares:
                    told |= {"prepare": one.job_id, "prepare_log": str(one.paths.stdout)}
                write_json(cell.run_dir / JOB, told)
        except BaseException:  # what nobody would find again
            for array in arrays:
                subprocess.run(["scancel", _array_id(array)], check=False, timeout=SCANCEL_S)
            raise
        for cell, job in zip(cells, jobs, strict=True):
            start(cell, f"as job {job.job_id}")
        return {cell.run_dir: job.job_id for cell, job in zip(cells, jobs, strict=True)}

    def _array(
        self, cells: Sequence[SweepCell], options: Mapping[str, Any], more: list[str], after: str | None
    ) -> list[Any]:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        python = options["python"] or shlex.quote(sys.executable)
        shell = f"{_export(self.code)}{DEAF}"
        executor = SlurmExecutor(
            _folder(cells), max_num_timeout=REQUEUES, python=f"bash -c {shlex.quote(shell)} {python}"
        )
        grace_s = options["signal_delay_s"] / 2
        try:
            executor.update_parameters(**parameters(options, after))
            with executor.batch():
                jobs = [
                    executor.submit(CellJob([*cell.overrides, *more], cell.run_dir, grace_s, self.code))
                    for cell in cells
                ]
            [job.job_id for job in jobs]
        except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
            reason = " ".join(str(getattr(error, "stderr", None) or error).replace("sbatch: error: ", "").split())
            raise InputError(f"sbatch refused the job: {reason}; see the options under hydra.launcher") from None
        return jobs

    def _wait(self, cells: Sequence[SweepCell], jobs: Mapping[Path, str]) -> None:
        """Until no job is in the queue any more."""
        shown: dict[str, tuple[str, str]] = {}
        absent: set[Path] = set()
        while waiting := [cell for cell in cells if cell.ending is None]:
            queue = _queue([jobs[cell.run_dir] for cell in waiting])
            if queue is None:
                log.warning("%-12s squeue does not answer; the jobs go on", "slurm")
            for cell in waiting if queue is not None else ():
                assert queue is not None
                job = jobs[cell.run_dir]
                if job in queue:
                    absent.discard(cell.run_dir)
                    if shown.get(job) != queue[job]:
                        shown[job] = queue[job]
                        log.info("%-12s job %s %s  %s", "slurm", job, " ".join(queue[job]), cell.name)
                elif cell.run_dir in absent:  # a look later: its last words may take their time to get here
                    judge(cell, known=end_of(job))
                    cell.log = _log(cell.run_dir)
                    end(cell)
                else:
                    absent.add(cell.run_dir)
            leave_if_asked()
            if any(cell.ending is None for cell in cells):
                time.sleep(self.poll_s)


def _jobs(cell: SweepCell) -> list[str]:
    """The cell's job, and the one that makes its data."""
    found = launched(cell.run_dir)
    return [found[name] for name in ("job", "prepare") if name in found]


def _waited_for(cell: SweepCell, queue: Mapping[str, tuple[str, str]]) -> str | None:
    """The cell's job, if it is in the queue.

    Raises:
        InputError: another job is there, which would be in the way of a new one.
    """
    found = launched(cell.run_dir)
    job, prepare = found.get("job"), found.get("prepare")
    if job in queue:
        if (stages := found.get("stages", cell.config.stages.value)) != cell.config.stages.value:
            raise InputError(
                f"{cell.name} is in the queue with stages={stages} as job {job}; wait for it or scancel it"
            )
        return job
    if prepare in queue:
        raise InputError(
            f"{cell.name}: job {prepare} makes its data, and the job that would train is gone; wait for it or "
            "scancel it"
        )
    return None


def _folder(cells: Sequence[SweepCell]) -> Path:
    return cells[0].run_dir.parent / FOLDER


def _export(code: Path | None) -> str:
    """Shell that has Python import that copy of sdx, and not one in the directory where the job starts."""
    if code is None:
        return ""
    return f"export PYTHONSAFEPATH=1 PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}; "


def _array_id(jobs: Sequence[Any]) -> str:
    return str(jobs[0].job_id.split("_")[0])


def _log(run_dir: Path) -> Path:
    """Of the cell's job; of the one that made its data where that failed, and the other never began."""
    found = launched(run_dir)
    paths = [Path(found[name]) for name in ("log", "prepare_log") if name in found]
    return next((path for path in paths if path.exists()), paths[0])


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"hydra.launcher.{key}={value} is no mapping; write 'hydra.launcher.{key}={{name: value}}'")
    return dict(value)


def _queue(jobs: Iterable[str]) -> dict[str, tuple[str, str]] | None:
    """What jobs do that are not over, and why they wait; none where SLURM does not answer."""
    asked = [job for job in jobs if job]
    found = squeue(asked) if asked else {}
    if found is None:
        return None
    return {job: (where.value, why) for job, (where, why) in found.items() if where is not Queue.gone}
