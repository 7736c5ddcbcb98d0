"""The training loop of all methods.

    python -m sdx                               one process
    torchrun --nproc-per-node 8 -m sdx          the same training on eight ranks

A step's loss is the sum over its global batch divided by the global number of targets: micro-batch size and number of
ranks change the speed and not the result.
"""

import math
import shutil
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch import distributed as dist

from sdx import InputError
from sdx.config import TrainConfig
from sdx.models.residency import ran_out
from sdx.process.preemption import Preemption
from sdx.process.ranks import is_main, rank, world_size
from sdx.store.files import read_intact, write_json
from sdx.training import checkpoints, memory_check, schedule
from sdx.training.engine import build, update
from sdx.training.launch import collect, process_group
from sdx.training.log import TrainingLog
from sdx.training.memory import Layout
from sdx.training.objectives import Auxiliary, Objective, evaluating, validate
from sdx.training.optimizers import check_device
from sdx.training.quiet import deepspeed, frozen
from sdx.training.throughput import Meter, peak_memory_bytes
from sdx.training.trainable import TrainableModel
from sdx.training.trained_state import TrainedState

SUMMARY = "summary.json"
"""Written after the model: a run that is killed later trains nothing again."""
NOTHING_DONE = {"step": 0, "loss": math.nan, "useful_tokens": 0, "seconds": 0.0, "checkpoint_seconds": 0.0}


def train(
    trainable: TrainableModel,
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
    auxiliary: Auxiliary | None = None,
) -> dict[str, Any]:
    """Trains a model and writes it to `out/model`. Called on every rank of a launch.

    After an interruption, training resumes from `out/checkpoints`, which are removed once the model is written. Every
    `train.log_every_steps`, at validations and at the end, rank 0 adds a row to `out/log.jsonl` and calls `on_log` with
    it. Afterwards nothing of the training is left in memory.

    Args:
        layout: the micro-batch is halved as long as the memory of a GPU does not suffice.
        epochs: passes over the examples.
        max_steps: most optimizer steps, including those of `auxiliary`; 0 sets no limit.
        validation: examples on which the model is scored `train.validations` times; the best model is written, not the
            last.
        auxiliary: batches of another kind, in addition to those of the examples and alternating with them.

    Returns:
        On every rank: steps, loss (of the last log line), useful_tokens, seconds (without validation),
        checkpoint_seconds (a part of them), useful_tokens_per_s and peak_memory_bytes (of the rank that needs most:
        allocated on CUDA, resident on the CPU); with validation data also validation, the best score, and best_step.

    Raises:
        InputError: a config or examples that cannot work, before anything is loaded; a loss that diverged; a GPU
            whose memory does not suffice.
    """
    streams = [_Stream("loss", objective, examples, train.batch_size, train.keep_groups, seed)]
    share = auxiliary.share if auxiliary else 0.0
    if auxiliary and share:
        given = auxiliary.objective, auxiliary.examples, auxiliary.batch_size
        streams.append(_Stream(f"{auxiliary.name}_loss", *given, train.keep_groups, seed))
    _check_targets([objective.targets(example) for example in validation], validation, "validation")
    if trained := read_intact(out / SUMMARY):
        shutil.rmtree(out / checkpoints.FOLDER, ignore_errors=True)
        return trained
    steps = schedule.count_steps(len(examples), train.batch_size, epochs, max_steps, share)
    with frozen(), process_group() as device, Preemption() as preemption:
        check_device(train, device)
        training = _Training(trainable, streams, share, validation, out, train, seed, on_log, steps, device, preemption)
        while (done := training.run(layout)) is None:
            collect()
            layout = memory_check.halved(layout, max(length for stream in streams for length in stream.lengths))
        collect()
        peak = torch.tensor(peak_memory_bytes(device), device=device)
        dist.all_reduce(peak, op=dist.ReduceOp.MAX)
        summary = {
            "steps": done["step"],
            **{name: done[name] for name in ("loss", "useful_tokens", "seconds", "checkpoint_seconds")},
            "useful_tokens_per_s": round(done["useful_tokens"] / done["seconds"], 1),
            "peak_memory_bytes": int(peak),
            **({"validation": done["best"], "best_step": done["best_step"]} if validation else {}),
        }
        if is_main():
            checkpoints.thin(out / checkpoints.FOLDER)  # so that there is space for the summary
            write_json(out / SUMMARY, summary)
            shutil.rmtree(out / checkpoints.FOLDER, ignore_errors=True)
        if preemption.requested():  # and no rank leaves before the model is written
            raise preemption.leave("the trained model")
    return summary


