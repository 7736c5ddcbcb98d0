"""`hydra/launcher=slurm`: each run of a sweep as a job of SLURM, a rank for each GPU.

The command that launches waits for the jobs and can be stopped and given again: what is done is skipped, and what is
in the queue is waited for and not submitted twice.
"""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.options import fields, schema
from sdx.process.preemption import leave_if_asked
from sdx.store.files import write_json
from sdx.sweeps.job import RunJob, copy_code
from sdx.sweeps.launcher import RunLauncher, say_end, say_start
from sdx.sweeps.runs import SweepRun, forget, judge
from sdx.sweeps.watch import JOB, Queue, ask, launched, squeue

log = getLogger("sdx")

SCANCEL_S = 20
FOLDER = "slurm"
"""In runs_dir: the scripts and the logs of the jobs, and copies of sdx."""
REQUEUES = 10_000
"""That submitit allows."""
DEAF = 'trap "" USR2; exec "$0" "$@"'
"""A signal that comes before Python listens would kill the job."""
ARRAY = 1000
"""Jobs in an array where the cluster does not say how many it takes."""


class GpuFlag(str, Enum):
    """Options of sbatch that ask for GPUs."""

    gpus_per_node = "gpus_per_node"
    gpus_per_task = "gpus_per_task"
    """Each rank sees its own GPU alone. NCCL may then be slower between the GPUs of a node, or fail: for clusters that
    know no other."""
    gres = "gres"
    """For clusters that know no other, `--gres=gpu:8`."""


@dataclass
class SlurmConfig:
    """Jobs of SLURM. What is none is left to the cluster's defaults."""

    _target_: str = "hydra_plugins.sdx.SlurmLauncher"
    nodes: int = fields.number(1, at_least=1, at_most=10**5)
    """Of each run."""
    gpus_per_node: int = fields.number(1, at_least=0, at_most=1024)
    """0 for none."""
    gpu_flag: GpuFlag = GpuFlag.gpus_per_node
    """How sbatch is asked for GPUs."""
    gpu_type: str | None = None
    """Kind of GPU where a cluster has several, as it names them: `a100`."""
    tasks_per_node: int | None = fields.number(None, at_least=1, at_most=1024)
    """Ranks on a node; none is one for each GPU, or one."""
    cpus_per_task: int | None = fields.number(None, at_least=1, at_most=10_000)
    """Cores of a rank. A rank computes with as many threads as it has cores."""
    mem_gb: int | None = fields.number(None, at_least=1, at_most=10**6)
    """Memory of a node, in GB."""
    time_min: int = fields.number(1440, at_least=1, at_most=10**6)
    """Limit of a job. A run that takes longer is put back into the queue and goes on."""
    signal_delay_s: int = fields.number(300, at_least=1, at_most=65_535)
    """How long before the limit a job is asked to save and leave."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    array_parallelism: int = fields.number(256, at_least=1, at_most=10**6)
    """Runs at once."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell before the run: `module load cuda`, `source .venv/bin/activate`."""
    snapshot: bool = False
    """Jobs run a copy of sdx as it is at the launch, in `slurm/` of runs_dir, whatever is edited while they wait."""
    python: str | None = None
    """How to start Python; none is the one that launches. `apptainer exec --nv sdx.sif python` for a container."""
    sbatch: Any = None  # Hydra lets nobody add keys to a dict that has a type
    """Any other option of sbatch: `{nodelist: n1, exclusive: true}`."""
    prepare: Any = None
    """Options of a job before each run that makes its data, `stages=prepare`: `{gpus_per_node: 0, partition: cpu}`.
    None makes the data in the run's own job."""
    poll_s: float = fields.number(20.0, at_least=0.1, at_most=3600)
    """Seconds between two looks at the queue."""


