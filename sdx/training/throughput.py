"""How fast a training is, seen without waiting for the device in each step.

useful tokens/s     tokens of examples, without padding, over all ranks
model FLOP/s        (6 body tokens + 6 head targets) / s; 4 in place of 6 with LoRA, whose frozen weights get no
                    gradient. body: parameters without the embeddings; head: those of the output embedding, which
                    is applied to targets alone. Attention's own products are left out, and so is what activation
                    checkpointing computes again.
MFU                 model FLOP/s over the devices' peak
data wait           share of the time in which the loop makes batches and does nothing else
checkpoint seconds  of the time in which checkpoints were written, where there were any; they make a training slower,
                    and so they count in the figures above, unlike validation
padding             share of the computed tokens that are not of an example
"""

import resource
import time
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


@dataclass
class Span:
    """A piece of work: how long it took and, of a checkpoint, how much was written."""

    seconds: float = 0.0
    bytes: int = 0


class Meter:
    """What happened since the last log line. The sums stay on the device, for reading them waits for it.

    Args:
        losses: names of the losses in the log, one for each kind of batch; the head is applied to the targets of the
            first.
    """

    def __init__(self, device: torch.device, cost: Cost, losses: Sequence[str] = ("loss",)) -> None:
        self.device = device
        self.cost = cost
        self.losses = losses
        self.sums = torch.zeros(len(losses), 2, dtype=torch.float64, device=device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self.peak = of_gpu(name, PEAK_FLOPS)
        self._restart()

    def _restart(self) -> None:
        self.sums = torch.zeros_like(self.sums)
        self.tokens = self.computed = 0
        self.targets = [0] * len(self.losses)
        self.waited = 0.0
        self.saved: list[Span] = []
        self.began = time.monotonic()

    def add(self, loss: Tensor, count: Tensor, kind: int = 0) -> None:
        """One micro-batch of this rank."""
        self.sums[kind] += torch.stack([loss, count])

    def count(self, tokens: int, targets: int, computed: int, kind: int = 0) -> None:
        """One global batch: tokens of its examples, targets, and tokens computed."""
        self.tokens += tokens
        self.targets[kind] += targets
        self.computed += computed

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the making of a batch."""
        began = time.monotonic()
        yield
        self.waited += time.monotonic() - began

    @contextmanager
    def pause(self) -> Iterator["Span"]:
        """Leaves what is done inside out of the speed. What the device still has to do is not inside."""
        with self._span() as span:
            yield span
        self.began += span.seconds

    @contextmanager
    def saving(self) -> Iterator["Span"]:
        """Around the writing of a checkpoint, which counts as training."""
        with self._span() as span:
            yield span
        self.saved.append(span)

    @contextmanager
    def _span(self) -> Iterator["Span"]:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        span, began = Span(), time.monotonic()
        yield span
        span.seconds = time.monotonic() - began

    def read(self, grad_norm: Tensor | float) -> "Reading":
        """What happened, and starts anew. On every rank."""
        dist.all_reduce(self.sums)
        seconds = time.monotonic() - self.began
        flops = self.cost.per_token * self.tokens + self.cost.per_target * self.targets[0]
        row = {
            "useful_tokens_per_s": round(self.tokens / seconds, 1),
            "model_flops_per_s": round(flops / seconds),
            "padding_share": round(1 - self.tokens / self.computed, 4),
            "data_wait_share": round(self.waited / seconds, 4),
            "peak_memory_bytes": peak_memory_bytes(self.device),
        }
        if self.saved:
            row["checkpoint_seconds"] = round(sum(span.seconds for span in self.saved), 3)
            row["checkpoint_bytes"] = sum(span.bytes for span in self.saved)
        if self.peak:
            row["mfu"] = round(flops / seconds / world_size() / self.peak, 4)
        norm = torch.as_tensor(grad_norm, dtype=torch.float64, device=self.device)
        targets = dict(zip(self.losses, self.targets, strict=True))
        reading = Reading(row, targets, torch.cat([self.sums.flatten(), norm.reshape(1)]))
        self._restart()
        return reading


class Reading:
    """Figures that are known, and some that are still on their way from the device."""

    def __init__(self, row: dict[str, Any], targets: dict[str, int], sums: Tensor) -> None:
        self._row = row
        self._targets = targets
        self._copied = torch.cuda.Event() if sums.is_cuda else None  # type: ignore[no-untyped-call]
        self._values = sums
        if self._copied:
            self._values = torch.empty(sums.shape, dtype=sums.dtype, pin_memory=True)
            self._values.copy_(sums, non_blocking=True)
            self._copied.record()

    @property
    def arrived(self) -> bool:
        """Whether `row` has nothing to wait for, as on the CPU."""
        return self._copied is None

    def row(self) -> dict[str, Any]:
        """With the loss of each kind of batch that there was, per target over all ranks, and `grad_norm`; waits for
        them."""
        if self._copied:
            self._copied.synchronize()
        *sums, norm = self._values.tolist()
        losses = {}
        for (name, targets), loss, count in zip(self._targets.items(), sums[::2], sums[1::2], strict=True):
            assert count == targets, f"the objective counted {count} targets of {targets}"
            if targets:
                losses[name] = loss / count
        return {**losses, "grad_norm": norm, **self._row}


def peak_memory_bytes(device: torch.device) -> int:
    """Of this process so far: allocated on CUDA, resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
