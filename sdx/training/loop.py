"""The training loop that every method shares.

    python -m sdx                               one process
    torchrun --nproc-per-node 8 -m sdx          the same training, laid out over eight

A step's loss is the sum over its global batch divided by the global number of targets: micro-batch size and
number of ranks change the speed and not the result.
"""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
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
from sdx.training import checkpoints, rehearsal, room
from sdx.training.engine import build, update
from sdx.training.launch import collect, process_group
from sdx.training.log import TrainingLog
from sdx.training.memory import Layout
from sdx.training.objectives import Auxiliary, Objective
from sdx.training.optimizers import check_device
from sdx.training.plan import (
    Order,
    computed_tokens,
    count_steps,
    dropout_seed,
    learning_rate,
    micro_batches,
    turn,
    validation_steps,
)
from sdx.training.probe import try_out
from sdx.training.quiet import deepspeed, frozen
from sdx.training.rehearsal import TooLargeError, fullest, halved, rehearse
from sdx.training.state import TrainedState
from sdx.training.throughput import Meter, peak_memory_bytes
from sdx.training.trainee import Trainee
from sdx.training.validation import BEST, BEST_STEP, validate

SUMMARY = "summary.json"
"""Written once the model is there: what comes after may be killed, and nothing is trained again."""
NOTHING_DONE = {"step": 0, "loss": math.nan, "useful_tokens": 0, "seconds": 0.0, "checkpoint_seconds": 0.0}


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
    auxiliary: Auxiliary | None = None,
) -> dict[str, Any]:
    """Trains `trainee` and writes it to `out/model`. Called on every rank of a launch.

    Goes on from `out/checkpoints` after an interruption and removes them once the model is written. Every
    `train.log_every_steps`, at the end and where it is validated, rank 0 adds a row to `out/log.jsonl` and hands it to
    `on_log`. Afterwards nothing of the training is left in memory.

    Args:
        layout: its micro-batch is halved as often as a GPU's memory does not suffice.
        epochs: passes over the examples.
        max_steps: optimizer steps at most, those of `auxiliary` among them; 0 sets no limit.
        validation: examples on which the model is scored `train.validations` times; the best is written then, in place
            of the last.
        auxiliary: batches of another kind, in turns with those of the examples. They come on top of these.

    Returns:
        On every rank: steps, loss (of the last log line), useful_tokens, seconds (without validation),
        checkpoint_seconds (a part of them), useful_tokens_per_s and peak_memory_bytes (of the rank that needs most:
        allocated on CUDA, resident on the CPU); with validation data also validation, the best score, and best_step.

    Raises:
        InputError: a config or examples that cannot work, before anything is loaded; a loss that diverged; a GPU
            whose memory does not suffice.
    """
    streams = [_Stream.of("loss", objective, examples, train.batch_size, train.keep_groups, seed)]
    share = auxiliary.share if auxiliary else 0.0
    if auxiliary and share:
        given = auxiliary.objective, auxiliary.examples, auxiliary.batch_size
        streams.append(_Stream.of(f"{auxiliary.name}_loss", *given, train.keep_groups, seed))
    _refuse_empty(validation, [objective.targets(example) for example in validation], "validation")
    steps = count_steps(len(examples), train.batch_size, epochs, max_steps, share)
    training = _Training(
        trainee,
        streams,
        share,
        validation,
        out,
        train,
        seed,
        on_log,
        steps=steps,
        epoch_steps=count_steps(len(examples), train.batch_size, epochs=1, max_steps=0) / (1 - share),
        validated=validation_steps(steps, train.validations) if validation else frozenset(),
    )
    if trained := read_intact(out / SUMMARY):
        shutil.rmtree(out / checkpoints.FOLDER, ignore_errors=True)
        return trained
    with frozen(), process_group() as device, Preemption() as preemption:
        check_device(train, device)
        while (done := training.run(layout, device, preemption)) is None:
            collect()
            layout = halved(layout, max(length for stream in streams for length in stream.lengths))
        collect()
        peak = torch.tensor(peak_memory_bytes(device), device=device)
        dist.all_reduce(peak, op=dist.ReduceOp.MAX)
        summary = {
            "steps": done["step"],
            "loss": done["loss"],
            "useful_tokens": done["useful_tokens"],
            "seconds": done["seconds"],
            "checkpoint_seconds": done["checkpoint_seconds"],
            "useful_tokens_per_s": round(done["useful_tokens"] / done["seconds"], 1),
            "peak_memory_bytes": int(peak),
        }
        if validation:
            summary |= {"validation": done[BEST], "best_step": done[BEST_STEP]}
        if is_main():
            checkpoints.thin(out / checkpoints.FOLDER)  # the summary shall find room
            write_json(out / SUMMARY, summary)
            shutil.rmtree(out / checkpoints.FOLDER, ignore_errors=True)
        if preemption.requested():  # and no rank leaves before the model is written
            raise preemption.leave("the trained model")
    return summary


