"""Kernels that `torch.compile` makes for the CPU, where PyTorch's own kernels spend most of a step outside of matmuls.

But for rounding, they compute the same as the plain functions in `attention` and `loss`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch._inductor import config as inductor
from torch._inductor.cpu_vec_isa import pick_vec_isa

LONGEST = 512
"""Longest example, in tokens, whose attention probabilities are stored for the backward pass. Those of longer examples
are recomputed, because they grow with the square."""
ROUND = 64**2
"""Pairs of tokens whose attention takes as long as the calls for one more group. Measured on two cores."""

_enabled = False


def fix_width() -> None:
    """Puts the width of vectors into the keys of Inductor's cache, before anything is compiled. Otherwise, if two kinds
    of CPU share the cache or ATEN_CPU_CAPABILITY was set, code written for 256 bits would be built for 512 and give
    wrong results."""
    if inductor.cpp.simdlen is None:
        inductor.cpp.simdlen = pick_vec_isa().bit_width()


@contextmanager
def compiling(enabled: bool) -> Iterator[None]:
    """While inside, the kernels are used or not."""
    global _enabled
    if enabled:
        fix_width()
    before, _enabled = _enabled, enabled
    try:
        yield
    finally:
        _enabled = before


def available(tensor: Tensor) -> bool:
    return _enabled and tensor.device.type == "cpu"


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)


def padding_groups(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of the examples that are padded to one length, the longest of each group first.

    An example joins the next longer one if its padding costs less than the calls for another group.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if groups and lengths[groups[-1][0]] ** 2 - lengths[index] ** 2 <= ROUND:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def stored_pairs(lengths: Sequence[int]) -> int:
    """Number of attention probabilities that a head stores for the backward pass."""
    sizes = ((len(group), lengths[group[0]]) for group in padding_groups(lengths))
    return sum(examples * width**2 for examples, width in sizes if width <= LONGEST)


# Compiled graphs in the cache on the disk call these operators by name: another signature needs another name.
@torch.library.custom_op("sdx::packed_attention", mutates_args=())
def attention(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pairs: int, scale: float, causal: bool, window: int
) -> tuple[Tensor, Tensor]:
    """Attention inside each example of a pack, see `sdx.training.attention`.

    Args:
        query: `[1, heads, tokens, head_dim]`; `key` and `value` may have fewer heads, shared by groups of query heads.
        boundaries: `[examples + 1]`, int32: where each example begins, and the end of the last.
        pairs: `stored_pairs` of the examples' lengths.
        window: a token sees itself and `window - 1` tokens before it; 0: all.

    Returns:
        The output `[1, tokens, heads, head_dim]`, and the probabilities of short examples, by group: `[heads * pairs]`.
    """
    _, heads, tokens, width = query.shape
    out = query.new_empty(1, tokens, heads, width)
    stored = query.new_empty(heads * pairs)
    for group, storage in _groups(boundaries, stored, heads, key.shape[1]):
        q, k, v = (_rows(tensor, group, key.shape[1]) for tensor in (query, key, value))
        probabilities = _probabilities(q, k, group, storage, scale, causal, window)
        out[0, group.tokens] = _tokens(probabilities @ v, group)
    return out, stored


@torch.library.custom_op("sdx::packed_attention_backward", mutates_args=())
def _attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    stored: Tensor,
    boundaries: Tensor,
    scale: float,
    causal: bool,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    tensors = gradient.transpose(1, 2), query, key, value
    for group, storage in _groups(boundaries, stored, query.shape[1], key.shape[1]):
        g, q, k, v = (_rows(tensor, group, key.shape[1]) for tensor in tensors)
        probabilities = _probabilities(q, k, group, None, scale, causal, window) if storage is None else storage
        scores = compiled(_softmax_backward)(probabilities, g @ v.transpose(1, 2), scale)
        parts = scores @ k, scores.transpose(1, 2) @ q, probabilities.transpose(1, 2) @ g
        for whole, part in zip(gradients, parts, strict=True):
            whole[0].transpose(0, 1)[group.tokens] = _tokens(part, group)
    return gradients


@dataclass(frozen=True)
class _Group:
    """Examples of a pack as rows of the same width.

    Args:
        lengths: `[examples]`
        slots: `[examples, width]`, the token of the pack in each slot; padding repeats the last token of an example.
        real: `[examples, width]`, the slots that are not padding.
        tokens: `[tokens]` of the pack, in the order of these slots.
    """

    lengths: Tensor
    slots: Tensor
    real: Tensor
    tokens: Tensor


@lru_cache(maxsize=4)  # all layers have the same pack
def _padded(boundaries: tuple[int, ...]) -> list[_Group]:
    sizes = [end - start for start, end in pairwise(boundaries)]
    groups = []
    for group in padding_groups(sizes):
        starts, lengths = (torch.tensor([values[index] for index in group])[:, None] for values in (boundaries, sizes))
        column = torch.arange(sizes[group[0]])
        slots, real = starts + torch.minimum(column, lengths - 1), column < lengths
        groups.append(_Group(lengths.squeeze(1), slots, real, slots[real]))
    return groups


def _groups(boundaries: Tensor, stored: Tensor, heads: int, key_heads: int) -> Iterator[tuple[_Group, Tensor | None]]:
    """Each group, and the storage of its probabilities, shaped as in `_probabilities`, if they are stored."""
    offset = 0
    for group in _padded(tuple(boundaries.tolist())):
        examples, width = group.slots.shape
        size = heads * examples * width**2 if width <= LONGEST else 0
        yield group, stored[offset : offset + size].view(examples * key_heads, -1, width) if size else None
        offset += size


def _rows(tensor: Tensor, group: _Group, key_heads: int) -> Tensor:
    """`[1, heads, tokens, head_dim]` -> `[examples * key_heads, heads_per_key * width, head_dim]`.

    The query heads that share a key head become one long matrix, so that no key is repeated.
    """
    examples, width = group.slots.shape
    rows = tensor[0].transpose(0, 1)[group.slots].view(examples, width, key_heads, -1, tensor.shape[-1])
    return rows.permute(0, 2, 3, 1, 4).reshape(examples * key_heads, -1, tensor.shape[-1])


def _tokens(rows: Tensor, group: _Group) -> Tensor:
    """The reverse of `_rows`, without padding: `[tokens, heads, head_dim]`."""
    examples, width = group.slots.shape
    return rows.view(examples, -1, width, rows.shape[-1]).transpose(1, 2)[group.real]


def _probabilities(
    q: Tensor, k: Tensor, group: _Group, out: Tensor | None, scale: float, causal: bool, window: int
) -> Tensor:
    """`[examples * key_heads, heads_per_key * width, width]`, in `out` if given."""
    scores = q @ k.transpose(1, 2)
    if out is None:
        out = scores.new_empty(scores.numel()).view(scores.shape)  # a view, as storage is: compiled only once
    compiled(_softmax)(scores, group.lengths, out, scale, causal, window)
    return out


def visible(length: int, causal: bool, window: int, device: torch.device) -> Tensor:
    """`[length, length]`, true if the token of the row sees the token of the column."""
    position = torch.arange(length, device=device)
    before = position[:, None] - position[None, :]
    seen = before >= 0 if causal else torch.ones_like(before, dtype=torch.bool)
    return seen & (before.abs() < window) if window else seen


def _softmax(scores: Tensor, lengths: Tensor, probabilities: Tensor, scale: float, causal: bool, window: int) -> None:
    """Of `[examples * key_heads, heads_per_key * width, width]`. Padding sees padding, so that no row is empty, and is
    then given probability 0, so that it adds nothing to the backward pass."""
    width = scores.shape[-1]
    real = torch.arange(width, device=scores.device) < lengths[:, None]
    seen = real[:, None, :] | ~real[:, :, None]
    if causal or window:
        seen = seen & visible(width, causal, window, scores.device)
    scaled = torch.where(seen[:, None], scores.float().view(len(lengths), -1, width, width) * scale, -torch.inf)
    shares = torch.where(real[:, None, :, None], torch.softmax(scaled, -1), 0.0)
    probabilities.copy_(shares.view(scores.shape))


def _softmax_backward(probabilities: Tensor, gradient: Tensor, scale: float) -> Tensor:
    """The gradient of the scores, from that of the probabilities."""
    parts = probabilities.float() * gradient.float()
    return ((parts - probabilities.float() * parts.sum(-1, keepdim=True)) * scale).to(probabilities.dtype)


@attention.register_fake
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
    ctx.save_for_backward(query, key, value, output[1], boundaries)


def _differentiate(ctx: Any, gradient: Tensor, _stored: Tensor) -> tuple[Tensor | None, ...]:
    return *_attention_backward(gradient, *ctx.saved_tensors, *ctx.options), None, None, None, None, None


attention.register_autograd(_differentiate, setup_context=_remember)
