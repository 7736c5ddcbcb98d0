"""Checkpoints of a training that was interrupted: whole or not at all, the last two kept."""

import os
import shutil
from logging import getLogger
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import distributed as dist

from sdx.artifacts import read_json, write_json
from sdx.config import InputError
from sdx.ranks import is_main, rank, world_size
from sdx.training.quiet import deepspeed, silence

log = getLogger("sdx")

KEPT = 2
SHARDS = "state"
PROGRESS = "progress.json"


def save(engine: deepspeed.DeepSpeedEngine, folder: Path, progress: dict[str, Any]) -> None:
    """Writes `step_N` with all that `restore` needs; `progress` holds `step` and what the loop has counted.

    The weights that are not trained are left out.
    """
    path = folder / f"step_{progress['step']}"
    partial = path.with_name(f"{path.name}.partial")
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
    dist.barrier()
    with silence():
        engine.save_checkpoint(str(partial), tag=SHARDS, save_latest=False, exclude_frozen_parameters=True)
    if is_main():
        write_json(partial / PROGRESS, progress | _layout(engine))
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
        for old in _found(folder)[KEPT:]:
            shutil.rmtree(old)
    dist.barrier()


def restore(engine: deepspeed.DeepSpeedEngine, folder: Path) -> dict[str, Any] | None:
    """Loads the latest checkpoint that is whole and returns its progress; none if there is none.

    Raises:
        InputError: the checkpoint was written by another number of processes or at another ZeRO stage.
    """
    for path in _found(folder):
        if not _whole(path, engine.device):
            if is_main():
                log.warning("%-12s skips the checkpoint %s: it is damaged", "train", path)
            continue
        progress: dict[str, Any] = read_json(path / PROGRESS)
        wrote, ours = {key: progress.get(key) for key in _layout(engine)}, _layout(engine)
        if wrote != ours:
            raise InputError(
                f"{path} was written with {wrote}, this launch has {ours}; launch it so or delete {folder}"
            )
        with silence():
            engine.load_checkpoint(str(path), tag=SHARDS, load_module_strict=False, load_lr_scheduler_states=False)
        return progress
    return None


def _layout(engine: deepspeed.DeepSpeedEngine) -> dict[str, int]:
    return {"processes": world_size(), "zero_stage": engine.zero_optimization_stage()}


def _found(folder: Path) -> list[Path]:
    """Published checkpoints, the latest first."""
    found = [path for path in folder.glob("step_*") if not path.suffix]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")), reverse=True)


def _whole(path: Path, device: torch.device) -> bool:
    """Whether every file can be read and has its checksum; the ranks share the work and agree."""
    files = sorted((path / SHARDS).glob("*.pt"))
    whole = bool(files) and (path / PROGRESS).is_file()
    for file in files[rank() :: world_size()]:
        whole = whole and _readable(file)
    agreed = torch.tensor(int(whole), device=device)
    dist.all_reduce(agreed, op=dist.ReduceOp.MIN)
    return bool(agreed)


def _readable(file: Path) -> bool:
    try:
        with ZipFile(file) as archive:
            return archive.testzip() is None
    except (BadZipFile, OSError):
        return False
