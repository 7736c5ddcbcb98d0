"""Three ways to the same loss and its gradients, and what each costs."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.measure import peak_bytes, wait_for_device

if TYPE_CHECKING:
    from torch import Tensor

REPEATS = 3
"""Timed after the run whose memory counts; the median is shown."""


def full(hidden: "Tensor", weight: "Tensor", labels: "Tensor") -> "Tensor":
    """All logits `[targets, vocabulary]` at once, in fp32."""
    from torch.nn.functional import cross_entropy, linear

    return cross_entropy(linear(hidden, weight).float(), labels, reduction="sum")


def sdx(hidden: "Tensor", weight: "Tensor", labels: "Tensor") -> "Tensor":
    """What sdx trains with."""
    from sdx.training.loss import linear_cross_entropy

    return linear_cross_entropy(hidden, weight, labels)


def torch_chunked(hidden: "Tensor", weight: "Tensor", labels: "Tensor") -> "Tensor":
    """torch's own (2.13 and later), in chunks of its choice."""
    from torch.nn import LinearCrossEntropyOptions
    from torch.nn.functional import linear_cross_entropy

    return linear_cross_entropy(hidden, weight, labels, reduction="sum", options=LinearCrossEntropyOptions())


LOSSES: dict[str, Callable[["Tensor", "Tensor", "Tensor"], "Tensor"]] = {
    "full logits": full,
    "sdx": sdx,
    "torch, chunked": torch_chunked,
}


def measure(name: str, targets: int, hidden: int, vocabulary: int) -> dict[str, Any]:
    """One loss on this process' device.

    Returns:
        `bytes`: the most memory beyond what was there before, gradients included; `seconds` of forward and backward;
        `loss` per target; `gradient`: norm of the weights' gradient; `device`.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    states = torch.randn(targets, hidden, device=device).bfloat16().requires_grad_()
    weight = (torch.randn(vocabulary, hidden, device=device) * hidden**-0.5).bfloat16().requires_grad_()
    labels = torch.randint(vocabulary, (targets,), device=device)

    def once() -> tuple[float, float]:
        states.grad = weight.grad = None
        wait_for_device()
        began = time.perf_counter()
        loss = LOSSES[name](states, weight, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        wait_for_device()
        return time.perf_counter() - began, float(loss)

    before = _fresh_peak()
    _, loss = once()
    used = peak_bytes() - before
    assert weight.grad is not None
    return {
        "bytes": used,
        "seconds": median(once()[0] for _ in range(REPEATS)),
        "loss": loss / targets,
        "gradient": float(weight.grad.float().norm()),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
    }


def _fresh_peak() -> int:
    """Forgets the peak so far; what is in use now, in bytes."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark falls to what is resident
    return peak_bytes()
