"""How fast a training is, measured without waiting for the device in each step.

useful tokens/s     tokens of examples, without padding, over all ranks
model FLOP/s        (6 body tokens + 6 head targets) / s; 4 instead of 6 with LoRA, because frozen weights get no
                    gradient. body: parameters without the embeddings; head: parameters of the output embedding, which
                    is applied to targets alone. The products of attention are left out, and so is the recomputation of
                    activation checkpointing.
MFU                 model FLOP/s over the devices' peak
data wait           share of the time in which the loop makes batches and does nothing else
checkpoint seconds  time spent writing checkpoints; it counts as training time in the figures above, validation does not
padding             share of the computed tokens that are padding
"""

import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from sdx.process.ranks import world_size
from sdx.training.hardware import PEAK_FLOPS, of_gpu


@dataclass(frozen=True)
class Cost:
    """FLOPs of training a model."""

    per_token: float
    per_target: float

    @classmethod
    def of(cls, model: Any) -> "Cost":
        """Of a causal LM, see the module's text. Sharded weights count whole."""
        factor = 6.0 if all(weight.requires_grad for weight in model.parameters()) else 4.0
        sizes = {weight: getattr(weight, "ds_numel", weight.numel()) for weight in model.parameters()}
        head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        body = sum(size for weight, size in sizes.items() if weight is not head and weight is not embedding)
        return cls(factor * body, factor * sizes[head])


class Meter:
    """What happened since the last log line. The sums stay on the device, because reading them waits for the device.

    `losses` names the loss of each kind of batch in the log; the head is applied to the targets of the first.
    """

    def __init__(self, device: torch.device, cost: Cost, losses: Sequence[str] = ("loss",)) -> None:
        self.device = device
        self.cost = cost
        self.losses = losses
        self.peak = of_gpu(torch.cuda.get_device_name(device), PEAK_FLOPS) if device.type == "cuda" else None
        self.total_s: dict[str, float] = defaultdict(float)
        """Seconds of each kind of work since the beginning, see `timed`."""
        self._restart()

    def _restart(self) -> None:
        self.sums = torch.zeros(len(self.losses), 2, dtype=torch.float64, device=self.device)
        self.tokens = self.computed = self.checkpoint_bytes = 0
        self.targets = [0] * len(self.losses)
        self.spent_s: dict[str, float] = defaultdict(float)
        self.began = time.monotonic()

    def add(self, loss: Tensor, count: Tensor, kind: int = 0) -> None:
        """Adds a micro-batch of this rank."""
        self.sums[kind] += torch.stack([loss, count])

    def count(self, tokens: int, targets: int, computed: int, kind: int = 0) -> None:
        """Adds a global batch: tokens of its examples, targets, and tokens computed."""
        self.tokens += tokens
        self.targets[kind] += targets
        self.computed += computed

    @contextmanager
    def timed(self, work: str) -> Iterator[None]:
        """Counts the seconds of the block as a kind of work: "batch", "checkpoint" or "validation"."""
        if work != "batch" and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # what the device still has to do is training
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.spent_s[work] += seconds
        self.total_s[work] += seconds

    def read(self, grad_norm: Tensor | float) -> "Reading":
        """What happened since the last call. Called on every rank."""
        dist.all_reduce(self.sums)
        seconds = time.monotonic() - self.began - self.spent_s["validation"]
        flops = self.cost.per_token * self.tokens + self.cost.per_target * self.targets[0]
        row = {
            "useful_tokens_per_s": round(self.tokens / seconds, 1),
            "model_flops_per_s": round(flops / seconds),
            "padding_share": round(1 - self.tokens / self.computed, 4),
            "data_wait_share": round(self.spent_s["batch"] / seconds, 4),
            "peak_memory_bytes": peak_memory_bytes(self.device),
        }
        if "checkpoint" in self.spent_s:
            row["checkpoint_seconds"] = round(self.spent_s["checkpoint"], 3)
            row["checkpoint_bytes"] = self.checkpoint_bytes
        if self.peak:
            row["mfu"] = round(flops / seconds / world_size() / self.peak, 4)
        norm = torch.as_tensor(grad_norm, dtype=torch.float64, device=self.device)
        sums = torch.cat([self.sums.flatten(), norm.reshape(1)])
        reading = Reading(row, dict(zip(self.losses, self.targets, strict=True)), sums)
        if sums.is_cuda:
            reading.sums = torch.empty(sums.shape, dtype=sums.dtype, pin_memory=True).copy_(sums, non_blocking=True)
            reading.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            reading.copied.record()
        self._restart()
        return reading


@dataclass
class Reading:
    """Figures that are known, and sums that may still be on their way from the device."""

    known: dict[str, Any]
    targets: dict[str, int]
    sums: Tensor
    """Loss and count of each kind of batch, and the gradient's norm."""
    copied: torch.cuda.Event | None = None
    """On CUDA, happens when `sums` has arrived."""

    def row(self) -> dict[str, Any]:
        """The figures, with `grad_norm` and the loss of each kind of batch, per target over all ranks."""
        if self.copied:
            self.copied.synchronize()
        *sums, norm = self.sums.tolist()
        losses = {}
        for (name, targets), loss, count in zip(self.targets.items(), sums[::2], sums[1::2], strict=True):
            assert count == targets, f"the objective counted {count} targets of {targets}"
            if targets:
                losses[name] = loss / count
        return {**losses, "grad_norm": norm, **self.known}


def peak_memory_bytes(device: torch.device) -> int:
    """Of this process so far: allocated on CUDA, resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
