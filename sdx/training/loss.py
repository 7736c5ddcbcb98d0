"""Cross-entropy of a linear head without the full logits.

The chunked kernel of PyTorch 2.13 is not used: in bf16, it returns the sum and adds up the weight's gradient over the
chunks in bf16, too coarse for thousands of targets; on a CPU it is slower than full logits.
"""

from typing import Any

import torch
from torch import Tensor

from sdx.training import kernels
from sdx.training.memory import LOSS_CHUNK_BYTES as CHUNK_BYTES


def linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Sum over the targets of the negative log-likelihood in nats, a scalar in fp32.

    The gradients are computed in the forward pass, chunk by chunk, in the memory of the logits. Shapes: hidden
    `[targets, width]`, the head's weight `[vocabulary, width]`, labels `[targets]`.
    """
    loss: Tensor = _Chunked.apply(hidden, weight, labels)  # type: ignore[no-untyped-call]
    return loss


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        rows = max(1, CHUNK_BYTES // (weight.shape[0] * weight.element_size()))
        chunks = [slice(start, start + rows) for start in range(0, len(labels), rows)]
        nll = kernels.compiled(_nll) if kernels.available(hidden) else _nll
        loss = torch.zeros((), device=hidden.device)
        wanted = ctx.needs_input_grad
        of_hidden = torch.empty_like(hidden) if wanted[0] else None
        of_weight: Tensor | None = None
        for chunk in chunks:
            logits = hidden[chunk] @ weight.T
            loss += nll(logits, labels[chunk]).sum()
            if of_hidden is not None:
                torch.mm(logits, weight, out=of_hidden[chunk])
            if wanted[1]:
                # bf16 would lose what the chunks after the first add.
                part = logits.T @ hidden[chunk]
                of_weight = part if of_weight is None else of_weight.float().add_(part)
        ctx.save_for_backward(of_hidden, None if of_weight is None else of_weight.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_hidden, of_weight = ctx.saved_tensors
        return *(None if part is None else part.mul_(gradient) for part in (of_hidden, of_weight)), None


def _nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of `labels` `[targets]` under `logits` `[targets, vocabulary]`, as fp32 `[targets]`.

    The logits become their own gradients.
    """
    scores = torch.log_softmax(logits.float(), -1)
    result = -scores.gather(-1, labels[:, None]).squeeze(-1)
    logits.copy_(scores.exp_())
    logits[torch.arange(len(labels), device=logits.device), labels] -= 1.0
    return result
