"""Two ranks: on two GPUs where there are two, else two processes on the CPU with tiny shapes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdx.process.failure import ERROR
from sdx.store.files import read_json
from tests.kit.gpu import ranks
from tests.kit.gpu.machine import GPUS, needs_two_gpus
from tests.kit.gpu.training import LEFT_BYTES, Trained, train_and_forget
from tests.kit.processes import go_on, interrupt
from tests.kit.tiny import tiny_model
from tests.kit.training import checkpoints_of

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
START_S, END_S = 240, 60
ROUNDING = 0.005
"""Relative difference of a loss: two ranks' micro-batches hold other examples together than one's."""


@contextmanager
def torchrun(model_dir: Path, out: Path, *layouts: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Two ranks of `tests.kit.gpu.ranks`, and the file with all that they print; they end with the block."""
    log = out / "output.log"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", ranks.__name__, str(model_dir), str(out), *layouts]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if GPUS < 2:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=out, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield process, log
        finally:
            for number in (process.pid, *running(out)):
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            process.wait()


def running(out: Path) -> list[int]:
    """The ranks that have not ended."""
    numbers = [int(file.name.partition(".")[0]) for file in out.glob("*.pid")]
    return [number for number in numbers if Path(f"/proc/{number}").exists()]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny")


@needs_two_gpus  # on the CPU tests/training/test_ranks.py does it
def test_two_ranks_train_as_one(llama: Path, space: Path):
    out = space / "ranks"
    out.mkdir()
    layouts = ["zero1", "zero2", "zero3"]
    with torchrun(llama, out, *layouts) as (process, log):
        assert process.wait(START_S) == 0, log.read_text()
    one = train_and_forget(llama, space / "rank", zero_stage=1).losses
    for name, rank in product(layouts, (0, 1)):
        trained = Trained(**read_json(out / f"{name}.{rank}.json"))
        assert trained.losses == pytest.approx(one, rel=ROUNDING), name
        assert trained.peak_bytes <= trained.estimate_bytes, name
        assert trained.left_bytes <= LEFT_BYTES, name


def test_an_error_of_one_rank_ends_both_with_its_message(tiny: Path, tmp_path: Path):
    with torchrun(tiny, tmp_path, ranks.FAILING) as (process, log):
        limit = time.monotonic() + START_S
        while not (tmp_path / "failed").exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            time.sleep(0.05)
        assert process.wait(END_S) != 0
        assert not running(tmp_path)
        assert f"RuntimeError: {ranks.MESSAGE}" in log.read_text()
        assert (tmp_path / ERROR).read_text().splitlines()[-1].endswith(f"RuntimeError: {ranks.MESSAGE}")


def test_a_signal_to_one_rank_stops_both_and_the_same_command_goes_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if GPUS < 2:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    options = {"epochs": 2, "save_every_steps": 100, "zero_stage": 2}
    go_on(tiny, tmp_path / "whole", options, ranks=2)
    said = interrupt(tiny, tmp_path / "run", "step 2", signal.SIGUSR2, options, ranks=2, rank=1)  # they leave with 75
    assert said.count("stopped by SIGUSR2; the same command goes on from step") == 2
    assert checkpoints_of(tmp_path / "run")
    go_on(tiny, tmp_path / "run", options, ranks=2)
    ours, theirs = (load_file(tmp_path / run / "model/model.safetensors") for run in ("run", "whole"))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=2**-7, atol=1e-5)  # the export rounds to bf16