class SlurmLauncher(RunLauncher):
    """Submits runs as one job array and waits for them. The arguments are those of `SlurmConfig`."""

    def __init__(self, prepare: Any, poll_s: float, **options: Any) -> None:
        self.options = {**options, "sbatch": _mapping("sbatch", options["sbatch"])}
        self.prepare = _mapping("prepare", prepare)
        schema.check_part(SlurmConfig, options, self.prepare, "hydra.launcher.prepare")
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

    def run(self, runs: Sequence[SweepRun]) -> None:
        queue = _queue(job for run in runs for job in _jobs(run))
        if queue is None:
            raise InputError("squeue does not answer, so nobody knows which runs are in the queue; try again later")
        jobs = {run.run_dir: job for run in runs if (job := _waited_for(run, queue))}
        for run in runs:
            if run.run_dir in jobs:
                log.info("%-12s %s  is in the queue as job %s", "slurm", run.name, jobs[run.run_dir])
        new = [run for run in runs if run.run_dir not in jobs]
        if new and self.options["snapshot"]:
            self.code = copy_code(_folder(new))
            log.info("%-12s the jobs run the copy of sdx in %s", "slurm", self.code)
        for first in range(0, len(new), most := most_in_an_array()):
            jobs |= self._submit(new[first : first + most])
        try:
            self._wait(runs, jobs)
        except KeyboardInterrupt:
            left = " ".join(job for run in runs if run.state is None for job in _jobs(run))
            log.warning("%-12s the jobs go on; the same command waits for them, scancel %s ends them", "slurm", left)
            raise

    def _submit(self, runs: Sequence[SweepRun]) -> dict[Path, str]:
        for run in runs:  # before one of them can have said anything
            run.run_dir.mkdir(parents=True, exist_ok=True)
            forget(run.run_dir)
        arrays: list[list[Any]] = []
        try:
            after = None
            if self.prepare:
                arrays.append(self._array(runs, {**self.options, **self.prepare}, ["stages=prepare"], None))
                after = f"{'aftercorr' if len(runs) > 1 else 'afterok'}:{_array_id(arrays[0])}"
            arrays.append(self._array(runs, self.options, [], after))
            jobs = arrays[-1]
            for run, job, *prepares in zip(runs, jobs, *arrays[:-1], strict=True):
                told = {"job": job.job_id, "log": str(job.paths.stdout), "stages": run.config.stages.value}
                for one in prepares:
                    told |= {"prepare": one.job_id, "prepare_log": str(one.paths.stdout)}
                write_json(run.run_dir / JOB, told)
        except BaseException:  # what nobody would find again
            for array in arrays:
                subprocess.run(["scancel", _array_id(array)], check=False, timeout=SCANCEL_S)
            raise
        for run, job in zip(runs, jobs, strict=True):
            say_start(run, f"as job {job.job_id}")
        return {run.run_dir: job.job_id for run, job in zip(runs, jobs, strict=True)}

    def _array(
        self, runs: Sequence[SweepRun], options: Mapping[str, Any], more: list[str], after: str | None
    ) -> list[Any]:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        python = options["python"] or shlex.quote(sys.executable)
        shell = DEAF
        if self.code:  # and not one in the directory where the job starts
            path = f"{shlex.quote(str(self.code))}${{PYTHONPATH:+:$PYTHONPATH}}"
            shell = f"export PYTHONSAFEPATH=1 PYTHONPATH={path}; {DEAF}"
        executor = SlurmExecutor(
            _folder(runs), max_num_timeout=REQUEUES, python=f"bash -c {shlex.quote(shell)} {python}"
        )
        grace_s = options["signal_delay_s"] / 2
        try:
            executor.update_parameters(**parameters(options, after))
            with executor.batch():
                jobs = [
                    executor.submit(RunJob([*run.overrides, *more], run.run_dir, grace_s, self.code)) for run in runs
                ]
            [job.job_id for job in jobs]
        except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
            reason = " ".join(str(getattr(error, "stderr", None) or error).replace("sbatch: error: ", "").split())
            raise InputError(f"sbatch refused the job: {reason}; see the options under hydra.launcher") from None
        return jobs

    def _wait(self, runs: Sequence[SweepRun], jobs: Mapping[Path, str]) -> None:
        """Until no job is in the queue any more."""
        shown: dict[str, str] = {}
        absent: set[Path] = set()
        while waiting := [run for run in runs if run.state is None]:
            queue = _queue(jobs[run.run_dir] for run in waiting)
            if queue is None:
                log.warning("%-12s squeue does not answer; the jobs go on", "slurm")
                waiting = []
            for run in waiting:
                job = jobs[run.run_dir]
                if queue and job in queue:
                    absent.discard(run.run_dir)
                    state, why = queue[job]
                    if shown.get(job) != (now := f"{state.value} {why}"):
                        shown[job] = now
                        log.info("%-12s job %s %s  %s", "slurm", job, now, run.name)
                elif run.run_dir in absent:  # a look later: its last words may take their time to get here
                    judge(run, known=_end_of(job))
                    run.log = _log(run.run_dir)
                    say_end(run)
                else:
                    absent.add(run.run_dir)
            leave_if_asked()
            if any(run.state is None for run in runs):
                time.sleep(self.poll_s)


def _jobs(run: SweepRun) -> list[str]:
    """The run's job, and the one that makes its data."""
    found = launched(run.run_dir)
    return [found[name] for name in ("job", "prepare") if name in found]


