"""Options of `hydra/launcher=slurm` that cannot work, on a machine with an sbatch that is never asked."""

from pathlib import Path

import pytest

from sdx.config import InputError
from sdx.launching.config import SlurmConfig
from sdx.launching.slurm import SlurmLauncher, _parameters
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
