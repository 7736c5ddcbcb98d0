"""The kernels of a step against plain PyTorch: attention over packs and the chunked loss."""

from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sdx.training import attention, kernels, loss
from tests.kit.gpu.machine import CUDA, DEVICE, needs_cuda

pytestmark = pytest.mark.gpu

LENGTHS = [700, 33, 1024, 1, 250] if CUDA else [60, 33, 90, 1]
WINDOW = 128 if CUDA else 16
ROUNDING = 0.02
"""Relative error of a bf16 result; its last bit is 0.4 %."""


def error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact).norm() / exact.norm())


def examples_alone(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int) -> Tensor:
    """Softmax by its definition, `[1, tokens, heads, head_dim]`: no kernel is trusted."""
    outs = []
    for one in zip(*(tensor.split(LENGTHS, 2) for tensor in (q, k, v)), strict=True):
        query, key, value = (tensor.repeat_interleave(q.shape[1] // tensor.shape[1], 1) for tensor in one)
        place = torch.arange(query.shape[2], device=q.device)
        before = place[:, None] - place[None, :]
        seen = (before >= 0) | (not causal)
        if window:
            seen = seen & (before.abs() < window)
        scores = (query @ key.transpose(2, 3) * q.shape[-1] ** -0.5).masked_fill(~seen, -torch.inf)
        outs.append(scores.softmax(-1) @ value)
    return torch.cat(outs, 2).transpose(1, 2)


@pytest.mark.parametrize("window", [0, WINDOW], ids=["whole", "window"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("heads", [(8, 8), (8, 2)], ids=["", "GQA"])
@pytest.mark.parametrize("width", [64, 96, 128, 256])
def test_attention_over_a_pack(
    monkeypatch: pytest.MonkeyPatch, width: int, heads: tuple[int, int], causal: bool, window: int
):
    """On CUDA by the variable-length kernel, on the CPU by sdx's own; forward and backward."""
    attention.prepare(DEVICE)
    torch.manual_seed(0)
    counts = heads[0], heads[1], heads[1]
    tensors = [torch.randn(1, count, sum(LENGTHS), width, device=DEVICE).bfloat16() for count in counts]
    exact = [tensor.double().requires_grad_() for tensor in tensors]
    ours = [tensor.requires_grad_() for tensor in tensors]
    module = torch.nn.Module()
    module.is_causal = causal
    pack: dict[str, Any] = {
        "cu_seq_lens_q": torch.tensor([0, *accumulate(LENGTHS)], dtype=torch.int32, device=DEVICE),
        "max_length_q": max(LENGTHS),
        "attention_pairs": kernels.stored_pairs(LENGTHS),
        "sliding_window": window,
    }
    # Any other way would be as exact, and is not what is tested.
    monkeypatch.setattr(attention, "_by_example", None)
    with kernels.compiling(not CUDA):
        out, _ = attention.packed_attention(module, *ours, None, **pack)
        expected = examples_alone(*exact, causal, window)
        gradient = torch.randn_like(out)
        out.backward(gradient)
    expected.backward(gradient.double())
    assert error(out, expected) < ROUNDING
    for tensor, wanted in zip(ours, exact, strict=True):
        assert error(tensor.grad, wanted.grad) < ROUNDING


@needs_cuda
@pytest.mark.parametrize("chunk", [1, 4])
def test_the_chunked_loss(monkeypatch: pytest.MonkeyPatch, chunk: int):
    """In one chunk, and in four."""
    torch.manual_seed(0)
    targets, width, vocabulary = 2048, 1024, 32_000
    monkeypatch.setattr(loss, "CHUNK_BYTES", targets // chunk * vocabulary * 2)
    hidden = torch.randn(targets, width, device=DEVICE).bfloat16().requires_grad_()
    head = (torch.randn(vocabulary, width, device=DEVICE) / width**0.5).bfloat16().requires_grad_()
    labels = torch.randint(vocabulary, (targets,), device=DEVICE)
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, head)]
    expected = cross_entropy(exact[0] @ exact[1].T, labels, reduction="sum")
    ours = loss.linear_cross_entropy(hidden, head, labels)
    assert ours.item() == pytest.approx(expected.item(), rel=5e-3)
    found, wanted = torch.autograd.grad(ours, (hidden, head)), torch.autograd.grad(expected, exact)
    for gradient, exactly in zip(found, wanted, strict=True):
        assert error(gradient, exactly) < ROUNDING
