"""Checkpoints to resume from: written completely or not at all, the last two kept, for any layout.

    checkpoints/step_200/progress.json        what the loop has counted
                         state/index.json     each parameter's shape, steps and the files of its tensors
                         state/rank_0-0.pt    about 1 GB of tensors, as one of the ranks wrote them

The content does not depend on the number of ranks or the ZeRO stage, so any launch can resume from it. Only the moments
of an 8-bit optimizer, in `state/moments_zero2_0_of_8.pt`, need the layout that wrote them. Frozen weights are left out.
The learning rate, the order of the examples and dropout are functions of the step.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from logging import getLogger
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from sdx import InputError
from sdx.process.disk import FULL, disk_full, no_space, sync, whole_zip, writing
from sdx.process.preemption import Preemption
from sdx.process.ranks import is_main, rank, world_size
from sdx.store.files import read_json, write_json
from sdx.training.disk import KEPT
from sdx.training.launch import RankErrors, all_ranks
from sdx.training.quiet import deepspeed
from sdx.training.trained_state import KINDS, TrainedState

log = getLogger("sdx")

FOLDER = "checkpoints"
"""Beside the model."""
STATE = "state"
INDEX = f"{STATE}/index.json"
PROGRESS = "progress.json"
MOMENTS = "moments_*.pt"
FILE_BYTES = 10**9
"""Largest file, unless a single tensor is larger: what a rank holds in memory while it writes."""
PATIENCE_S = 3600.0
"""How long a training waits with a model that it cannot write."""
RETRY_S, LOOK_S = 60.0, 2.0


def save(engine: deepspeed.DeepSpeedEngine, folder: Path, progress: Mapping[str, Any]) -> int:
    """Writes `step_N` with all that `restore` needs. Called on every rank.

    If the disk is full, the checkpoints before the latest are removed. If that is not enough, a warning is logged, the
    partial checkpoint is removed, and training goes on.

    Args:
        progress: `step`, and what the loop has counted.

    Returns:
        Bytes on the disk; 0 if the checkpoint was not written.
    """
    began = time.monotonic()
    path = folder / f"step_{progress['step']}"
    if error := _full_disk(lambda: _save_state(engine, path, progress), path, folder):
        if is_main():
            log.warning(
                "%-12s no space left for the checkpoint %s; training goes on without it (%s)", "train", path, error
            )
        return 0
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if is_main():
        # A later checkpoint was damaged, and training went on from an earlier one.
        kept = [other for other in _published(folder) if _step(other) <= progress["step"]][:KEPT]
        for other in {*_published(folder)} - {*kept}:
            shutil.rmtree(other)
        log.info("%-12s %s, %.1f GB in %.0f s", "checkpoint", path.name, size / 1e9, time.monotonic() - began)
    dist.barrier()
    return size


def write_or_wait(
    write: Callable[[], None], path: Path, preemption: Preemption, save: Callable[[], int] | None = None
) -> None:
    """Writes a trained model to `path`, beside the checkpoints. Called on every rank.

    If the disk is full, the checkpoints before the latest are removed. If that is not enough, a checkpoint of the
    current state is saved, from which the same command goes on; a checkpoint of LoRA is a hundredth of the model, one
    of full training six times as large. If there is no space for that either, the ranks wait.

    Args:
        write: makes `path` on all ranks or raises on all.
        save: saves the checkpoint and returns its bytes, 0 if there is no space; None saves no checkpoint.

    Raises:
        Preempted: a signal came while the ranks waited.
        OSError, RuntimeError: there is no space. A checkpoint was saved, or the disk was full for `PATIENCE_S`.
    """
    folder = path.with_name(FOLDER)
    error = _full_disk(write, path, folder)
    if error and (no_space(error) not in FULL or (save and preemption.maximum(save()))):
        raise error
    if error and is_main():
        waits = f"waits up to {PATIENCE_S / 60:.0f} min, free some"
        log.warning("%-12s no space left for the trained model %s; %s (%s)", "train", path, waits, error)
    began = time.monotonic()
    while error:
        if preemption.maximum(int(time.monotonic() - began >= PATIENCE_S)):
            raise error
        tried = time.monotonic()
        while not preemption.maximum(int(time.monotonic() - tried >= RETRY_S)):
            if preemption.requested():
                raise preemption.leave(f"step {latest(folder)}")
            time.sleep(LOOK_S)
        error = _full_disk(write, path)


def _full_disk(write: Callable[[], None], path: Path, folder: Path | None = None) -> Exception | None:
    """Calls `write`. If the disk is full, removes what was written and returns the error.

    With the folder of checkpoints, those before the latest are removed first, and `write` is called once more.
    """
    try:
        write()
        return None
    except Exception as error:
        if not disk_full(error):
            raise
        if is_main():
            shutil.rmtree(path.with_name(f"{path.name}.partial"), ignore_errors=True)
        if folder is None:
            return error
    thin(folder)
    return _full_disk(write, path)


def _save_state(engine: deepspeed.DeepSpeedEngine, path: Path, progress: Mapping[str, Any]) -> None:
    partial, errors = path.with_name(f"{path.name}.partial"), RankErrors()
    with errors.catch():
        if is_main():
            for leftover in path.parent.glob("*.partial"):
                shutil.rmtree(leftover)
            (partial / STATE).mkdir(parents=True)
    errors.gather()
    state = TrainedState(engine)
    files = _share(state.shapes, state.kinds, world_size())
    _write(state, files, partial / STATE, errors)
    errors.gather()
    with errors.catch():
        if is_main():
            steps = state.steps
            index = {
                name: {"shape": shape, "steps": steps[name], "files": {kind: files[name, kind] for kind in state.kinds}}
                for name, shape in state.shapes.items()
            }
            write_json(partial / INDEX, index)
            write_json(partial / PROGRESS, progress)
            publish(partial, path)
    errors.gather()


def restore(engine: deepspeed.DeepSpeedEngine, folder: Path) -> dict[str, Any] | None:
    """Loads the latest undamaged checkpoint and returns its progress; None if there is no checkpoint.

    Raises:
        InputError: the checkpoint has other parameters than this model, or 8-bit moments of another layout.
    """
    for path in _published(folder):
        if not _whole(path, engine.device):
            if is_main():
                log.warning("%-12s skips the checkpoint %s: it is damaged", "train", path)
            continue
        index: dict[str, Any] = read_json(path / INDEX)
        state = TrainedState(engine)
        theirs, ours = {name: tuple(entry["shape"]) for name, entry in index.items()}, state.shapes
        if differing := [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]:
            name = differing[0]
            raise InputError(
                f"{path} is of another model: {len(differing)} parameters differ, {name} is "
                f"{theirs.get(name, 'missing')} there and {ours.get(name, 'not trained')} here; delete {folder}, or "
                "train with the config that wrote it"
            )
        for file in _files(index):
            tensors = torch.load(path / STATE / file, mmap=True, weights_only=True)
            for name, kinds in tensors.items():
                for kind, tensor in kinds.items():
                    state.write(name, kind, tensor)
        if moments := sorted(file.name for file in (path / STATE).glob(MOMENTS)):
            if state.moments_file not in moments:
                raise InputError(
                    f"{path} has the moments of train.optimizer=adamw_8bit as {moments[0]}, not as "
                    f"{state.moments_file}, and they cannot be divided again; launch as many ranks with the same "
                    f"engine.zero_stage, or delete {folder}"
                )
            state.moments = torch.load(path / STATE / state.moments_file, map_location="cpu", weights_only=True)
        state.finish({name: entry["steps"] for name, entry in index.items()})
        progress: dict[str, Any] = read_json(path / PROGRESS)
        return progress
    return None


def thin(folder: Path) -> None:
    """Removes all checkpoints but the latest, on rank 0."""
    for path in _published(folder)[1:] if is_main() else ():
        shutil.rmtree(path)


def latest(folder: Path) -> int:
    """Step of the latest checkpoint; 0 if there is none."""
    return max(map(_step, _published(folder)), default=0)


def _share(shapes: Mapping[str, tuple[int, ...]], kinds: Sequence[str], ranks: int) -> dict[tuple[str, str], str]:
    """The file of each tensor, by parameter and kind. Every rank writes about as many bytes."""
    total, number, used = [0] * ranks, [0] * ranks, [0] * ranks
    files = {}
    for name, shape in shapes.items():
        size = 4 * prod(shape)  # fp32
        for kind in kinds:
            writer = min(range(ranks), key=total.__getitem__)
            if used[writer] and used[writer] + size > FILE_BYTES:
                number[writer] += 1
                used[writer] = 0
            files[name, kind] = f"rank_{writer}-{number[writer]}.pt"
            total[writer] += size
            used[writer] += size
    return files


def _write(state: TrainedState, files: Mapping[tuple[str, str], str], folder: Path, errors: RankErrors) -> None:
    """Writes this rank's files, holding one in memory at a time.

    Reading a tensor is a collective of all ranks, which an error therefore does not end.
    """
    left = Counter(files.values())
    held: dict[str, dict[str, Tensor]] = {}
    for (name, kind), file in files.items():
        tensor = state.read(name, kind)
        left[file] -= 1
        if file.startswith(f"rank_{rank()}-") and not errors.error:
            held.setdefault(name, {})[kind] = tensor.to("cpu", copy=True)
            if not left[file]:
                with errors.catch():
                    _save(held, folder / file)
                held = {}
    if state.kinds != KINDS:
        with errors.catch():
            _save(state.moments, folder / state.moments_file)


def _save(tensors: Any, path: Path) -> None:
    with writing(path), path.open("wb") as file:  # given a path, torch loses the system's error
        torch.save(tensors, file)
        file.flush()
        os.fsync(file.fileno())


def publish(partial: Path, path: Path) -> None:
    """Syncs a directory to the disk and then puts it in place of `path`."""
    for inside in (*partial.rglob("*"), partial):
        sync(inside)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)
    sync(path.parent)


def _published(folder: Path) -> list[Path]:
    """Complete checkpoints, the latest first."""
    return sorted((path for path in folder.glob("step_*") if not path.suffix), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _files(index: Mapping[str, Any]) -> list[str]:
    return sorted({file for entry in index.values() for file in entry["files"].values()})


def _whole(path: Path, device: torch.device) -> bool:
    """Whether every file is there and has its checksum. The ranks share the work and give the same answer."""
    try:
        int(read_json(path / PROGRESS)["step"])
        files = _files(read_json(path / INDEX))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # not there, no JSON, or other JSON
        return all_ranks(False, device)
    files += sorted(file.name for file in (path / STATE).glob(MOMENTS))
    return all_ranks(all(whole_zip(path / STATE / file) for file in files[rank() :: world_size()]), device)
