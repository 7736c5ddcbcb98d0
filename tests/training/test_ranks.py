"""Two ranks under torchrun: one launch for all cases, each compared with one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdx import InputError
from sdx.process import ranks
from tests.kit import training
from tests.kit.training import CASES, assert_close, fit, grad_norms, losses


@pytest.fixture(scope="module")
def launched(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launch += ["--log-dir", str(out / "logs"), "--redirects", "3", training.__file__, str(model_dir), str(out)]
    root = Path(training.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=300, check=False)
    printed = {path.parent.name + path.name: path.read_text() for path in (out / "logs").rglob("std*.log")}
    assert done.returncode == 0, printed
    return out


@pytest.mark.parametrize("name", CASES)
def test_equals_one_process(launched: Path, model_dir: Path, tmp_path: Path, name: str):
    options = CASES[name] | {"zero_stage": 0, "offload_optimizer": False, "activation_checkpointing": False}
    weights, _ = fit(model_dir, tmp_path, **options)
    tolerance = 1e-2 if "bf16" in name else 1e-5  # bf16 rounds the gradient of each micro-batch
    assert losses(launched / name) == pytest.approx(losses(tmp_path), rel=tolerance)
    assert grad_norms(launched / name) == pytest.approx(grad_norms(tmp_path), rel=tolerance)
    assert_close(torch.load(launched / f"{name}.pt"), weights, tolerance)


def test_resumes_bit_for_bit(launched: Path):
    assert_close(torch.load(launched / "resumed.pt"), torch.load(launched / "zero3.pt"), 0.0)
    assert losses(launched / "resumed") == losses(launched / "zero3")


def test_only_rank_0_prints(launched: Path):
    printed = {(path.parent.name, path.name): path.read_text() for path in (launched / "logs").rglob("std*.log")}
    assert printed[("1", "stdout.log")] == printed[("1", "stderr.log")] == ""
    assert printed[("0", "stdout.log")] == ""
    assert "100%" in printed[("0", "stderr.log")]


@pytest.mark.parametrize(
    ("visible", "local", "slurm", "number"), [(8, 3, False, 3), (8, 3, True, 3), (1, 3, True, 0), (1, 0, False, 0)]
)
def test_a_rank_takes_its_own_gpu_also_where_slurm_shows_it_only_one(monkeypatch, visible, local, slurm, number):
    see_gpus(monkeypatch, visible, local)
    if slurm:
        monkeypatch.setenv("SLURM_LOCALID", str(local))
    assert ranks.device() == torch.device("cuda", number)


def test_more_ranks_than_gpus_are_refused(monkeypatch):
    see_gpus(monkeypatch, 2, 2)
    with pytest.raises(InputError, match="local rank 2 finds 2 GPUs"):
        ranks.device()


def see_gpus(monkeypatch, count: int, local: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.delenv("SLURM_LOCALID", raising=False)
