"""Options of `hydra/launcher=slurm` and the script for sbatch, on a machine without SLURM."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sdx import InputError
from sdx.config import Config, Stages
from sdx.store.files import read_json, write_json
from sdx.sweeps.runs import SweepRun
from sdx.sweeps.slurm import GpuFlag, SlurmConfig, SlurmLauncher, _job_in_queue, _jobs, max_array_size, parameters
from sdx.sweeps.watch import JOB
from sdx.tracking.state import RunState
from tests.kit.forks import ROOT, sdx


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin/sbatch", "exit 99")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")


@pytest.fixture
def slurm(tmp_path: Path, sbatch: None) -> Path:
    """The path where sbatch copies the script to; srun runs the command as the job's only task."""
    script = tmp_path / "script.sh"
    program(tmp_path / "bin/sbatch", f'cp "$1" {script}; echo Submitted batch job 7')
    program(tmp_path / "bin/srun", 'while [ "$1" != bash ]; do shift; done; exec "$@"')
    return script


def launcher(**options: object) -> SlurmLauncher:
    given = {**vars(SlurmConfig()), **options}
    return SlurmLauncher(**{name: value for name, value in given.items() if name != "_target_"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"time_min": 5}, "hydra.launcher.time_min=5 leaves no time before the signal"),
        ({"prepare": {"time_min": 5}}, "hydra.launcher.prepare.time_min=5 leaves no time"),
        (
            {"prepare": {"gpu_per_node": 0}},
            "prepare.gpu_per_node: there is no key .*did you mean hydra.launcher.prepare.gpus_per_node",
        ),
        (
            {"prepare": {"gpu_flag": "gpus"}},
            "hydra.launcher.prepare.gpu_flag=gpus: Invalid value 'gpus', expected one of ",
        ),
        (
            {"gpus_per_node": 8, "tasks_per_node": 3, "gpu_flag": GpuFlag.gpus_per_task},
            "hydra.launcher.gpus_per_node=8 cannot be divided among hydra.launcher.tasks_per_node=3",
        ),
        ({"prepare": {"nodes": 0}}, "hydra.launcher.prepare.nodes=0 is too small"),
        ({"prepare": {"mem_gb": -1}}, "hydra.launcher.prepare.mem_gb=-1 is too small"),
        ({"prepare": {"array": 0}}, "hydra.launcher.prepare.array=0 is too small"),
        ({"prepare": {"array": 4, "nodes": 2}}, "array=4: each task is one process, .* is 2; leave both out"),
        ({"sbatch": "exclusive"}, "hydra.launcher.sbatch=exclusive is no mapping"),
    ],
)
def test_options_that_cannot_work(sbatch: None, options: dict[str, object], says: str):
    with pytest.raises(InputError, match=says):
        launcher(**options)


def test_the_error_of_a_launcher_is_one_line(tmp_path: Path, sbatch: None):
    done = sdx("-m", "hydra/launcher=slurm", "hydra.launcher.time_min=5", "method=none", "seed=1,2", cwd=tmp_path)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "warn" not in line.lower()] == [
        "sdx: hydra.launcher.time_min=5 leaves no time before the signal that comes hydra.launcher.signal_delay_s=300 "
        "before the end; raise it"
    ]


@pytest.mark.parametrize(("defaults", "code"), [("[]", 2), ("[{override /hydra/launcher: slurm}]", 0)])
def test_options_in_an_experiment_need_its_launcher(tmp_path: Path, sbatch: None, defaults: str, code: int):
    """Otherwise the run's own process, which takes the default launcher, could not compose them."""
    (tmp_path / "experiments").mkdir()
    options = "hydra: {launcher: {gpus_per_node: 8}}"
    (tmp_path / "experiments/mine.yaml").write_text(f"# @package _global_\ndefaults: {defaults}\n{options}\n")
    given = ("-m", "--config-dir", str(tmp_path), "+experiments=mine", "hydra/launcher=slurm", "method=none")
    done = sdx(*given, "plan=true", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert ("override /hydra/launcher: slurm` in its defaults" in done.stderr) == bool(code)


def test_jobs_in_the_queue(tmp_path: Path):
    config = OmegaConf.structured(Config)
    run = SweepRun(0, [], [], config, tmp_path)
    assert _job_in_queue(run, {}) is None
    write_json(run.run_dir / JOB, {"job": "8_0", "log": "l", "stages": "all", "prepare": "7_0", "prepare_log": "p"})
    assert _jobs(run) == ["8_0", "7_0"]
    assert _job_in_queue(run, {"8_0": (RunState.running, ""), "7_0": (RunState.running, "")}) == "8_0"
    assert _job_in_queue(run, {}) is None
    with pytest.raises(InputError, match="job 7_0 makes its data, and the job that would train is gone"):
        _job_in_queue(run, {"7_0": (RunState.running, "")})
    config.stages = Stages.prepare
    with pytest.raises(InputError, match="in the queue with stages=all as job 8_0; wait for it or scancel it"):
        _job_in_queue(run, {"8_0": (RunState.queued, "")})
    write_json(run.run_dir / JOB, {"job": "8", "log": "l", "stages": "all", "prepare": "7", "prepare_log": "p"})
    with pytest.raises(InputError, match="job 7 makes its data, and the job that would train is gone"):
        _job_in_queue(run, {"7_3": (RunState.queued, "")})
    assert _job_in_queue(run, {"70_0": (RunState.queued, "")}) is None


@pytest.mark.parametrize(("said", "most"), [("MaxArraySize            = 1001\n", 1001), ("", 1000)])
def test_the_size_of_arrays_is_the_cluster_s_limit(tmp_path: Path, sbatch: None, said: str, most: int):
    program(tmp_path / "bin/scontrol", f"printf '%s' '{said}'")
    assert max_array_size() == most


def test_without_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="finds no sbatch here"):
        launcher()


