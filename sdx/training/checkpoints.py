"""Checkpoints of a training that was interrupted: whole or not at all, the last two kept, for any layout.

    checkpoints/step_200/progress.json        what the loop has counted
                         state/index.json     each parameter's shape, steps and the files of its tensors
                         state/rank_0-0.pt    about 1 GB of tensors, as one of the ranks wrote them

What is in it depends neither on the number of ranks nor on the ZeRO stage, so another launch can go on from it; only
the moments of an 8-bit optimizer do, in `state/moments_zero2_0_of_8.pt`, and go on with the layout they had. The
weights that are not trained are left out. The learning rate, the order of the examples and dropout are functions of
the step and need no state.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from logging import getLogger
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from sdx import InputError
from sdx.process.disk import sync, whole_zip, writing
from sdx.process.ranks import is_main, rank, world_size
from sdx.store.files import read_json, write_json
from sdx.training.disk import KEPT
from sdx.training.launch import Disk, agree
from sdx.training.quiet import deepspeed
from sdx.training.state import KINDS, TrainedState

log = getLogger("sdx")

FOLDER = "checkpoints"
"""Beside the model."""
STATE = "state"
INDEX = f"{STATE}/index.json"
PROGRESS = "progress.json"
FILE_BYTES = 10**9
"""A file gets no further tensor beyond this: a rank holds that much, or its largest tensor, while it writes."""
FP32_BYTES = 4

Files = dict[tuple[str, str], str]
"""The file of each tensor, by parameter and kind."""


def save(engine: deepspeed.DeepSpeedEngine, folder: Path, progress: Mapping[str, Any]) -> int:
    """Writes `step_N` with all that `restore` needs; `progress` holds `step` and what the loop has counted.

    Called on every rank. Where the disk is full, earlier ones but the latest make room. If they do not, that is no
    reason to stop training: it is warned of, and what was written of this checkpoint is removed.

    Returns:
        Its bytes on the disk; 0 where it was not written.
    """
    began = time.monotonic()
    path = folder / f"step_{progress['step']}"
    several = agree(len(_found(folder)) > 1, engine.device)
    disk = Disk(engine.device)
    size = _save_state(engine, path, progress, disk)
    if not size and several:
        thin(folder)
        disk = Disk(engine.device)
        size = _save_state(engine, path, progress, disk)
    if is_main():
        if size:
            _prune(folder, int(progress["step"]))
            log.info("%-12s %s, %.1f GB in %.0f s", "checkpoint", path.name, size / 1e9, time.monotonic() - began)
        else:
            log.warning(
                "%-12s no space left for the checkpoint %s; training goes on without it (%s)", "train", path, disk.why
            )
    dist.barrier()
    return size


def _save_state(engine: deepspeed.DeepSpeedEngine, path: Path, progress: Mapping[str, Any], disk: Disk) -> int:
    """The bytes of the checkpoint, all of it; 0 where the disk had no room for it on one of the ranks."""
    partial = path.with_name(f"{path.name}.partial")
    with disk.may_be_full():
        if is_main():
            for leftover in path.parent.glob("*.partial"):
                shutil.rmtree(leftover)
            (partial / STATE).mkdir(parents=True)
    if disk.has_room():
        state = TrainedState(engine)
        files = _share(state.shapes, state.kinds, world_size())
        _write(state, files, partial / STATE, disk)
        with disk.may_be_full():
            if is_main():
                write_json(partial / INDEX, _index(state, files))
                write_json(partial / PROGRESS, progress)
    if disk.has_room():
        with disk.may_be_full():
            if is_main():
                _publish(partial, path)
    if disk.has_room():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if is_main():
        shutil.rmtree(partial, ignore_errors=True)
    return 0


def restore(engine: deepspeed.DeepSpeedEngine, folder: Path) -> dict[str, Any] | None:
    """Loads the latest checkpoint that is whole and returns its progress; none if there is none.

    Raises:
        InputError: the checkpoint is of other parameters than this model's.
    """
    for path in _found(folder):
        if not _whole(path, engine.device):
            if is_main():
                log.warning("%-12s skips the checkpoint %s: it is damaged", "train", path)
            continue
        index: dict[str, Any] = read_json(path / INDEX)
        state = TrainedState(engine)
        _refuse_another_model(path, {name: tuple(entry["shape"]) for name, entry in index.items()}, state.shapes)
        for file in _files(index):
            tensors = torch.load(path / STATE / file, mmap=True, weights_only=True)
            for name, kinds in tensors.items():
                for kind, tensor in kinds.items():
                    state.write(name, kind, tensor)
        _restore_moments(path / STATE, state)
        state.finish({name: entry["steps"] for name, entry in index.items()})
        progress: dict[str, Any] = read_json(path / PROGRESS)
        return progress
    return None


def thin(folder: Path) -> int:
    """Removes all but the latest, on rank 0; how many it were."""
    older = _found(folder)[1:] if is_main() else []
    for path in older:
        shutil.rmtree(path)
    return len(older)


def latest(folder: Path) -> int:
    """The step of the latest checkpoint, 0 where there is none."""
    return max(map(_step, _found(folder)), default=0)


def _share(shapes: Mapping[str, tuple[int, ...]], kinds: Sequence[str], ranks: int) -> Files:
    """Deals the tensors to the ranks, about as many bytes to each, and cuts each rank's into files."""
    total, number, used = [0] * ranks, [0] * ranks, [0] * ranks
    files: Files = {}
    for name, shape in shapes.items():
        size = FP32_BYTES * prod(shape)
        for kind in kinds:
            writer = min(range(ranks), key=total.__getitem__)
            if used[writer] and used[writer] + size > FILE_BYTES:
                number[writer] += 1
                used[writer] = 0
            files[name, kind] = f"rank_{writer}-{number[writer]}.pt"
            total[writer] += size
            used[writer] += size
    return files


