"""`hydra/launcher=slurm`: each run of a sweep as a job of SLURM, a rank for each GPU.

The command that launches waits for the jobs. It can be stopped and given again: runs that are done are skipped, and
jobs that are in the queue are waited for and not submitted twice.
"""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
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
from sdx.sweeps.launcher import RunLauncher, log_end
from sdx.sweeps.runs import SweepRun, clear_outcome, set_outcome
from sdx.sweeps.watch import JOB, JobStates, ask, job_of, job_states

log = getLogger("sdx")


class GpuFlag(str, Enum):
    """Options of sbatch that request GPUs."""

    gpus_per_node = "gpus_per_node"
    gpus_per_task = "gpus_per_task"
    """Each rank sees only its own GPU. NCCL may then be slower between the GPUs of a node, or fail: for clusters that
    have no other option."""
    gres = "gres"
    """`--gres=gpu:8`, for clusters that have no other option."""


@dataclass
class SlurmConfig:
    """Jobs of SLURM. Options that are none are left to the cluster's defaults."""

    _target_: str = "hydra_plugins.sdx.SlurmLauncher"
    nodes: int = fields.number(1, at_least=1, at_most=10**5)
    """Nodes of each run."""
    gpus_per_node: int = fields.number(1, at_least=0, at_most=1024)
    """0 for none."""
    gpu_flag: GpuFlag = GpuFlag.gpus_per_node
    """The option of sbatch that requests GPUs."""
    gpu_type: str | None = None
    """Kind of GPU if a cluster has several, by the cluster's name: `a100`."""
    tasks_per_node: int | None = fields.number(None, at_least=1, at_most=1024)
    """Ranks on a node. None: one for each GPU, or one without GPUs."""
    cpus_per_task: int | None = fields.number(None, at_least=1, at_most=10_000)
    """Cores of a rank, which computes with as many threads."""
    mem_gb: int | None = fields.number(None, at_least=1, at_most=10**6)
    """Memory of a node, in GB."""
    time_min: int = fields.number(1440, at_least=1, at_most=10**6)
    """Limit of a job. A run that takes longer is put back into the queue and continues."""
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
    """Jobs run a copy of sdx from the time of the launch, in `slurm/` of runs_dir, so edits do not change them."""
    python: str | None = None
    """Command of Python; none is the Python that launches. `apptainer exec --nv sdx.sif python` for a container."""
    sbatch: Any = None  # Hydra lets nobody add keys to a dict that has a type
    """Any other options of sbatch: `{nodelist: n1, exclusive: true}`."""
    prepare: Any = None
    """Options of a job before each run that makes its data, `stages=prepare`: `{gpus_per_node: 0, partition: cpu}`.
    With `array: 16`, so many jobs make them together. None: the run's own job makes the data."""
    poll_s: float = fields.number(20.0, at_least=0.1, at_most=3600)
    """Seconds between two looks at the queue."""


@dataclass
class PrepareConfig(SlurmConfig):
    """The options of `prepare`."""

    array: int = fields.number(1, at_least=1, at_most=10**6)
    """Tasks that make a run's data together, each a process. Any may die or never start: the run's own job starts when
    the array has ended in whatever way, and does what is left."""


