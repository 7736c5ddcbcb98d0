"""The log of a training: `log.jsonl`, the progress bar and `on_log`."""

import json
import math
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TextIO

from sdx import InputError
from sdx.config import TrainConfig
from sdx.process.disk import disk_full
from sdx.process.progress import Progress
from sdx.process.ranks import is_main
from sdx.store.files import write_rows
from sdx.training.throughput import Reading


class TrainingLog:
    """Log file, progress bar and `on_log`, on rank 0.

    On a GPU a line is written when the next line is due, or before a checkpoint: the loop then waits for old work of
    the device and not for the latest.

    If a training resumes from `done`, later rows of the file are dropped, because they come again; the others go to
    `on_log` once more, in case a kill kept them from the listeners.
    """

    def __init__(
        self,
        path: Path,
        done: dict[str, Any],
        steps: int,
        train: TrainConfig,
        on_log: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.done = done
        self.train = train
        self.on_log = on_log
        self.bar = Progress("train", steps, "steps", done=done["step"])
        self.open_row: tuple[dict[str, Any], Reading] | None = None
        self.file: TextIO | None = None
        if is_main():
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = [row for row in _whole_rows(path) if row["step"] <= done["step"]]
            write_rows(path, kept)
            # The buffer holds thousands of lines, which wait for space if the disk is full.
            self.file = path.open("a", encoding="utf-8", buffering=2**20)
            if on_log:
                for row in kept:
                    on_log(row)

    def add(self, known: dict[str, Any], reading: Reading) -> None:
        self.flush()
        self.open_row = known, reading
        if reading.copied is None:  # nothing to wait for, as on the CPU
            self.flush()

    def flush(self) -> None:
        """Raises InputError for a loss that diverged, on every rank."""
        if self.open_row is None:
            return
        known, reading = self.open_row
        self.open_row = None
        row = known | reading.row()
        self.done["loss"] = row.get("loss", self.done.get("loss"))
        losses = [value for name, value in row.items() if name == "loss" or name.endswith("_loss")]
        if not all(map(math.isfinite, [*losses, row["grad_norm"]])):
            raise InputError(
                f"train.learning_rate={self.train.learning_rate} is too high: at step {row['step']} the loss is "
                f"{' and '.join(map(str, losses))} and the gradient's norm {row['grad_norm']}; lower it or raise "
                "train.warmup_ratio"
            )
        shown = {"loss": ("loss", ".3f"), "lr": ("learning_rate", ".1e"), "tok/s": ("useful_tokens_per_s", ".0f")}
        if "mfu" in row:
            shown["MFU"] = ("mfu", ".0%")
        figures = row | {"loss": self.done["loss"]}  # the last one, if all batches since were of another kind
        self.bar.set_postfix({name: format(figures[key], spec) for name, (key, spec) in shown.items()}, refresh=False)
        if not self.file:
            return
        try:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
        except OSError as error:
            if not disk_full(error):
                raise
        if self.on_log:
            self.on_log(row)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, error: object, *_rest: object) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self.bar.close()
            if self.file:
                with suppress(OSError) if error else nullcontext():
                    self.file.close()


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """The lines that no kill or power cut damaged."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("step"), int)]
