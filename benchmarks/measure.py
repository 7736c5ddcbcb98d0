"""What a run of one contestant is, and what is measured of it."""

import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data import Row
from sdx.config import Adapter, Optimizer, TrainConfig

LEARNING_RATE = 2e-5

PROBE_TOKENS = 24
"""Length of the two examples with which it is tried whether one sees the other."""
SEEN = 1e-5
"""Relative change of an example's loss above which it has seen its neighbour; a blind one's does not change at all."""


@dataclass(frozen=True)
class Job:
    """What every contestant is given; JSON.

    Args:
        data: file of rows, see `benchmarks.data.Row`.
        adapter, optimizer: as in `TrainConfig`.
        batch_size: examples per optimizer step.
        warmup_steps, steps: optimizer steps before the measurement, and in it.
        seed: of the order of the examples.
        tokens: of a pack, for the contestants that pack.
    """

    model_dir: str
    data: str
    adapter: str
    optimizer: str
    batch_size: int
    warmup_steps: int
    steps: int
    seed: int
    tokens: int

    def rows(self) -> list[Row]:
        rows: list[Row] = json.loads(Path(self.data).read_text(encoding="utf-8"))
        return rows

    def train_config(self) -> TrainConfig:
        """sdx's, from which the peers take learning rate and adapters."""
        return TrainConfig(
            adapter=Adapter(self.adapter),
            optimizer=Optimizer(self.optimizer),
            batch_size=self.batch_size,
            learning_rate=LEARNING_RATE,
            keep_groups=False,
            save_every_minutes=0.0,
        )


class Clock:
    """Wall time and useful tokens of one run's optimizer steps.

    Waits for the device twice and not in between, so that a contestant that runs ahead of it may do so.
    """

    def __init__(self) -> None:
        self.stamps = [time.perf_counter()]
        self.counts: list[tuple[int, int]] = []
        self.useful = self.computed = 0
        self.peak_bytes = 0

    def count(self, useful: int, computed: int) -> None:
        """A micro-batch: tokens of its examples, and positions with padding."""
        self.useful += useful
        self.computed += computed

    def lap(self) -> None:
        """To be called when the first step begins, when the warm-up has ended, and when the last step has."""
        wait_for_device()
        self.stamps.append(time.perf_counter())
        self.counts.append((self.useful, self.computed))
        self.useful = self.computed = 0
        self.peak_bytes = peak_bytes()

    def result(self) -> dict[str, Any]:
        """`tokens` in `seconds` after the warm-up; `setup_s` before the first step; `peak_bytes`.

        `compile_s` is how much longer the warm-up took than its tokens take afterwards, `padding` the share of the
        measured positions that was no token.
        """
        created, began, warm, ended = self.stamps
        _, (warmup_tokens, _), (tokens, computed) = self.counts
        seconds = ended - warm
        return {
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_s": tokens / seconds,
            "setup_s": began - created,
            "compile_s": max(0.0, warm - began - warmup_tokens * seconds / tokens),
            "peak_bytes": self.peak_bytes,
            "padding": 1 - tokens / computed,
        }


def isolated(loss: Callable[[list[int], list[int]], float]) -> bool:
    """Whether an example's loss is the same whatever stands before it in the same micro-batch.

    Args:
        loss: of the second example's tokens alone, where both are in one micro-batch.
    """
    first, other = list(range(30, 30 + PROBE_TOKENS)), list(range(90, 90 - PROBE_TOKENS, -1))
    second = list(range(40, 40 + 2 * PROBE_TOKENS, 2))
    one, two = loss(first, second), loss(other, second)
    return abs(one - two) <= SEEN * abs(one)


def peak_bytes() -> int:
    """The most memory so far: allocated on CUDA, resident on the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return high_water_bytes()


def high_water_bytes() -> int:
    """The most resident memory of this process since it began."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had when it forked
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def wait_for_device() -> None:
    """Until the GPU has done all that it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