def _write(state: TrainedState, files: Files, folder: Path, disk: Disk) -> None:
    """This rank's files, one in memory at a time. Tensors are read by all ranks together, so none stops early."""
    left = Counter(files.values())
    held: dict[str, dict[str, Tensor]] = {}
    for (name, kind), file in files.items():
        tensor = state.read(name, kind)
        left[file] -= 1
        if file.startswith(f"rank_{rank()}-") and not disk.full:
            held.setdefault(name, {})[kind] = tensor.to("cpu", copy=True)
            if not left[file]:
                with disk.may_be_full():
                    _save(held, folder / file)
                held = {}
    if state.kinds != KINDS and not disk.full:
        with disk.may_be_full():
            _save(state.moments, folder / _moments(state))


def _moments(state: TrainedState) -> str:
    return f"moments_{state.layout}.pt"


def _restore_moments(folder: Path, state: TrainedState) -> None:
    """Of an 8-bit optimizer.

    Raises:
        InputError: another layout wrote them.
    """
    wrote = sorted(file.name for file in folder.glob("moments_*.pt"))
    if not wrote:
        return
    if _moments(state) not in wrote:
        raise InputError(
            f"{folder.parent} has the moments of train.optimizer=adamw_8bit as {wrote[0]}, not as {_moments(state)}, "
            f"and they cannot be divided anew; launch as many ranks with the same engine.zero_stage, or delete "
            f"{folder.parent.parent}"
        )
    state.moments = torch.load(folder / _moments(state), map_location="cpu", weights_only=True)


def _save(tensors: Any, path: Path) -> None:
    with writing(path), path.open("wb") as file:  # given the path, torch forgets which error of the system it met
        torch.save(tensors, file)
        file.flush()
        os.fsync(file.fileno())


def _index(state: TrainedState, files: Files) -> dict[str, Any]:
    steps = state.steps
    return {
        name: {"shape": shape, "steps": steps[name], "files": {kind: files[name, kind] for kind in state.kinds}}
        for name, shape in state.shapes.items()
    }


def _publish(partial: Path, path: Path) -> None:
    sync(partial / STATE)
    sync(partial)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)
    sync(path.parent)


def _prune(folder: Path, step: int) -> None:
    """Keeps the last ones up to `step`; a later one was damaged and is being overtaken."""
    kept = [path for path in _found(folder) if _step(path) <= step][:KEPT]
    for path in _found(folder):
        if path not in kept:
            shutil.rmtree(path)


def _found(folder: Path) -> list[Path]:
    """Published checkpoints, the latest first."""
    return sorted((path for path in folder.glob("step_*") if not path.suffix), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _files(index: Mapping[str, Any]) -> list[str]:
    return sorted({file for entry in index.values() for file in entry["files"].values()})


def _whole(path: Path, device: torch.device) -> bool:
    """Whether every file is there and has its checksum; the ranks share the work and agree."""
    try:
        int(read_json(path / PROGRESS)["step"])
        files = _files(read_json(path / INDEX))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # not there, no JSON, or other JSON
        return agree(False, device)
    files += sorted(file.name for file in (path / STATE).glob("moments_*.pt"))
    return agree(all(whole_zip(path / STATE / file) for file in files[rank() :: world_size()]), device)


def _refuse_another_model(
    path: Path, theirs: Mapping[str, tuple[int, ...]], ours: Mapping[str, tuple[int, ...]]
) -> None:
    if differing := [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]:
        name = differing[0]
        raise InputError(
            f"{path} is of another model: {len(differing)} parameters differ, {name} is {theirs.get(name, 'missing')} "
            f"there and {ours.get(name, 'not trained')} here; delete {path.parent}, or train with what wrote it"
        )
