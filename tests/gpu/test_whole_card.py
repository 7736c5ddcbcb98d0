"""A training and then, in the same process, a batch of answers that takes all of the card: as a run of sdx does."""

from pathlib import Path

import pytest
import torch

from sdx.config import Precision
from sdx.generation import decode as decoding
from sdx.models.backbone import load_model
from tests.kit.gpu.machine import CUDA, allocated_bytes
from tests.kit.gpu.training import train

pytestmark = pytest.mark.gpu

GIB = 2**30
PROMPT_TOKENS, NEW_TOKENS = (2048, 4) if CUDA else (32, 4)
FEW_ROWS = 4
FILLED = 0.85
"""Of what is free: the rest is for fragments."""
KEPT_BYTES = GIB
"""What a first training may leave on the card outside of PyTorch's allocator: kernels, NCCL, DeepSpeed."""


def decode(model_dir: Path, rows: int) -> tuple[list[list[int]], int]:
    """Answers of a batch, and the most bytes allocated for them, without the model's."""
    model = load_model(model_dir, Precision.bf16)
    before = 0
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
        before = allocated_bytes()
    prompts = [[5 + (row + place) % 390 for place in range(PROMPT_TOKENS)] for row in range(rows)]
    answers = decoding.decode(model, prompts, lambda answer: False, 3, [NEW_TOKENS] * rows)
    return answers, torch.cuda.max_memory_allocated() - before if CUDA else 0


def free_bytes() -> int:
    """On the card."""
    allocated_bytes()  # drops what nothing refers to
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def test_answers_have_the_whole_card_after_a_training(llama: Path, space: Path):
    expected, few = decode(llama, FEW_ROWS)
    rows, free = 4 * FEW_ROWS, 0
    if CUDA:
        _, more = decode(llama, 2 * FEW_ROWS)
        free = free_bytes()
        model_bytes = sum(file.stat().st_size for file in llama.glob("*.safetensors"))
        rows = int((FILLED * free - model_bytes) / ((more - few) / FEW_ROWS))
    train(llama, space / "whole")
    if CUDA:
        assert free_bytes() >= free - KEPT_BYTES
    answers, peak = decode(space / "whole/model", rows)
    assert [len(answer) for answer in answers] == [NEW_TOKENS] * rows
    assert answers[:FEW_ROWS] != expected, "the training changed nothing"
    if CUDA:
        assert peak > 0.75 * free, "the batch does not fill the card"
