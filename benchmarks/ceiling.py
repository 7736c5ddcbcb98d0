"""How fast this device multiplies matrices: what a training can at best reach."""

import time
from pathlib import Path
from typing import Any

TOKENS = (512, 2048, 8192)
STRETCH_S = 0.2
"""How long a product is repeated."""
REPEATS = 3
"""Stretches; the fastest counts."""


def matmul(model_dir: str) -> dict[str, Any]:
    """The best rate in bf16 over the products that the model's layers and its head are made of.

    Returns:
        `flops_per_s`; `shape`: the product `[m, k] @ [k, n]` that reached it; `device`: `CPU` or the GPU's name;
        `vendor_flops_per_s`: what its vendor states, or none.
    """
    import torch

    from sdx.models.shape import shape_in
    from sdx.training.hardware import PEAK_FLOPS, of_gpu

    shape = shape_in(Path(model_dir))
    assert shape
    h, f, v = shape.hidden_size, shape.intermediate_size, shape.vocab_size
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    best = (0.0, (0, 0, 0))
    for k, n in ((h, h), (h, f), (f, h), (h, v)):
        for m in TOKENS:
            left = torch.randn(m, k, device=device, dtype=torch.bfloat16)
            right = torch.randn(n, k, device=device, dtype=torch.bfloat16).T
            best = max(best, (2 * m * k * n / _seconds(left, right), (m, k, n)))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    stated = of_gpu(name, PEAK_FLOPS)
    return {"flops_per_s": best[0], "shape": best[1], "device": name, "vendor_flops_per_s": stated}


def _seconds(left: Any, right: Any) -> float:
    """Of one product, where they follow each other without a pause: a card slows down when it is hot."""
    import torch

    def run(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            torch.matmul(left, right)
        if left.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / count

    run(1)
    count = max(1, round(STRETCH_S / run(1)))
    return min(run(count) for _ in range(REPEATS))