def test_data_jobs_are_small_and_ranks_get_their_cores(sbatch: None):
    one = launcher(nodes=4, gpus_per_node=8, cpus_per_task=12, prepare={"gpus_per_node": 0, "partition": "cpu"})
    data = parameters({**one.options, **one.prepare}, None)
    assert (data["nodes"], data["ntasks_per_node"], data["partition"]) == (1, 1, "cpu")
    assert not [name for name in data if "gpu" in name]
    train = parameters(one.options, "aftercorr:7")
    assert (train["nodes"], train["ntasks_per_node"], train["gpus_per_node"]) == (4, 8, "8")
    assert "--cpus-per-task=12" in train["srun_args"]
    assert train["additional_parameters"] == {
        "requeue": True,
        "dependency": "aftercorr:7",
        "kill-on-invalid-dep": "yes",
    }


@pytest.mark.parametrize(
    ("options", "asks"),
    [
        ({}, ["gpus-per-node=8", "ntasks-per-node=8"]),
        ({"gpu_type": "a100"}, ["gpus-per-node=a100:8", "ntasks-per-node=8"]),
        ({"gpu_flag": GpuFlag.gres}, ["gres=gpu:8", "ntasks-per-node=8"]),
        ({"gpu_flag": GpuFlag.gres, "gpu_type": "a100"}, ["gres=gpu:a100:8", "ntasks-per-node=8"]),
        ({"gpu_flag": GpuFlag.gpus_per_task}, ["gpus-per-task=1", "ntasks-per-node=8"]),
        ({"gpu_flag": GpuFlag.gpus_per_task, "tasks_per_node": 4}, ["gpus-per-task=2", "ntasks-per-node=4"]),
        ({"gpus_per_node": 0, "gpu_flag": GpuFlag.gres}, ["ntasks-per-node=1"]),
    ],
)
def test_the_script_requests_gpus_by_the_chosen_option(
    tmp_path: Path, slurm: Path, options: dict[str, object], asks: list[str]
):
    given = {"gpus_per_node": 8, **options}
    launcher(**given)._submit([SweepRun(0, [], [], OmegaConf.structured(Config), tmp_path / "runs/run")])
    flags = [line.removeprefix("#SBATCH --").replace("'", "") for line in slurm.read_text().splitlines()]
    assert [flag for flag in flags if flag.startswith(("gpu", "gres", "ntasks"))] == asks


def test_a_run_waits_for_all_tasks_of_its_array_however_they_end(tmp_path: Path, slurm: Path):
    runs = [SweepRun(n, [], [], OmegaConf.structured(Config), tmp_path / f"runs/{n}") for n in range(2)]
    program(tmp_path / "bin/sbatch", f'cat "$1" >> {slurm}; echo Submitted batch job 7')
    arrays = launcher(gpus_per_node=0, prepare={"array": 4})
    arrays._wait = lambda runs, jobs: None  # type: ignore[method-assign]
    arrays.run(runs)
    flags = [line.removeprefix("#SBATCH --") for line in slurm.read_text().splitlines()]
    assert [flag for flag in flags if flag.startswith(("array", "dependency"))] == [
        "array=0-3%4",
        "dependency=afterany:7",
    ] * 2
    assert [read_json(run.run_dir / JOB)["prepare"] for run in runs] == ["7", "7"]


LAUNCH = """
import sys
from omegaconf import OmegaConf
from pathlib import Path
from sdx.config import Config
from sdx.sweeps.runs import SweepRun
from sdx.sweeps.slurm import SlurmConfig, SlurmLauncher
options = {**vars(SlurmConfig()), "gpus_per_node": 0, "snapshot": sys.argv[1] == "True", "python": sys.argv[2] or None}
del options["_target_"]
launcher = SlurmLauncher(**options)
launcher._wait = lambda runs, jobs: None
launcher.run([SweepRun(0, ["--help"], [], OmegaConf.structured(Config), Path("runs/run").absolute())])
"""
TASK = {
    **dict.fromkeys(("SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID"), "0"),
    **dict.fromkeys(("SLURM_NTASKS", "SLURM_JOB_NUM_NODES"), "1"),
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "localhost",
}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the job starts in the checkout")
@pytest.mark.parametrize(
    ("snapshot", "python", "code", "says"),
    [
        (True, "", 0, "sdx: experiments that make LLMs"),
        (False, "", 0, "edited since"),
        (True, f"env PYTHONPATH=. {sys.executable}", 1, "instead of its snapshot"),
    ],
)
def test_jobs_run_the_code_that_they_were_launched_with(
    tmp_path: Path, slurm: Path, snapshot: bool, python: str, code: int, says: str
):
    """The checkout is edited while they wait. The script of the job runs as SLURM would run its only task."""
    checkout = tmp_path / "checkout"
    for name in ("sdx", "conf", "experiments", "hydra_plugins"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", LAUNCH, str(snapshot), python]
    subprocess.run(command, cwd=checkout, env=environment, check=True)
    main = checkout / "sdx/cli/main.py"
    main.write_text(main.read_text().replace("sdx: experiments that make LLMs", "edited since"))
    done = subprocess.run(
        ["bash", str(slurm)], cwd=checkout, env={**environment, **TASK}, stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == code, done.stdout
    error = checkout / "runs/run/error.txt"
    assert says in (error.read_text() if code else done.stdout)
    copies = list((checkout / "runs/slurm").glob("code-*"))
    assert len(copies) == snapshot
    for copy in copies:
        assert (copy / "conf/config.yaml").read_text() == (checkout / "conf/config.yaml").read_text()