def _waited_for(run: SweepRun, queue: Queue) -> str | None:
    """The run's job, if it is in the queue.

    Raises:
        InputError: another job is there, which would be in the way of a new one.
    """
    found = launched(run.run_dir)
    job, prepare = found.get("job"), found.get("prepare")
    if job in queue:
        if (stages := found.get("stages", run.config.stages.value)) != run.config.stages.value:
            raise InputError(f"{run.name} is in the queue with stages={stages} as job {job}; wait for it or scancel it")
        return job
    if prepare in queue:
        raise InputError(
            f"{run.name}: job {prepare} makes its data, and the job that would train is gone; wait for it or scancel it"
        )
    return None


def _queue(jobs: Iterable[str]) -> Queue | None:
    """What jobs do that are not over; none where SLURM does not answer."""
    asked = [job for job in jobs if job]
    return squeue(asked) if asked else {}


def _end_of(job: str) -> str:
    """How a job ended, as long as SLURM knows: `JobState=... Reason=... ExitCode=...`."""
    answer = ask("scontrol", "--oneliner", "show", "job", job)
    said = answer.stdout.split() if answer else []
    return " ".join(word for word in said if word.startswith(("JobState=", "Reason=", "ExitCode=")))


def most_in_an_array() -> int:
    """Jobs, by the cluster's configuration."""
    answer = ask("scontrol", "show", "config")
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", answer.stdout) if answer else None
    return max(1, int(found[1])) if found else ARRAY


def _folder(runs: Sequence[SweepRun]) -> Path:
    return runs[0].run_dir.parent / FOLDER


def _array_id(jobs: Sequence[Any]) -> str:
    return str(jobs[0].job_id.split("_")[0])


def _log(run_dir: Path) -> Path:
    """Of the run's job; of the one that made its data where that failed, and the other never began."""
    found = launched(run_dir)
    paths = [Path(found[name]) for name in ("log", "prepare_log") if name in found]
    return next((path for path in paths if path.exists()), paths[0])


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"hydra.launcher.{key}={value} is no mapping; write 'hydra.launcher.{key}={{name: value}}'")
    return dict(value)


def check(options: Mapping[str, Any], where: str) -> None:
    """Raises InputError for options that no job can have.

    Args:
        where: the key that they are under, with a full stop.
    """
    if (time_min := options["time_min"]) * 60 <= options["signal_delay_s"]:
        raise InputError(
            f"{where}time_min={time_min} leaves no time before the signal that comes "
            f"{where}signal_delay_s={options['signal_delay_s']} before the end; raise it"
        )
    count, tasks = options["gpus_per_node"], _tasks(options)
    if 0 < count < tasks:
        raise InputError(
            f"{where}tasks_per_node={tasks} exceeds {where}gpus_per_node={count}, and each rank needs its own GPU; "
            "give as many, or leave tasks_per_node out"
        )
    if options["gpu_flag"] == GpuFlag.gpus_per_task and count % tasks:
        raise InputError(
            f"{where}gpus_per_node={count} cannot be divided among {where}tasks_per_node={tasks}, as "
            f"{where}gpu_flag=gpus_per_task does; give a multiple, or leave tasks_per_node out"
        )


def parameters(options: Mapping[str, Any], after: str | None) -> dict[str, Any]:
    """For submitit, which names them as sbatch does, more or less."""
    cpus = options["cpus_per_task"]
    more = {"requeue": True, **options["sbatch"]}
    if after:
        more |= {"dependency": after, "kill-on-invalid-dep": "yes"}
    named = {name: options[name] for name in ("partition", "account", "qos", "constraint", "cpus_per_task", "nodes")}
    return {
        **named,
        "job_name": "sdx",
        "time": options["time_min"],
        **_gpus(options),
        "ntasks_per_node": _tasks(options),
        "mem": f"{options['mem_gb']}G" if options["mem_gb"] else None,
        "setup": list(options["setup"]) or None,
        "signal_delay_s": options["signal_delay_s"],
        "array_parallelism": options["array_parallelism"],
        "stderr_to_stdout": True,
        "wckey": None,  # submitit would name itself
        "srun_args": [
            "--kill-on-bad-exit=1",
            *([f"--cpus-per-task={cpus}"] if cpus else []),
        ],  # srun does not inherit the option
        "additional_parameters": more,
    }


def _tasks(options: Mapping[str, Any]) -> int:
    """On a node."""
    return int(options["tasks_per_node"] or options["gpus_per_node"] or 1)


def _gpus(options: Mapping[str, Any]) -> dict[str, str]:
    """The option of sbatch that asks for them."""
    count, kind = options["gpus_per_node"], f"{options['gpu_type']}:" if options["gpu_type"] else ""
    if not count:
        return {}
    match GpuFlag(options["gpu_flag"]):
        case GpuFlag.gres:
            return {"gres": f"gpu:{kind}{count}"}
        case GpuFlag.gpus_per_task:
            return {"gpus_per_task": f"{kind}{count // _tasks(options)}"}
        case GpuFlag.gpus_per_node:
            return {"gpus_per_node": f"{kind}{count}"}