class _Stream:
    """Examples of one kind, in the order in which they are trained on. `loss` is the name of their loss in the log."""

    def __init__(
        self,
        loss: str,
        objective: Objective[Any],
        examples: Sequence[Any],
        batch_size: int,
        keep_groups: bool,
        seed: int,
    ) -> None:
        if not examples:
            raise InputError("there are 0 training examples; raise scale.corpus_rows or scale.max_length_tokens")
        self.loss, self.objective, self.examples = loss, objective, examples
        self.lengths, self.targets, groups = array("q"), array("q"), []
        for example in examples:  # once: there may be millions, which are read from disk
            self.lengths.append(objective.tokens(example))
            self.targets.append(objective.targets(example))
            groups.append(example.group)
        _check_targets(self.targets, examples, "training")
        self.order = schedule.Order(groups if keep_groups else range(len(groups)), batch_size, seed)

    def inputs(self, engine: deepspeed.DeepSpeedEngine, indices: Sequence[int]) -> dict[str, Any]:
        """A micro-batch on the engine's device."""
        batch = self.objective.collate([self.examples[index] for index in indices], engine.module.packed)
        inputs: dict[str, Any] = send_to_device(batch, engine.device, non_blocking=True)
        return inputs


@dataclass(frozen=True)
class _Training:
    """A training in any layout; see `train`."""

    trainable: TrainableModel
    streams: Sequence[_Stream]
    """The examples of the training, then those of an auxiliary objective, if there is one."""
    share: float
    """Of the steps, those of the second stream."""
    validation: Sequence[Any]
    out: Path
    train: TrainConfig
    seed: int
    on_log: Callable[[dict[str, Any]], None] | None
    steps: int
    device: torch.device
    preemption: Preemption

    def run(self, layout: Layout) -> dict[str, Any] | None:
        """Trains from the last checkpoint to the written model.

        All references to the engine end with this call: another layout needs the memory.

        Returns:
            What was done; None if a micro-batch does not fit the memory of the ranks.
        """
        can_run_out = self.device.type in memory_check.CAN_RUN_OUT
        laid_out = trained = False
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            with build(self.trainable, self.train, layout, self.seed) as engine:
                done = NOTHING_DONE | (checkpoints.restore(engine, self.out / checkpoints.FOLDER) or {})
                if can_run_out:
                    TrainedState(engine)  # allocates AdamW's moments, as its first step would
                laid_out = True
                for stream in self.streams if done["step"] < self.steps else ():
                    with evaluating(engine):  # an objective's first pass, which may draw random numbers of its own
                        engine(stream.objective.loss, stream.inputs(engine, [0]))
                    if can_run_out:
                        sizes = stream.lengths, layout.micro_batch_tokens, engine.module.packed
                        batch = stream.inputs(engine, memory_check.largest_batch(*sizes))
                        memory_check.check_memory(engine, stream.objective, batch, layout, self.preemption)
                self._loop(engine, layout, done)
                trained = True
                if not self.validation:
                    self._export(engine, lambda: self._checkpoint(engine, done))
        except memory_check.TooLargeError:
            return None
        except RuntimeError as error:
            if trained or not ran_out(error):
                raise
            if laid_out and world_size() == 1:
                return None
            raise memory_check.out_of_memory(layout, laid_out) from error
        return done

    def _loop(self, engine: deepspeed.DeepSpeedEngine, layout: Layout, done: dict[str, Any]) -> None:
        """Takes the remaining steps; `done` counts them."""
        train, objective = self.train, self.streams[0].objective
        epoch_steps = math.ceil(len(self.streams[0].examples) / train.batch_size) / (1 - self.share)
        validated = schedule.validation_steps(self.steps, train.validations) if self.validation else ()
        meter = Meter(self.device, self.trainable.cost(engine.module.model), [stream.loss for stream in self.streams])
        meter.total_s["checkpoint"] = done["checkpoint_seconds"]
        saved = time.monotonic()
        began = saved - done["seconds"]
        with TrainingLog(self.out / "log.jsonl", done, self.steps, train, self.on_log) as log:
            while done["step"] < self.steps:
                rate = schedule.learning_rate(done["step"], self.steps, train)
                grad_norm = self._step(engine, layout, done, rate, meter)
                done["step"] += 1
                done["seconds"] = round(time.monotonic() - began - meter.total_s["validation"], 3)
                row = {"step": done["step"], "epoch": round(done["step"] / epoch_steps, 4), "learning_rate": rate}
                row["seconds"] = done["seconds"]
                if done["step"] in validated:
                    with meter.timed("validation"):
                        score = validate(engine, objective, self.validation, layout.micro_batch_tokens)
                        if "best" not in done or score > done["best"]:
                            self._export(engine)  # a run resumed from a checkpoint of this step would not score it
                            done |= {"best": score, "best_step": done["step"]}
                        row["validation"] = score
                last = done["step"] == self.steps
                if done["step"] % train.log_every_steps == 0 or last or "validation" in row:
                    log.add(row, meter.read(grad_norm))
                log.bar.update()
                due = not last and self._checkpoint_due(done["step"], saved)
                if self.preemption.maximum(int(due)) or self.preemption.requested():
                    log.flush()
                    with meter.timed("checkpoint"):
                        meter.checkpoint_bytes += checkpoints.save(engine, self.out / checkpoints.FOLDER, done)
                    done["checkpoint_seconds"] = round(meter.total_s["checkpoint"], 3)
                    saved = time.monotonic()
                    if self.preemption.requested():  # the signal may have come during the checkpoint
                        step = checkpoints.latest(self.out / checkpoints.FOLDER)
                        raise self.preemption.leave(f"step {step} of {self.steps}")

    def _step(
        self, engine: deepspeed.DeepSpeedEngine, layout: Layout, done: dict[str, Any], rate: float, meter: Meter
    ) -> Tensor | float:
        """Takes an optimizer step over a global batch and returns the gradient's norm."""
        # Dropout depends on seed, step and rank, so that a resumed run draws the same numbers.
        torch.manual_seed(Random(f"dropout {self.seed} {done['step']} {rank()}").getrandbits(63))
        packed = engine.module.packed
        kind, number = schedule.turn(done["step"], self.share)
        stream = self.streams[kind]
        batch = stream.order.batch(number)
        batch_tokens, batch_targets = (sum(sizes[i] for i in batch) for sizes in (stream.lengths, stream.targets))
        micro_steps = schedule.micro_batches(batch, stream.lengths, layout.micro_batch_tokens, world_size(), packed)
        for shares in micro_steps:
            # A rank without examples runs one with weight 0: the other ranks wait for its gradients.
            share = shares[rank()]
            weight = 1.0 if share else 0.0
            with meter.timed("batch"):
                inputs = stream.inputs(engine, share or batch[:1])
            engine.set_gradient_accumulation_boundary(shares is micro_steps[-1])
            loss, count = engine(stream.objective.loss, inputs)
            # DeepSpeed averages over the ranks; the sum is wanted.
            engine.backward(loss * (weight * world_size() / batch_targets))
            meter.add(loss.detach() * weight, count * weight, kind)
        computed = sum(schedule.computed_tokens(shares, stream.lengths, packed) for shares in micro_steps)
        meter.count(batch_tokens, batch_targets, computed, kind)
        done["useful_tokens"] += batch_tokens
        return update(engine, rate, self.train)

    def _export(self, engine: deepspeed.DeepSpeedEngine, save: Callable[[], int] | None = None) -> None:
        path = self.out / "model"
        checkpoints.write_or_wait(lambda: self.trainable.export(engine, path), path, self.preemption, save)

    def _checkpoint(self, engine: deepspeed.DeepSpeedEngine, done: dict[str, Any]) -> int:
        """Saves a checkpoint of the last step unless there is one; positive if there is one now."""
        folder = self.out / checkpoints.FOLDER
        return done["step"] if checkpoints.latest(folder) == done["step"] else checkpoints.save(engine, folder, done)

    def _checkpoint_due(self, step: int, saved: float) -> bool:
        """Whether a checkpoint is due, by the number of steps or by rank 0's clock.

        Args:
            saved: when the last checkpoint was written, or the loop began.
        """
        every, minutes = self.train.save_every_steps, self.train.save_every_minutes
        by_time = minutes > 0 and is_main() and time.monotonic() - saved >= 60 * minutes
        return by_time or (every > 0 and step % every == 0)


def _check_targets(targets: Sequence[int], examples: Sequence[Any], kind: str) -> None:
    """Raises InputError if an example has no target."""
    if empty := [number for number, count in enumerate(targets) if count < 1]:
        first = examples[empty[0]].id
        raise InputError(f"{len(empty)} {kind} examples have no target token, {first} first; filter them out")
