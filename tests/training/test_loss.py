"""The chunked loss against the full logits."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sdx.training import kernels, loss
from sdx.training.loss import linear_cross_entropy

TARGETS, WIDTH, VOCABULARY = 23, 16, 70


def data(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden, weight = torch.randn(TARGETS, WIDTH), torch.randn(VOCABULARY, WIDTH)
    labels = torch.randint(0, VOCABULARY, (TARGETS,))
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), labels


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_value_and_gradients_are_those_of_full_logits(rows: int, compiled: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", rows * VOCABULARY * 4)
    hidden, weight, labels = data(torch.float32)
    expected = cross_entropy(hidden @ weight.T, labels, reduction="sum")
    wanted = torch.autograd.grad(expected * 0.3, (hidden, weight))
    with kernels.compiling(compiled):
        ours = linear_cross_entropy(hidden, weight, labels)
        found = torch.autograd.grad(ours * 0.3, (hidden, weight))
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("compiled", [False, True])
def test_bf16_chunks_add_up_in_fp32(compiled: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", VOCABULARY * 2)
    hidden, weight, labels = data(torch.bfloat16)
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    expected = cross_entropy(exact[0] @ exact[1].T, labels, reduction="sum")
    wanted = torch.autograd.grad(expected, exact)
    with kernels.compiling(compiled):
        ours = linear_cross_entropy(hidden, weight, labels)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(expected.item(), rel=5e-3)
    for found, gradient in zip(torch.autograd.grad(ours, (hidden, weight)), wanted, strict=True):
        assert (found - gradient).norm() < 0.01 * gradient.norm()


def test_a_frozen_head_gets_no_gradient():
    hidden, weight, labels = data(torch.float32)
    frozen = weight.detach()
    ours = linear_cross_entropy(hidden, frozen, labels)
    [found] = torch.autograd.grad(ours, hidden)
    [wanted] = torch.autograd.grad(cross_entropy(hidden @ frozen.T, labels, reduction="sum"), hidden)
    torch.testing.assert_close(found, wanted)
