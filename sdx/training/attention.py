"""Attention over packs: examples laid end to end in one row, none of which sees another.

Three ways, all of them exact:

    varlen        CUDA in bf16: PyTorch's variable-length attention, with FlashAttention 3 if it is installed
    kernels       CPU with `engine.compile`: `sdx.training.kernels`
    by example    everything else: PyTorch's attention on one example after the other

A dense mask over the pack would be a fourth; it computes and discards what examples would see of each other.
"""

import inspect
from contextlib import suppress
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import attention as torch_attention
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from sdx.training import kernels

PACKED = "sdx_packed"
"""The name of `packed_attention` in transformers."""
HALF = (torch.bfloat16, torch.float16)
TAKES_GROUPS = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""Whether keys may have fewer heads than queries, as from torch 2.12 on."""

_varlen_runs = _flash_3 = False


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    attention_pairs: int,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_ignored: Any,
) -> tuple[Tensor, None]:
    """The attention of every layer of a transformers model, which passes on the tensors of `packing.join`.

    Args:
        query: `[1, heads, tokens, head_dim]`; `key` and `value` may have fewer heads, shared by groups of query heads.
        cu_seq_lens_q: `[examples + 1]`, int32: where each example begins, and the end of the last.
        max_length_q: tokens of the longest example.
        attention_pairs: see `kernels.stored_pairs`.

    Returns:
        `[1, tokens, heads, head_dim]`

    Raises:
        NotImplementedError: the model needs more than this attention has; `engine.takes_packs` finds out in time.
    """
    if attention_mask is not None or softcap is not None or s_aux is not None:
        raise NotImplementedError("masks, soft-capped scores and attention sinks")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    width = query.shape[-1]
    options = width**-0.5 if scaling is None else scaling, causal, sliding_window or 0
    fits = query.is_cuda and query.dtype in HALF and width <= 256 and width % 8 == 0  # what the CUDA kernels take
    if _varlen_runs and fits and not dropout:
        out = _varlen(query, key, value, cu_seq_lens_q, max_length_q, *options)
    elif kernels.available(query) and not dropout:
        out = kernels.attention(query, key, value, cu_seq_lens_q, attention_pairs, *options)[0]
    else:
        out = _by_example(query, key, value, cu_seq_lens_q, *options, dropout)
    return out, None


AttentionInterface.register(PACKED, packed_attention)


def prepare(device: torch.device, varlen: bool = True) -> bool:
    """Chooses the way of attention, on every rank, before the first pack.

    Returns whether it is variable-length attention, which `varlen` permits. On a Hopper GPU, PyTorch is told to call
    FlashAttention 3 if its package is installed.
    """
    global _varlen_runs, _flash_3
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    _varlen_runs = varlen and capability >= (8, 0)  # Ampere
    if capability == (9, 0) and not _flash_3 and find_spec("flash_attn_interface"):
        with suppress(AttributeError, ImportError, RuntimeError, ValueError):  # of another version
            torch_attention.activate_flash_attention_impl("FA3")
            _flash_3 = True
    return _varlen_runs


def describe(device: torch.device, dtype: torch.dtype) -> str:
    """The chosen way of attention, for the log."""
    if _varlen_runs and dtype in HALF:
        return f"variable-length attention{' by FlashAttention 3' if _flash_3 else ''}"
    return "attention by example" + (", compiled" if kernels.available(torch.empty(0, device=device)) else "")


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, longest: int, scale: float, causal: bool, window: int
) -> Tensor:
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    options: dict[str, Any] = {}
    if q.shape[1] != k.shape[1]:
        if TAKES_GROUPS:
            options["enable_gqa"] = True
        else:
            k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], 1) for tensor in (k, v))
    reach = window - 1 if window else -1
    options |= {"scale": scale, "window_size": (reach, 0 if causal else reach)}
    out: Any = varlen_attn(q, k, v, boundaries, boundaries, longest, longest, **options)
    result: Tensor = out[None]
    return result


def _by_example(
    q: Tensor, k: Tensor, v: Tensor, boundaries: Tensor, scale: float, causal: bool, window: int, dropout: float
) -> Tensor:
    lengths = [end - start for start, end in pairwise(boundaries.tolist())]
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scale, "enable_gqa": q.shape[1] != k.shape[1]}
    outs = []
    for length, *example in zip(lengths, *(torch.split(tensor, lengths, 2) for tensor in (q, k, v)), strict=True):
        mask = kernels.visible(length, causal, window, q.device) if 0 < window < length else None
        options |= {"attn_mask": mask, "is_causal": causal and mask is None}
        outs.append(scaled_dot_product_attention(*example, **options))
    return torch.cat(outs, 2).transpose(1, 2)
