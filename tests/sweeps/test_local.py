"""What `hydra/launcher=local` gives its runs: a GPU each and a share of the cores. A script stands for the driver."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdx import InputError
from sdx.process import devices, threads
from sdx.process.devices import visible_gpus
from sdx.store.files import write_json
from sdx.sweeps import launcher
from sdx.sweeps.launcher import LocalLauncher
from sdx.tracking.state import STATE, RunState
from tests.kit.sweep_run import planned


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that names four GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nfor n in 0 1 2 3; do echo 'NVIDIA H200, 143771 MiB'; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        (None, ["0", "1", "2", "3"]),
        ("2,1", ["2", "1"]),
        ("1, 3", ["1", "3"]),
        ("", []),
        ("-1", []),
        ("0,7,1", ["0"]),
        ("GPU-8f1c,MIG-9a2b", ["GPU-8f1c", "MIG-9a2b"]),
    ],
)
def test_visible_gpus_are_those_that_cuda_shows(
    driver: None, monkeypatch: pytest.MonkeyPatch, visible: str | None, gpus: list[str]
):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == gpus


def test_gpus_are_counted_without_torch():
    program = "import sys; from sdx.process.devices import visible_gpus; visible_gpus(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


def test_without_gpus_cuda_visible_devices_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert visible_gpus() == []


def started(monkeypatch: pytest.MonkeyPatch, path: Path, count: int, jobs: int | None) -> list[dict[str, str]]:
    """The environments of a sweep's runs, which do nothing."""
    environments = []

    def popen(command, env, **_):
        environments.append(env)
        write_json(path / command[-1] / STATE, {"state": "done"})
        return SimpleNamespace(poll=lambda: 0, wait=lambda: 0)

    monkeypatch.setattr(launcher, "subprocess", SimpleNamespace(Popen=popen))
    monkeypatch.setattr(threads, "cores", lambda: 12)
    monkeypatch.setattr(launcher, "POLL_S", 0.0)
    runs = [planned(path / str(number)) for number in range(count)]
    for number, run in enumerate(runs):
        run.overrides = [str(number)]
    LocalLauncher(jobs).run(runs)
    assert [run.state for run in runs] == [RunState.done] * count
    return environments


@pytest.mark.parametrize(
    ("count", "jobs", "given", "threads"),
    [(8, None, None, "3"), (8, 2, None, "6"), (2, 4, None, "6"), (8, 4, "12", "3"), (8, 4, "2", "2")],
)
def test_runs_at_once_share_the_cores_on_gpus_too(
    driver: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    jobs: int | None,
    given: str | None,
    threads: str,
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    environments = started(monkeypatch, tmp_path, count, jobs)
    assert {each["OMP_NUM_THREADS"] for each in environments} == {threads}
    assert {each["CUDA_VISIBLE_DEVICES"] for each in environments} <= {"0", "1", "2", "3"}


def test_runs_at_once_share_the_cores_without_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "driver_gpus", list)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [each["OMP_NUM_THREADS"] for each in started(monkeypatch, tmp_path, 3, 3)] == ["4"] * 3
    [alone] = started(monkeypatch, tmp_path / "alone", 1, None)
    assert "OMP_NUM_THREADS" not in alone
    assert alone.keys() == os.environ.keys()


def test_more_jobs_than_gpus(driver: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launcher, "_start", lambda *_: pytest.fail("started a run"))
    with pytest.raises(InputError, match=r"hydra\.launcher\.jobs=5 exceeds the 4 GPUs here"):
        LocalLauncher(5).run([planned(tmp_path)])
