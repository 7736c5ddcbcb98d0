"""Kernels that `torch.compile` makes for the CPU, where PyTorch's own spend most of a step outside of its matmuls.

They compute what the plain functions beside them in `attention` and `loss` compute, to the rounding of the dtype.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

LONGEST = 512
"""Tokens up to which an example's attention probabilities are kept for the backward pass. Those of a longer one are
computed again, for they grow with its square."""

_enabled = False


@contextmanager
def compiling(enabled: bool) -> Iterator[None]:
    """While inside, `available` says so."""
    global _enabled
    before, _enabled = _enabled, enabled
    try:
        yield
    finally:
        _enabled = before


def available(tensor: Tensor) -> bool:
    """Whether a tensor's work is for the kernels here."""
    return _enabled and tensor.device.type == "cpu"


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)


def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of `labels` `[targets]` under `logits` `[targets, vocabulary]`, as fp32 `[targets]`.

    The logits become their own gradients.
    """
    result: Tensor = _compiled(_nll)(logits, labels)
    return result


def _nll(logits: Tensor, labels: Tensor) -> Tensor:
    scores = logits.float()
    peak = scores.amax(-1, keepdim=True)
    normaliser = peak + torch.exp(scores - peak).sum(-1, keepdim=True).log()
    result = normaliser.squeeze(-1) - scores.gather(-1, labels[:, None]).squeeze(-1)
    hit = torch.arange(logits.shape[-1], device=logits.device) == labels[:, None]
    logits.copy_(torch.exp(scores - normaliser) - hit.float())
    return result


def attention(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pairs: int, scale: float, causal: bool, window: int
) -> Tensor:
    """Attention inside each example of a pack, see `sdx.training.attention`.

    Args:
        query: `[1, heads, tokens, head_dim]`; `key` and `value` may have fewer heads, shared by groups of query heads.
        boundaries: `[examples + 1]`, int32: where an example begins and the one before it ends.
        pairs: what `kept_pairs` counts of the examples' lengths.
        window: a token sees itself and `window - 1` before it; 0: all.

    Returns:
        `[1, tokens, heads, head_dim]`
    """
    out: Tensor = _attention(query, key, value, boundaries, pairs, scale, causal, window)[0]
    return out


def kept_pairs(lengths: Sequence[int]) -> int:
    """Attention probabilities that a head keeps for the backward pass."""
    return sum(length * length for length in lengths if length <= LONGEST)


@torch.library.custom_op("sdx::attention", mutates_args=())
def _attention(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pairs: int, scale: float, causal: bool, window: int
) -> tuple[Tensor, Tensor]:
    """The output, and the probabilities of all short examples, one after the other: `[heads * pairs]`."""
    _, heads, tokens, width = query.shape
    out = query.new_empty(1, tokens, heads, width)
    kept = query.new_empty(heads * pairs)
    for q, k, v, place, room in _examples(query, key, value, boundaries, kept):
        probabilities = _probabilities(q, k, room, scale, causal, window)
        out[0, place] = (probabilities @ v).view(heads, -1, width).transpose(0, 1)
    return out, kept


@torch.library.custom_op("sdx::attention_backward", mutates_args=())
def _attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    kept: Tensor,
    boundaries: Tensor,
    scale: float,
    causal: bool,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    by_head, out_by_head = gradient.transpose(1, 2), out.transpose(1, 2)
    for q, k, v, place, probabilities in _examples(query, key, value, boundaries, kept):
        if probabilities is None:
            probabilities = _probabilities(q, k, None, scale, causal, window)
        o, g = (tensor[0, :, place].reshape(q.shape) for tensor in (out_by_head, by_head))
        scores = _compiled(_softmax_backward)(probabilities, g @ v.transpose(1, 2), o, g, scale)
        parts = scores @ k, scores.transpose(1, 2) @ q, probabilities.transpose(1, 2) @ g
        for whole, part in zip(gradients, parts, strict=True):
            whole[0, :, place] = part.view(whole.shape[1], -1, whole.shape[-1])
    return gradients


Parts = tuple[Tensor, Tensor, Tensor, slice, Tensor | None]


def _examples(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, kept: Tensor) -> Iterator[Parts]:
    """For each example: queries `[key_heads, group * length, head_dim]`, keys and values `[key_heads, length,
    head_dim]`, its tokens, and the place of its probabilities `[key_heads, group * length, length]` if they are kept.

    The query heads that share a key head are one long matrix, so that nothing is repeated.
    """
    heads, key_heads, width = query.shape[1], key.shape[1], query.shape[-1]
    at = 0
    for start, end in pairwise(boundaries.tolist()):
        place, length = slice(start, end), end - start
        q = query[0, :, place].reshape(key_heads, -1, width)
        room = None
        if length <= LONGEST:
            size = heads * length * length
            room = kept[at : at + size].view(key_heads, -1, length)
            at += size
        yield q, key[0, :, place].contiguous(), value[0, :, place].contiguous(), place, room


def _probabilities(q: Tensor, k: Tensor, room: Tensor | None, scale: float, causal: bool, window: int) -> Tensor:
    """On the shapes of `_examples`; into `room` where there is some."""
    scores = q @ k.transpose(1, 2)
    if room is None:
        room = scores.new_empty(scores.numel()).view_as(scores)  # a view like the others, or it is compiled once more
    _compiled(_softmax)(scores, room, scale, causal, window)
    return room


def visible(length: int, causal: bool, window: int, device: torch.device) -> Tensor:
    """`[length, length]`, true where the token of a row sees that of a column."""
    place = torch.arange(length, device=device)
    before = place[:, None] - place[None, :]
    seen = before >= 0 if causal else torch.ones_like(before, dtype=torch.bool)
    return seen & (before.abs() < window) if window else seen


def _softmax(scores: Tensor, probabilities: Tensor, scale: float, causal: bool, window: int) -> None:
    """Of `[key_heads, group * length, length]`, into `probabilities`."""
    length = scores.shape[-1]
    scaled = scores.float().view(len(scores), -1, length, length) * scale
    if causal or window:
        scaled = torch.where(visible(length, causal, window, scores.device), scaled, -torch.inf)
    probabilities.copy_(torch.softmax(scaled, -1).flatten(1, 2))


def _softmax_backward(
    probabilities: Tensor, gradient: Tensor, out: Tensor, out_gradient: Tensor, scale: float
) -> Tensor:
    """The gradient of the scores, from that of the probabilities and of the attention's output."""
    mean = (out_gradient.float() * out.float()).sum(-1, keepdim=True)
    return (probabilities.float() * (gradient.float() - mean) * scale).to(probabilities.dtype)


@_attention.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pairs: int, scale: float, causal: bool, window: int
) -> tuple[Tensor, Tensor]:
    _, heads, tokens, width = query.shape
    return query.new_empty(1, tokens, heads, width), query.new_empty(heads * pairs)


@_attention_backward.register_fake
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, boundaries, _, *ctx.options = inputs
    ctx.save_for_backward(query, key, value, *output, boundaries)


def _backward(ctx: Any, gradient: Tensor, _kept: Tensor) -> tuple[Tensor | None, ...]:
    return *_attention_backward(gradient, *ctx.saved_tensors, *ctx.options), None, None, None, None, None


_attention.register_autograd(_backward, setup_context=_remember)