@dataclass(frozen=True)
class _Stream:
    """Examples of one kind, in the order in which they are trained on."""

    name: str
    """Of the loss in the log."""
    objective: Objective[Any]
    examples: Sequence[Any]
    lengths: Sequence[int]
    targets: Sequence[int]
    order: Order

    @classmethod
    def of(
        cls,
        name: str,
        objective: Objective[Any],
        examples: Sequence[Any],
        batch_size: int,
        keep_groups: bool,
        seed: int,
    ) -> "_Stream":
        """Raises InputError if there is nothing to train on."""
        lengths, targets = _measure(examples, objective)
        groups = [example.group for example in examples] if keep_groups else range(len(examples))
        return cls(name, objective, examples, lengths, targets, Order(groups, batch_size, seed))

    def inputs(self, model: deepspeed.DeepSpeedEngine, places: Sequence[int]) -> dict[str, Any]:
        """A micro-batch on the model's device."""
        batch = self.objective.collate([self.examples[place] for place in places], model.module.packed)
        inputs: dict[str, Any] = send_to_device(batch, model.device, non_blocking=True)
        return inputs


@dataclass(frozen=True)
class _Training:
    """What a training is, however it is laid out."""

    trainee: Trainee
    streams: Sequence[_Stream]
    """The training's own examples, and then those of an auxiliary objective, if there is one."""
    share: float
    """Of the steps, those of the second stream."""
    validation: Sequence[Any]
    out: Path
    train: TrainConfig
    seed: int
    on_log: Callable[[dict[str, Any]], None] | None
    steps: int
    epoch_steps: float
    validated: frozenset[int]

    def run(self, layout: Layout, device: torch.device, preemption: Preemption) -> dict[str, Any] | None:
        """From the last checkpoint to the written model.

        What the loop knows of the model goes with this call: a variable that held its last loss would hold the model.

        Returns:
            What was done; None where a micro-batch does not fit the memory of the ranks.
        """
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        laid_out = trained = False
        try:
            with build(self.trainee, self.streams[0].objective, self.train, layout, self.seed) as model:
                done = NOTHING_DONE | (checkpoints.restore(model, self.out / checkpoints.FOLDER) or {})
                if device.type in rehearsal.CAN_RUN_OUT:
                    TrainedState(model)  # which gives AdamW the memory that it would take in its first step
                laid_out = True
                if done["step"] < self.steps:
                    self._prepare(model, layout, preemption)
                losses = [stream.name for stream in self.streams]
                meter = Meter(device, self.trainee.cost(model.module.model), losses)
                with TrainingLog(self.out / "log.jsonl", done, self.steps, self.train, self.on_log) as log:
                    self._loop(model, layout, done, meter, preemption, log)
                    trained = True
                    if not self.validation:
                        self._export(model, done, preemption)
        except TooLargeError:
            return None
        except RuntimeError as error:
            if trained or not ran_out(error):
                raise
            if laid_out and world_size() == 1:
                return None
            raise rehearsal.out_of_memory(layout, laid_out) from error
        return done

    def _export(self, model: deepspeed.DeepSpeedEngine, done: dict[str, Any], preemption: Preemption) -> None:
        folder = self.out / checkpoints.FOLDER

        def keep() -> int:
            return done["step"] if checkpoints.latest(folder) == done["step"] else checkpoints.save(model, folder, done)

        room.export(self.trainee, model, self.out / "model", preemption, keep)

    def _prepare(self, model: deepspeed.DeepSpeedEngine, layout: Layout, preemption: Preemption) -> None:
        """Tries out what an objective has to find out about the model, and whether a full micro-batch fits."""
        packed = model.module.packed
        for stream in self.streams:
            model.module.objective = stream.objective
            try_out(model, stream.objective.collate(stream.examples[:1], packed))
            if model.device.type in rehearsal.CAN_RUN_OUT:
                places = fullest(stream.lengths, layout.micro_batch_tokens, packed)
                rehearse(model, stream.inputs(model, places), layout, preemption)

    def _loop(
        self,
        model: deepspeed.DeepSpeedEngine,
        layout: Layout,
        done: dict[str, Any],
        meter: Meter,
        preemption: Preemption,
        log: TrainingLog,
    ) -> None:
        """All steps that are left; `done` counts them."""
        began = saved = time.monotonic()
        began -= done["seconds"]
        while done["step"] < self.steps:
            rate = learning_rate(done["step"], self.steps, self.train)
            grad_norm = self._step(model, layout, done, rate, meter)
            done["step"] += 1
            done["seconds"] = round(time.monotonic() - began, 3)
            known = {"step": done["step"], "epoch": round(done["step"] / self.epoch_steps, 4)}
            known |= {"learning_rate": rate, "seconds": done["seconds"]}
            if done["step"] in self.validated:
                with meter.pause() as pause:
                    known["validation"] = validate(
                        model,
                        self.trainee,
                        self.streams[0].objective,
                        self.validation,
                        layout.micro_batch_tokens,
                        done,
                        self.out / "model",
                        preemption,
                    )
                began += pause.seconds
            last = done["step"] == self.steps
            if done["step"] % self.train.log_every_steps == 0 or last or "validation" in known:
                log.add(known, meter.read(grad_norm))
            log.bar.update()
            due = not last and self._checkpoint_due(done["step"], saved)
            if preemption.maximum(int(due)) or preemption.requested():
                log.flush()
                with meter.saving() as saving:
                    saving.bytes = checkpoints.save(model, self.out / checkpoints.FOLDER, done)
                done["checkpoint_seconds"] = round(done["checkpoint_seconds"] + saving.seconds, 3)
                saved = time.monotonic()
                if preemption.requested():  # it may have come while the checkpoint was written
                    raise preemption.leave(f"step {checkpoints.latest(self.out / 'checkpoints')} of {self.steps}")
        log.flush()

    def _step(
        self, model: deepspeed.DeepSpeedEngine, layout: Layout, done: dict[str, Any], rate: float, meter: Meter
    ) -> Tensor | float:
        """An optimizer step over a global batch; the gradient's norm."""
        # Dropout is a function of seed, step and rank: a resumed run draws what the first drew.
        torch.manual_seed(dropout_seed(self.seed, done["step"], rank()))
        packed = model.module.packed
        kind, number = turn(done["step"], self.share)
        stream = self.streams[kind]
        model.module.objective = stream.objective
        batch = stream.order.batch(number)
        batch_tokens, batch_targets = (sum(sizes[i] for i in batch) for sizes in (stream.lengths, stream.targets))
        micro_steps = micro_batches(batch, stream.lengths, layout.micro_batch_tokens, world_size(), packed)
        for shares in micro_steps:
            # A rank with none left runs an example with weight 0: the others wait for gradients.
            share = shares[rank()]
            weight = 1.0 if share else 0.0
            with meter.waiting():
                inputs = stream.inputs(model, share or batch[:1])
            model.set_gradient_accumulation_boundary(shares is micro_steps[-1])
            loss, count = model(inputs)
            # DeepSpeed averages over the ranks; the sum is what we want.
            model.backward(loss * (weight * world_size() / batch_targets))
            meter.add(loss.detach() * weight, count * weight, kind)
        computed = sum(computed_tokens(shares, stream.lengths, packed) for shares in micro_steps)
        meter.count(batch_tokens, batch_targets, computed, kind)
        done["useful_tokens"] += batch_tokens
        return update(model, rate, self.train)

    def _checkpoint_due(self, step: int, saved: float) -> bool:
        """Whether it is time to save, by the number of steps or by rank 0's clock.

        Args:
            saved: when the last checkpoint was written, or the loop began.
        """
        every, minutes = self.train.save_every_steps, self.train.save_every_minutes
        by_time = minutes > 0 and is_main() and time.monotonic() - saved >= 60 * minutes
        return by_time or (every > 0 and step % every == 0)


def _measure(examples: Sequence[Any], objective: Objective[Any]) -> tuple[list[int], list[int]]:
    """Tokens and targets of each example.

    Raises:
        InputError: there is nothing to train on.
    """
    if not examples:
        raise InputError("there are 0 training examples; raise scale.corpus_rows or scale.max_length_tokens")
    targets = [objective.targets(example) for example in examples]
    _refuse_empty(examples, targets, "training")
    return [objective.tokens(example) for example in examples], targets


def _refuse_empty(examples: Sequence[Any], targets: Sequence[int], kind: str) -> None:
    if empty := [example.id for example, count in zip(examples, targets, strict=True) if count < 1]:
        raise InputError(f"{len(empty)} {kind} examples have no target token, {empty[0]} first; filter them out")
