"""Models that are made once, and the figures of a session, which a GPU's file in benchmarks/gpu keeps."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from benchmarks import gpu_baseline
from benchmarks.models import random_model
from sdx.process.devices import driver_gpus
from tests.kit.gpu.machine import CUDA, DECODING, DEVICE, TRAINED, warm
from tests.kit.tiny import tiny_model, tiny_tokenizer

FOLDER = Path(__file__).parents[2] / "benchmarks/gpu"
KEPT = pytest.StashKey[dict[str, float]]()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On the CPU, where tiny matrices lose by threads."""
    threads = torch.get_num_threads()
    if not CUDA:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def warmed() -> None:
    warm(DEVICE)


@pytest.fixture(scope="session")
def space() -> Iterator[Path]:
    """A folder of gigabytes, gone with the session; `TMPDIR` moves it."""
    with TemporaryDirectory(prefix="sdx-test-gpu-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def llama(space: Path) -> Path:
    """What is trained, with a tokenizer that knows texts."""
    random_model(TRAINED, str(space / "llama"))
    tiny_tokenizer().save_pretrained(space / "llama")
    return space / "llama"


@pytest.fixture(scope="session")
def small(space: Path) -> Path:
    """What decodes: its answers differ from prompt to prompt."""
    return tiny_model(space / "small", **DECODING)


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> dict[str, float]:
    """Measured in this session, by name; see `gpu_baseline` for the names."""
    return pytestconfig.stash.setdefault(KEPT, {})


@pytest.fixture(scope="session", autouse=True)
def gpus_are_used() -> None:
    """On a machine with GPUs, tiny shapes on the CPU prove nothing."""
    hidden = "CUDA_VISIBLE_DEVICES" in os.environ
    assert CUDA or hidden or not driver_gpus(), (
        "torch sees no GPU, the driver does: torch's CUDA build does not suit it"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    figures = config.stash.get(KEPT, {})
    if figures and CUDA and exitstatus == 0:  # a card that fails is no baseline
        lines = gpu_baseline.keep(FOLDER, gpu_baseline.about(), figures)
        terminalreporter.section("figures of this GPU")
        for line in lines:
            terminalreporter.line(line, yellow=line.startswith("warning"))
