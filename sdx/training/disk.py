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
        models: at a time: with validation data a better one is written beside the best so far.
    """

    checkpoint: float
    model: float
    models: int = 1

    @property
    def total(self) -> float:
        return (KEPT + 1) * self.checkpoint + self.models * self.model

    def __str__(self) -> str:
        models = "a model" if self.models == 1 else f"{self.models} models"
        return f"{KEPT + 1} checkpoints of {gigabytes(self.checkpoint)} and {models} of {gigabytes(self.model)}"


def space(shape: ShapeConfig, train: TrainConfig, validated: bool) -> Space:
    """What a training of this model writes.

    Args:
        validated: the model is selected by validation data.
    """
    of_weight = MASTER_BYTES + MOMENT_BYTES[train.optimizer]
    return Space(of_weight * trained_parameters(shape, train), EXPORT_BYTES * shape.parameters, 1 + validated)


def shortage(needed: Space, directory: Path) -> str:
    """What to do where the disk of a training's directory has too little room; empty where it has enough.

    What lies there already, of a training that was interrupted, is a part of what is needed.
    """
    free = free_bytes(directory)
    there = sum(path.lstat().st_size for path in directory.rglob("*"))
    if free + there >= needed.total:
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
