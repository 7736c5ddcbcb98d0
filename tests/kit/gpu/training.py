"""`loop.train` in these tests: on the 1B shape on a GPU, on the tiny one without."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks.data import random_tokens
from benchmarks.models import SHAPES
from sdx.config import TrainConfig
from sdx.models.shape import shape_in
from sdx.process.ranks import world_size
from sdx.training import loop
from sdx.training.memory import Layout, training_memory
from sdx.training.objectives import CausalLM, Example
from sdx.training.trainable import TrainableLM
from tests.kit import training
from tests.kit.gpu.machine import CUDA, TRAINED, allocated_bytes
from tests.kit.training import PAD_ID, SEED

PACK_TOKENS = 2048 if CUDA else 64
OPTIONS: dict[str, Any] = {
    "batch_size": 16 if CUDA else 8,
    "learning_rate": 2e-4 if CUDA else 1e-3,
    "lora_dropout": 0.0,
    "micro_batch_tokens": PACK_TOKENS,
}
EPOCHS = 2
STEPS = 4
LEFT_BYTES = 50 * 10**6
"""What a training may leave allocated."""


@dataclass(frozen=True)
class Trained:
    """A training of `STEPS` steps; the bytes are of this rank's GPU, 0 without one."""

    losses: list[float]
    peak_bytes: float
    estimate_bytes: float
    left_bytes: int
    """What is allocated when it is over, beyond what was before."""


def examples() -> list[Example]:
    """Enough for two steps: the second epoch has learned from the first."""
    if not CUDA:
        return training.examples()
    rows = random_tokens(SHAPES[TRAINED]["vocab_size"], 2 * OPTIONS["batch_size"], PACK_TOKENS)
    return [Example(str(number), **row) for number, row in enumerate(rows)]


def train(
    model_dir: Path, out: Path, rows: Sequence[Example] | None = None, objective: Any = None, **options: Any
) -> Trained:
    """Writes the model to `out/model`.

    Args:
        options: fields of `TrainConfig` and `Layout` that are to be other than `OPTIONS` says.
    """
    rows = examples() if rows is None else rows
    options = OPTIONS | options
    config = TrainConfig(**{key: value for key, value in options.items() if hasattr(TrainConfig, key)})
    layout = Layout(**{key: value for key, value in options.items() if hasattr(Layout, key)})
    before = allocated_bytes() if CUDA else 0
    summary = loop.train(
        trainable=TrainableLM(model_dir, AutoTokenizer.from_pretrained(model_dir)),
        objective=objective or CausalLM(PAD_ID),
        examples=rows,
        out=out,
        train=config,
        layout=layout,
        epochs=EPOCHS,
        max_steps=0,
        seed=SEED,
    )
    longest = max(len(row.input_ids) for row in rows)
    shape = shape_in(model_dir)
    assert shape
    return Trained(
        losses=losses(out),
        peak_bytes=summary["peak_memory_bytes"] - before if CUDA else 0,
        estimate_bytes=training_memory(shape, config, layout, longest, world_size()).total,
        left_bytes=allocated_bytes() - before if CUDA else 0,
    )


def losses(out: Path) -> list[float]:
    """Of every step."""
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def train_and_forget(model_dir: Path, out: Path, **options: Any) -> Trained:
    """Without leaving the trained model, gigabytes, on the disk."""
    try:
        return train(model_dir, out, **options)
    finally:
        shutil.rmtree(out, ignore_errors=True)
