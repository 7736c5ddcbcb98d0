"""Disk space that a training needs in the cache. Our estimates, in bytes. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from sdx import InputError
from sdx.config import ShapeConfig, TrainConfig
from sdx.process.disk import free_bytes
from sdx.training.memory import MASTER_BYTES, MOMENT_BYTES, trained_parameters

KEPT = 2
"""Checkpoints that are kept; there is one more while it is written."""


@dataclass(frozen=True)
class Space:
    """Bytes needed at most."""

    checkpoint: float
    """Of each of `KEPT` + 1: 12 bytes a trained weight, 6 with 8-bit moments."""
    model: float
    models: int
    """At a time: with validation data, a better model is written beside the best so far."""

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
        whole: the trained model is written with its frozen weights.
    """
    trained = trained_parameters(shape, train)
    model = 2 * shape.parameters if whole else MASTER_BYTES * trained  # in bf16, or adapters in fp32
    return Space((MASTER_BYTES + MOMENT_BYTES[train.optimizer]) * trained, model, 1 + validated)


def shortage(needed: Space, directory: Path) -> str:
    """What to do if the disk of a training's directory is too small; empty if it is large enough.

    Files of an interrupted training in the directory count as available.

    Raises:
        InputError: there is not even space for the trained model.
    """
    free = free_bytes(directory)
    available = free + sum(path.lstat().st_size for path in directory.rglob("*"))
    if available >= needed.total:
        return ""
    fix = "free some or give another cache_dir"
    if available < needed.model:
        raise InputError(
            f"cache_dir has {gigabytes(free)} free for {directory}, and the trained model alone takes "
            f"{gigabytes(needed.model)}; {fix}"
        )
    return (
        f"cache_dir has {gigabytes(free)} free, and the training may write {needed}; {fix}: a checkpoint for "
        "which there is no space is left out, and the training waits for space for the model"
    )


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.{0 if size >= 1e10 else 1 if size >= 1e8 else 4}f} GB"
