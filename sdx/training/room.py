"""A trained model that finds no room on the disk is not lost: a checkpoint is kept, or the training waits for room.

A checkpoint of LoRA is a hundredth of the model, one of a full training six times as large.
"""

import shutil
import time
from collections.abc import Callable
from logging import getLogger
from pathlib import Path

from sdx.process.disk import FULL, no_space
from sdx.process.preemption import Preemption
from sdx.process.ranks import is_main
from sdx.training import checkpoints
from sdx.training.quiet import deepspeed
from sdx.training.trainee import Trainee

log = getLogger("sdx")

PATIENCE_S = 3600.0
"""How long a training waits with a model that it cannot write."""
RETRY_S, LOOK_S = 60.0, 2.0


def export(
    trainee: Trainee, engine: deepspeed.DeepSpeedEngine, out: Path, preemption: Preemption, keep: Callable[[], int]
) -> None:
    """Writes the model to `out`, beside which the checkpoints lie; all of it or nothing. Called on every rank.

    Where the disk is full, checkpoints but the latest make room for the model. If they do not, `keep` is asked for one
    of the state as it is, with which the same command goes on; if that has no room either, the ranks wait.

    Args:
        keep: writes the checkpoint; its bytes, 0 where it finds no room.

    Raises:
        Preempted: it was asked to leave while it waited.
        OSError, RuntimeError: there is no room. Nothing is lost, or nobody made some in `PATIENCE_S`.
    """
    folder = out.with_name(checkpoints.FOLDER)
    error = _refusal(trainee, engine, out)
    if error and preemption.maximum(checkpoints.thin(folder)):
        error = _refusal(trainee, engine, out)
    if error is None:
        return
    if preemption.maximum(keep()):
        raise error
    if is_main():
        waits = f"waits up to {PATIENCE_S / 60:.0f} min, free some"
        log.warning("%-12s no space left for the trained model %s; %s (%s)", "train", out, waits, error)
    began = time.monotonic()
    while error:
        if preemption.maximum(int(time.monotonic() - began >= PATIENCE_S)):
            raise error
        tried = time.monotonic()
        while not preemption.maximum(int(time.monotonic() - tried >= RETRY_S)):
            if preemption.requested():
                raise preemption.leave(f"step {checkpoints.latest(folder)}")
            time.sleep(LOOK_S)
        error = _refusal(trainee, engine, out)


def _refusal(trainee: Trainee, engine: deepspeed.DeepSpeedEngine, out: Path) -> Exception | None:
    """Why the disk does not take the model, on every rank; none where it did."""
    try:
        trainee.export(engine, out)
    except Exception as error:
        if no_space(error) not in FULL:
            raise
        if is_main():  # nobody else shall want for the room meanwhile
            shutil.rmtree(out.with_name(f"{out.name}.partial"), ignore_errors=True)
        return error
    return None