class SlurmLauncher(RunLauncher):
    """Submits runs as one job array and waits for them. The arguments are those of `SlurmConfig`."""

    def __init__(self, prepare: Any, poll_s: float, **options: Any) -> None:
        self.options = {**options, "sbatch": _mapping("sbatch", options["sbatch"])}
        self.prepare = _mapping("prepare", prepare)
        schema.check_part(PrepareConfig, [*options, "array"], self.prepare, "hydra.launcher.prepare")
        self.prepare = {"nodes": 1, "tasks_per_node": 1, **self.prepare} if self.prepare else {}
        self.tasks: int = self.prepare.get("array", 1)
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
        if self.tasks > 1 and (ranks := self.prepare["nodes"] * self.prepare["tasks_per_node"]) > 1:
            raise InputError(
                f"hydra.launcher.prepare.array={self.tasks}: each task is one process, and nodes times tasks_per_node "
                f"is {ranks}; leave both out"
            )

    def run(self, runs: Sequence[SweepRun]) -> None:
        states = job_states(job for run in runs for job in _jobs(run))
        if states is None:
            raise InputError("squeue does not answer, so nobody knows which runs are in the queue; try again later")
        jobs = {run.run_dir: job for run in runs if (job := _job_in_queue(run, states))}
        for run in runs:
            if run.run_dir in jobs:
                log.info("%-12s %s  is in the queue as job %s", "slurm", run.name, jobs[run.run_dir])
        new = [run for run in runs if run.run_dir not in jobs]
        if new and self.options["snapshot"]:
            self.code = copy_code(_folder(new))
            log.info("%-12s the jobs run the copy of sdx in %s", "slurm", self.code)
        size = max_array_size() if self.tasks == 1 else 1  # a run waits for an array of its own
        for first in range(0, len(new), size):
            jobs |= self._submit(new[first : first + size])
        try:
            self._wait(runs, jobs)
        except KeyboardInterrupt:
            left = " ".join(job for run in runs if run.state is None for job in _jobs(run))
            log.warning("%-12s the jobs go on; the same command waits for them, scancel %s ends them", "slurm", left)
            raise

    def _submit(self, runs: Sequence[SweepRun]) -> dict[Path, str]:
        """Returns the run's job for each run directory."""
        for run in runs:  # before a job can write there
            run.run_dir.mkdir(parents=True, exist_ok=True)
            clear_outcome(run.run_dir)
        prepares: list[Any] = []
        jobs: list[Any] = []
        try:
            after = None
            if self.prepare:
                tasks = [(run, task) for run in runs for task in (range(self.tasks) if self.tasks > 1 else [None])]
                prepares = self._array(tasks, {**self.options, **self.prepare}, ["stages=prepare"], None)
                kind = "afterany" if self.tasks > 1 else "aftercorr" if len(runs) > 1 else "afterok"
                after = f"{kind}:{_array_id(prepares)}"
            jobs = self._array([(run, None) for run in runs], self.options, [], after)
            for number, (run, job) in enumerate(zip(runs, jobs, strict=True)):
                content = {"job": job.job_id, "log": str(job.paths.stdout), "stages": run.config.stages.value}
                if prepares:
                    prepare = prepares[number]
                    which = prepare.job_id if self.tasks == 1 else _array_id(prepares)
                    content |= {"prepare": which, "prepare_log": str(prepare.paths.stdout)}
                write_json(run.run_dir / JOB, content)
        except BaseException:  # no run directory names these jobs
            for array in filter(None, (prepares, jobs)):
                subprocess.run(["scancel", _array_id(array)], check=False, timeout=20)
            raise
        for run, job in zip(runs, jobs, strict=True):
            log.info("%-12s %s  as job %s", "start", run.name, job.job_id)
        return {run.run_dir: job.job_id for run, job in zip(runs, jobs, strict=True)}

    def _array(
        self,
        tasks: Sequence[tuple[SweepRun, int | None]],
        options: Mapping[str, Any],
        more: list[str],
        after: str | None,
    ) -> list[Any]:
        """Submits an array, a job for each task with `more` overrides, and returns submitit's jobs.

        Args:
            tasks: (run, number among the tasks that make the run's data; none for a job that does so alone).
            after: the dependency of the array, as sbatch writes it.
        """
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        shell = 'trap "" USR2; exec "$0" "$@"'  # the signal would kill a job before Python has installed its handler
        if self.code:  # first in PYTHONPATH, and before the directory in which the job starts
            path = f"{shlex.quote(str(self.code))}${{PYTHONPATH:+:$PYTHONPATH}}"
            shell = f"export PYTHONSAFEPATH=1 PYTHONPATH={path}; {shell}"
        python = f"bash -c {shlex.quote(shell)} {options['python'] or shlex.quote(sys.executable)}"
        executor = SlurmExecutor(_folder([run for run, _ in tasks]), max_num_timeout=10_000, python=python)
        grace_s = options["signal_delay_s"] / 2
        try:
            executor.update_parameters(**parameters(options, after))
            with executor.batch():
                jobs = [
                    executor.submit(RunJob([*run.overrides, *more], run.run_dir, grace_s, self.code, task))
                    for run, task in tasks
                ]
            [job.job_id for job in jobs]
        except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
            reason = " ".join(str(getattr(error, "stderr", None) or error).replace("sbatch: error: ", "").split())
            raise InputError(f"sbatch refused the job: {reason}; see the options under hydra.launcher") from None
        return jobs

    def _wait(self, runs: Sequence[SweepRun], jobs: Mapping[Path, str]) -> None:
        """Waits until no job is in the queue, and sets the outcome of each run."""
        shown: dict[str, str] = {}
        absent: set[Path] = set()
        while waiting := [run for run in runs if run.state is None]:
            states = job_states(jobs[run.run_dir] for run in waiting)
            if states is None:
                log.warning("%-12s squeue does not answer; the jobs go on", "slurm")
            for run in waiting if states is not None else ():
                job = jobs[run.run_dir]
                if states and job in states:
                    absent.discard(run.run_dir)
                    state, why = states[job]
                    if shown.get(job) != (now := f"{state.value} {why}"):
                        shown[job] = now
                        log.info("%-12s job %s %s  %s", "slurm", job, now, run.name)
                elif run.run_dir in absent:  # at the second look: a shared disk may show the run's files late
                    ended = ask("scontrol", "--oneliner", "show", "job", job).stdout.split()  # if SLURM remembers
                    kept = [word for word in ended if word.startswith(("JobState=", "Reason=", "ExitCode="))]
                    set_outcome(run, job_end=" ".join(kept))
                    run.log = _log(run.run_dir)
                    log_end(run)
                else:
                    absent.add(run.run_dir)
            leave_if_asked()
            if any(run.state is None for run in runs):
                time.sleep(self.poll_s)


