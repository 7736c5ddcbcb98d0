"""The training loop that every method shares.

    python -m sdx                               one process
    torchrun --nproc-per-node 8 -m sdx          the same training, laid out over eight

A step's loss is the sum over its global batch divided by the global number of targets: micro-batch size and
number of ranks change the speed and not the result.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from accelerate.utils import send_to_device
from torch import distributed as dist

from sdx.artifacts import read_json, write_json, write_rows
from sdx.config import InputError, TrainConfig
from sdx.preemption import Preemption
from sdx.progress import Progress
from sdx.ranks import is_main, rank, world_size
from sdx.training import checkpoints
from sdx.training.engine import build, update
from sdx.training.launch import process_group
from sdx.training.layout import Layout
from sdx.training.objectives import Objective
from sdx.training.optimizers import check_device
from sdx.training.plan import (
    Order,
    computed_tokens,
    count_steps,
    dropout_seed,
    learning_rate,
    micro_batches,
    validation_steps,
)
from sdx.training.probe import try_out
from sdx.training.throughput import Meter, Reading, peak_memory_bytes
from sdx.training.trainee import Trainee
from sdx.training.validation import BEST, BEST_STEP, validate

SUMMARY = "summary.json"
"""Written once the model is there: what comes after may be killed, and nothing is trained again."""
NOTHING_DONE = {"step": 0, "loss": math.nan, "useful_tokens": 0, "seconds": 0.0}


def train(
    trainee: Trainee,
    objective: Objective[Any],
    examples: Sequence[Any],
    out: Path,
    train: TrainConfig,
    layout: Layout,
    epochs: int,
    max_steps: int,
    seed: int,
    on_log: Callable[[dict[str, Any]], None] | None = None,
    validation: Sequence[Any] = (),
) -> dict[str, Any]:
    """Trains `trainee` and writes it to `out/model`. Called on every rank of a launch.

    Goes on from `out/checkpoints` after an interruption and removes them once the model is written. Every
    `train.log_every_steps`, at the end and where it is validated, rank 0 adds a row to `out/log.jsonl` and hands it to
    `on_log`.

    Args:
        epochs: passes over the examples.
        max_steps: optimizer steps at most; 0 sets no limit.
        validation: examples on which the model is scored `train.validations` times; the best is written then, in place
            of the last.

    Returns:
        On every rank: steps, loss (of the last log line), useful_tokens, seconds (without validation),
        useful_tokens_per_s and peak_memory_bytes (of the rank that needs most: allocated on CUDA, resident on the CPU);
        with validation data also validation, the best score, and best_step.

    Raises:
        InputError: a config or examples that cannot work, before anything is loaded; a loss that diverged.
    """
    lengths, targets = _measure(examples, objective, epochs)
    _refuse_empty(validation, [objective.targets(example) for example in validation], "validation")
    steps = count_steps(len(examples), train.batch_size, epochs, max_steps)
    epoch_steps = count_steps(len(examples), train.batch_size, epochs=1, max_steps=0)
    groups = [example.group for example in examples] if train.keep_groups else range(len(examples))
    order = Order(groups, train.batch_size, seed)
    validated = validation_steps(steps, train.validations) if validation else ()

    if (out / SUMMARY).exists():
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
        trained: dict[str, Any] = read_json(out / SUMMARY)
        return trained
    with process_group() as device, Preemption() as preemption:
        check_device(train, device)
        with build(trainee, objective, train, layout, seed) as model:
            done = checkpoints.restore(model, out / "checkpoints") or dict(NOTHING_DONE)
            began = time.monotonic() - done["seconds"]
            packed = model.module.packed
            try_out(model, objective.collate(examples[:1], packed))
            meter = Meter(device, trainee.cost(model.module.model))
            with _Log(out / "log.jsonl", done, steps, train, on_log) as log:
                for step in range(done["step"], steps):
                    # Dropout is a function of seed, step and rank: a resumed run draws what the first drew.
                    torch.manual_seed(dropout_seed(seed, step, rank()))
                    batch = order.batch(step)
                    batch_tokens, batch_targets = (sum(sizes[i] for i in batch) for sizes in (lengths, targets))
                    micro_steps = micro_batches(batch, lengths, layout.micro_batch_tokens, world_size(), packed)
                    for shares in micro_steps:
                        # A rank with none left runs an example with weight 0: the others wait for gradients.
                        share = shares[rank()]
                        weight = 1.0 if share else 0.0
                        with meter.waiting():
                            inputs = objective.collate([examples[i] for i in share or batch[:1]], packed)
                            inputs = send_to_device(inputs, device, non_blocking=True)
                        model.set_gradient_accumulation_boundary(shares is micro_steps[-1])
                        loss, count = model(inputs)
                        # DeepSpeed averages over the ranks; the sum is what we want.
                        model.backward(loss * (weight * world_size() / batch_targets))
                        meter.add(loss.detach() * weight, count * weight)
                    rate = learning_rate(step, steps, train)
                    grad_norm = update(model, rate, train)

                    computed = sum(computed_tokens(shares, lengths, packed) for shares in micro_steps)
                    meter.count(batch_tokens, batch_targets, computed)
                    done["step"] += 1
                    done["useful_tokens"] += batch_tokens
                    done["seconds"] = round(time.monotonic() - began, 3)
                    known = {"step": done["step"], "epoch": round(done["step"] / epoch_steps, 4)}
                    known |= {"learning_rate": rate, "seconds": done["seconds"]}
                    if done["step"] in validated:
                        with meter.pause():
                            paused = time.monotonic()
                            known["validation"] = validate(
                                model, trainee, objective, validation, layout.micro_batch_tokens, done, out / "model"
                            )
                            began += time.monotonic() - paused
                    if done["step"] % train.log_every_steps == 0 or done["step"] == steps or "validation" in known:
                        log.add(known, meter.read(grad_norm))
                    log.bar.update()
                    due = done["step"] % train.save_every_steps == 0 and done["step"] < steps
                    if due or preemption.requested():
                        with meter.pause():
                            log.flush()
                            checkpoints.save(model, out / "checkpoints", done)
                        if preemption.requested():  # it may have come while the checkpoint was written
                            raise preemption.leave(f"step {checkpoints.latest(out / 'checkpoints')} of {steps}")
            if not validation:
                trainee.export(model, out / "model")
        del model  # the engine is destroyed; now its memory can go
        peak = torch.tensor(peak_memory_bytes(device), device=device)
        dist.all_reduce(peak, op=dist.ReduceOp.MAX)
        summary = {
            "steps": done["step"],
            "loss": done["loss"],
            "useful_tokens": done["useful_tokens"],
            "seconds": done["seconds"],
            "useful_tokens_per_s": round(done["useful_tokens"] / done["seconds"], 1),
            "peak_memory_bytes": int(peak),
        }
        if validation:
            summary |= {"validation": done[BEST], "best_step": done[BEST_STEP]}
        if is_main():
            write_json(out / SUMMARY, summary)
            shutil.rmtree(out / "checkpoints", ignore_errors=True)
        if preemption.requested():  # and no rank leaves before the model is written
            raise preemption.leave("the trained model")
    return summary


def _measure(examples: Sequence[Any], objective: Objective[Any], epochs: int) -> tuple[list[int], list[int]]:
    """Tokens and targets of each example.

    Raises:
        InputError: there is nothing to train on.
    """
    if epochs < 1:
        raise InputError(f"scale.epochs={epochs} is too small; set it to 1 or more")
    if not examples:
        raise InputError("there are 0 training examples; raise scale.corpus_rows or scale.max_length_tokens")
    targets = [objective.targets(example) for example in examples]
    _refuse_empty(examples, targets, "training")
    return [objective.tokens(example) for example in examples], targets


def _refuse_empty(examples: Sequence[Any], targets: Sequence[int], kind: str) -> None:
    if empty := [example.id for example, count in zip(examples, targets, strict=True) if count < 1]:
        raise InputError(f"{len(empty)} {kind} examples have no target token, {empty[0]} first; filter them out")


class _Log:
    """Log file, progress bar and `on_log`; nothing of it on ranks > 0.

    On a GPU a line is written when the next one is due, or before a checkpoint: so the loop waits for what the device
    did a line ago and not for what it has just been told to do.

    Args:
        done: what a resumed training goes on from; rows after its step are dropped, for they come again. Those before
            it are handed to `on_log` once more: a kill may have taken them from whoever was told.
        steps: of the whole training.
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
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
            rows = [json.loads(line) for line in lines if line.endswith("\n")]
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = [row for row in rows if row["step"] <= done["step"]]
            write_rows(path, kept)
            self.file = path.open("a", encoding="utf-8")
            if on_log:
                for row in kept:
                    on_log(row)

    def add(self, known: dict[str, Any], reading: Reading) -> None:
        self.flush()
        self.open_row = known, reading
        if reading.arrived:
            self.flush()

    def flush(self) -> None:
        """Raises InputError for a loss that diverged, on every rank."""
        if self.open_row is None:
            return
        known, reading = self.open_row
        self.open_row = None
        row = known | reading.row()
        self.done["loss"] = row["loss"]
        _refuse_divergence(row, self.train)
        shown = {"loss": ("loss", ".3f"), "lr": ("learning_rate", ".1e"), "tok/s": ("useful_tokens_per_s", ".0f")}
        if "mfu" in row:
            shown["MFU"] = ("mfu", ".0%")
        self.bar.set_postfix({name: format(row[key], spec) for name, (key, spec) in shown.items()}, refresh=False)
        if self.file:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
            if self.on_log:
                self.on_log(row)

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, error: object, *_rest: object) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self.bar.close()
            if self.file:
                self.file.close()


def _refuse_divergence(row: dict[str, Any], train: TrainConfig) -> None:
    if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
        raise InputError(
            f"train.learning_rate={train.learning_rate} is too high: at step {row['step']} the loss is "
            f"{row['loss']} and the gradient's norm {row['grad_norm']}; lower it or raise train.warmup_ratio"
        )
