"""Disk space that a training takes in the cache. Our estimates, in bytes. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from sdx import InputError
from sdx.config import ShapeConfig, TrainConfig
from sdx.process.disk import free_bytes
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


def space(shape: ShapeConfig, train: TrainConfig, validated: bool, whole: bool = True) -> Space:
    """What a training of this model writes.

    Args:
        validated: the model is selected by validation data.
        whole: the trained model is written with the weights that were not trained.
    """
    trained = trained_parameters(shape, train)
    model = EXPORT_BYTES * shape.parameters if whole else MASTER_BYTES * trained
    return Space((MASTER_BYTES + MOMENT_BYTES[train.optimizer]) * trained, model, 1 + validated)


def shortage(needed: Space, directory: Path) -> str:
    """What to do where the disk of a training's directory has too little room; empty where it has enough.

    What lies there already, of a training that was interrupted, is a part of what is needed.

    Raises:
        InputError: not even the trained model will have room.
    """
    free = free_bytes(directory)
    room = free + sum(path.lstat().st_size for path in directory.rglob("*"))
    if room >= needed.total:
        return ""
    fix = "free some or give another cache_dir"
    if room < needed.model:
        raise InputError(
            f"cache_dir has {gigabytes(free)} free for {directory}, and the trained model alone takes "
            f"{gigabytes(needed.model)}; {fix}"
        )
    return (
        f"cache_dir has {gigabytes(free)} free, and the training may write {needed}; {fix}: a checkpoint that finds "
        "no room is left out, and a model that finds none waits for it"
    )


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.{0 if size >= 1e10 else 1 if size >= 1e8 else 4}f} GB"