def _jobs(run: SweepRun) -> list[str]:
    """The run's job, and the job or the array that makes its data."""
    found = job_of(run.run_dir)
    return [found[name] for name in ("job", "prepare") if name in found]


def _job_in_queue(run: SweepRun, states: JobStates) -> str | None:
    """The run's job, if it is in the queue. Raises InputError if the queue has a job that conflicts with a new one."""
    found = job_of(run.run_dir)
    job, prepare = found.get("job"), found.get("prepare")
    if job in states:
        if (stages := found.get("stages", run.config.stages.value)) != run.config.stages.value:
            raise InputError(f"{run.name} is in the queue with stages={stages} as job {job}; wait for it or scancel it")
        return job
    if prepare and any(state == prepare or state.startswith(f"{prepare}_") for state in states):
        raise InputError(
            f"{run.name}: job {prepare} makes its data, and the job that would train is gone; wait for it or scancel it"
        )
    return None


def max_array_size() -> int:
    """Jobs in an array, by the cluster's configuration; 1000 if it does not say."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config").stdout)
    return max(1, int(found[1])) if found else 1000


def _folder(runs: Sequence[SweepRun]) -> Path:
    """The directory for scripts and logs of the jobs, and for copies of sdx."""
    return runs[0].run_dir.parent / "slurm"


def _array_id(jobs: Sequence[Any]) -> str:
    return str(jobs[0].job_id.split("_")[0])


def _log(run_dir: Path) -> Path:
    """The log of the run's job, or of the job that makes its data if the run's job never began."""
    found = job_of(run_dir)
    paths = [Path(found[name]) for name in ("log", "prepare_log") if name in found]
    return next((path for path in paths if path.exists()), paths[0])


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"hydra.launcher.{key}={value} is no mapping; write 'hydra.launcher.{key}={{name: value}}'")
    return dict(value)


def check(options: Mapping[str, Any], where: str) -> None:
    """Raises InputError for options that no job can have; `where` is the key above them, with a full stop."""
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
    """The parameters of submitit, which mostly have the names of sbatch; `after` as in `SlurmLauncher._array`."""
    same = ("partition", "account", "qos", "constraint", "cpus_per_task", "nodes", "signal_delay_s")
    cpus, flag, gpus = options["cpus_per_task"], GpuFlag(options["gpu_flag"]), options["gpus_per_node"]
    if flag is GpuFlag.gpus_per_task:
        gpus //= _tasks(options)
    kind = f"{options['gpu_type']}:" if options["gpu_type"] else ""
    return {
        **{name: options[name] for name in (*same, "array_parallelism")},
        "job_name": "sdx",
        "time": options["time_min"],
        **({flag.value: f"{'gpu:' if flag is GpuFlag.gres else ''}{kind}{gpus}"} if gpus else {}),
        "ntasks_per_node": _tasks(options),
        "mem": f"{options['mem_gb']}G" if options["mem_gb"] else None,
        "setup": list(options["setup"]) or None,
        "stderr_to_stdout": True,
        "wckey": None,  # else submitit's name
        "srun_args": ["--kill-on-bad-exit=1", *([f"--cpus-per-task={cpus}"] if cpus else [])],  # not inherited by srun
        "additional_parameters": {
            "requeue": True,
            **options["sbatch"],
            **({"dependency": after, "kill-on-invalid-dep": "yes"} if after else {}),
        },
    }


def _tasks(options: Mapping[str, Any]) -> int:
    """Ranks on a node."""
    return int(options["tasks_per_node"] or options["gpus_per_node"] or 1)
