"""What the acceptance tests find on this machine, and the shapes that are enough for it."""

from typing import Any

import pytest
import torch

CUDA = torch.cuda.is_available()
GPUS = torch.cuda.device_count()
DEVICE = torch.device("cuda" if CUDA else "cpu")

needs_cuda = pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
needs_two_gpus = pytest.mark.skipif(GPUS < 2, reason="needs two GPUs")

TRAINED = "llama-1b-shape" if CUDA else "tiny"
"""The shape that is trained, of `benchmarks.models.SHAPES`."""
DECODING: dict[str, Any] = (
    {
        "hidden_size": 512,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "initializer_range": 0.07,
    }
    if CUDA
    else {}
)
"""Of `tests.kit.tiny.tiny_model`: heads of 64, so that every kernel of a GPU is eligible."""
TRANSLATING: dict[str, Any] = (
    {
        "d_model": 512,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 8,
        "encoder_ffn_dim": 2048,
        "decoder_ffn_dim": 2048,
        "init_std": 0.12,
    }
    if CUDA
    else {}
)
"""Of `tests.kit.tiny.tiny_nllb`."""


def warm(device: torch.device) -> None:
    """cuBLAS keeps a workspace for the forward and one for the backward pass, which no training gives back."""
    square = torch.ones(64, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
    (square @ square).sum().backward()


def allocated_bytes() -> int:
    """By PyTorch on the current GPU, when all that can go is gone."""
    import gc

    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()
