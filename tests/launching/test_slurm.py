"""Options of `hydra/launcher=slurm` that cannot work, on a machine with an sbatch that is never asked."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sdx.artifacts import write_json
from sdx.config import Config, InputError, Stages
from sdx.launching.cells import SweepCell
from sdx.launching.config import SlurmConfig
from sdx.launching.slurm import SlurmLauncher, _jobs, _parameters, _waited_for
from sdx.scheduler import most_in_an_array
from sdx.watch import JOB
from tests.forks import sdx


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/sbatch"
    program.write_text("#!/bin/sh\nexit 99\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")


def launcher(**options: object) -> SlurmLauncher:
    given = {**vars(SlurmConfig()), **options}
    return SlurmLauncher(**{name: value for name, value in given.items() if name != "_target_"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"time_min": 5}, "hydra.launcher.time_min=5 leaves no time before the signal"),
        ({"prepare": {"time_min": 5}}, "hydra.launcher.prepare.time_min=5 leaves no time"),
        ({"prepare": {"gpu_per_node": 0}}, "hydra.launcher.prepare.gpu_per_node is no option"),
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
    """Else a cell, which is not launched once more, would have them without their meaning."""
    (tmp_path / "experiments").mkdir()
    options = "hydra: {launcher: {gpus_per_node: 8}}"
    (tmp_path / "experiments/mine.yaml").write_text(f"# @package _global_\ndefaults: {defaults}\n{options}\n")
    given = ("-m", "--config-dir", str(tmp_path), "+experiments=mine", "hydra/launcher=slurm", "method=none")
    done = sdx(*given, "plan=true", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert ("override /hydra/launcher: slurm` in its defaults" in done.stderr) == bool(code)


def test_jobs_in_the_queue(tmp_path: Path):
    config = OmegaConf.structured(Config)
    cell = SweepCell(0, [], [], config, tmp_path)
    assert _waited_for(cell, {}) is None
    write_json(cell.run_dir / JOB, {"job": "8_0", "log": "l", "stages": "all", "prepare": "7_0", "prepare_log": "p"})
    assert _jobs(cell) == ["8_0", "7_0"]
    assert _waited_for(cell, {"8_0": ("running", ""), "7_0": ("running", "")}) == "8_0"
    assert _waited_for(cell, {}) is None
    with pytest.raises(InputError, match="job 7_0 makes its data, and the job that would train is gone"):
        _waited_for(cell, {"7_0": ("running", "")})
    config.stages = Stages.prepare
    with pytest.raises(InputError, match="in the queue with stages=all as job 8_0; wait for it or scancel it"):
        _waited_for(cell, {"8_0": ("waiting", "")})


@pytest.mark.parametrize(("said", "most"), [("MaxArraySize            = 1001\n", 1001), ("", 1000)])
def test_arrays_are_as_long_as_the_cluster_takes(tmp_path: Path, sbatch: None, said: str, most: int):
    program = tmp_path / "bin/scontrol"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{said}'\n")
    program.chmod(0o755)
    assert most_in_an_array() == most


def test_without_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="finds no sbatch here"):
        launcher()


def test_data_jobs_are_small_and_ranks_get_their_cores(sbatch: None):
    one = launcher(nodes=4, gpus_per_node=8, cpus_per_task=12, prepare={"gpus_per_node": 0, "partition": "cpu"})
    data = _parameters({**one.options, **one.prepare}, None)
    assert (data["nodes"], data["ntasks_per_node"], data["gpus_per_node"], data["partition"]) == (1, 1, None, "cpu")
    train = _parameters(one.options, "aftercorr:7")
    assert (train["nodes"], train["ntasks_per_node"], train["gpus_per_node"]) == (4, 8, 8)
    assert "--cpus-per-task=12" in train["srun_args"]
    assert train["additional_parameters"] == {
        "requeue": True,
        "dependency": "aftercorr:7",
        "kill-on-invalid-dep": "yes",
    }
