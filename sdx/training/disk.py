"""Disk space that a training takes in the cache. Our estimates, in bytes. Imports no torch."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from sdx.config import ShapeConfig, TrainConfig
from sdx.training.memory import MASTER_BYTES, MOMENT_BYTES, trained_parameters

KEPT = 2
"""Checkpoints that are kept; while one more is written there are three."""
EXPORT_BYTES = 2
"""Of a weight of the trained model, in bf16."""


@dataclass(frozen=True)
class Space:
    """What is needed at most.

    Args:
        checkpoint: one of `KEPT` + 1: 12 bytes a trained weight, 6 with 8-bit moments.
        model: the trained model.
    """

    checkpoint: float
    model: float

    @property
    def total(self) -> float:
        return (KEPT + 1) * self.checkpoint + self.model

    def __str__(self) -> str:
        return f"{KEPT + 1} checkpoints of {gigabytes(self.checkpoint)} and a model of {gigabytes(self.model)}"


def space(shape: ShapeConfig, train: TrainConfig) -> Space:
    """What a training of this model writes."""
    of_weight = MASTER_BYTES + MOMENT_BYTES[train.optimizer]
    return Space(of_weight * trained_parameters(shape, train), EXPORT_BYTES * shape.parameters)


def shortage(needed: Space, directory: Path) -> str:
    """What to do where the disk of a directory has too little room; empty where it has enough."""
    free = free_bytes(directory)
    if free >= needed.total:
        return ""
    return (
        f"cache_dir has {gigabytes(free)} free, and the training may write {needed}; free some or give another "
        "cache_dir: a checkpoint that finds no room is left out, and a model that finds none ends the run"
    )


def free_bytes(directory: Path) -> int:
    """Of the disk on which a directory is or will be."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.{0 if size >= 1e10 else 1}f} GB"
