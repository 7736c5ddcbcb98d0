"""How many threads the CPU's kernels get: never more than a process has cores for."""

import os
import subprocess
import sys

import pytest

from sdx.process import cgroups, threads

VARIABLES = (
    *("LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"),
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"),
)


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """64 cores, no control groups, no variables set."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # such that what `limit` sets is removed after the test
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(threads, "CPUS", tmp_path / "cpus")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "membership")
    return tmp_path


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, 64),
        ({"SLURM_CPUS_PER_TASK": "12", "LOCAL_WORLD_SIZE": "4"}, 12),
        ({"SLURM_CPUS_ON_NODE": "64", "LOCAL_WORLD_SIZE": "4"}, 16),  # tasks that see all cores of the job
        ({"SLURM_CPUS_ON_NODE": "256", "LOCAL_WORLD_SIZE": "4"}, 64),  # bound to cores of their own
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "8"}, 8),
        # torchrun in a task of 32 cores, and in the script of a job that has 64 for 8 tasks
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "8", "SLURM_CPUS_ON_NODE": "32"}, 4),
        (
            {
                "TORCHELASTIC_RUN_ID": "x",
                "LOCAL_WORLD_SIZE": "8",
                "SLURM_CPUS_ON_NODE": "64",
                "SLURM_CPUS_PER_TASK": "8",
            },
            8,
        ),
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "100"}, 1),
    ],
)
def test_cores_of_a_rank(monkeypatch, said, expected):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert threads.cores() == expected


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/pod/box\n", {"pod/cpu.max": "350000 100000\n", "pod/box/cpu.max": "max 100000\n"}, 3),
        ("0::/pod/box\n", {"cpu.max": "50000 100000\n"}, 1),  # a container that shows its own group as the root
        ("4:cpu,cpuacct:/box\n", {"cpu/box/cpu.cfs_quota_us": "200000", "cpu/box/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu:/box\n", {"cpu/box/cpu.cfs_quota_us": "-1", "cpu/box/cpu.cfs_period_us": "100000"}, 64),
        ("0::/pod\n", {"pod/cpu.max": "what\n"}, 64),
    ],
)
def test_a_cpu_quota_counts(machine, membership, files, expected):
    (machine / "membership").write_text(membership)
    for name, text in files.items():
        (machine / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / name).write_text(text)
    assert threads.cores() == expected


def test_two_hardware_threads_of_a_core_count_once(machine):
    for number in range(64):
        topology = machine / f"cpus/cpu{number}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{number % 32},{number % 32 + 32}")
    assert threads.cores() == 32


def test_the_environment_decides_except_for_torchrun_s_own_default(monkeypatch):
    threads.limit()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["GOMP_SPINCOUNT"]) == ("64", threads.SPINS)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads.limit()
    assert os.environ["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    threads.limit()
    assert os.environ["OMP_NUM_THREADS"] == "32"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    threads.limit()
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_omp_wait_policy_is_respected(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    threads.limit()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_the_command_sets_the_threads():
    """Before torch is loaded, which reads the variables once."""
    code = (
        "import os, sys; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        "sys.argv = ['sdx', '--cfg', 'job']; from sdx.cli.main import main; main();"
        "assert 'torch' not in sys.modules; names = 'OMP_NUM_THREADS', 'GOMP_SPINCOUNT', 'PYTORCH_ALLOC_CONF';"
        "print([os.environ[name] for name in names])"
    )
    unset = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(["1", threads.SPINS, "expandable_segments:True"])
