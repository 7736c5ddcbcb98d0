"""The training loop that every method shares.

    python -m sdx                               one process
    torchrun --nproc-per-node 8 -m sdx          the same training, laid out over eight

A step's loss is the sum over its global batch divided by the global number of targets: micro-batch size and
number of ranks change the speed and not the result.
"""

import json
import math
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor
from torch import distributed as dist

from sdx.config import EngineConfig, InputError, TrainConfig
from sdx.progress import Progress
from sdx.ranks import is_main, rank, world_size
from sdx.training import checkpoints
from sdx.training.engine import build, update
from sdx.training.export import export, gather
from sdx.training.launch import process_group
from sdx.training.limits import check
from sdx.training.objectives import Objective
from sdx.training.plan import Order, count_steps, dropout_seed, learning_rate, micro_batches

NOTHING_DONE = {"step": 0, "loss": math.nan, "useful_tokens": 0, "seconds": 0.0}


def train(
    model_dir: Path,
    tokenizer: Any,
    objective: Objective[Any],
    examples: Sequence[Any],
    out: Path,
    train: TrainConfig,
    engine: EngineConfig,
    epochs: int,
    max_steps: int,
    seed: int,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains the causal LM in `model_dir` and writes it to `out/model`. Called on every rank of a launch.

    Goes on from `out/checkpoints` after an interruption and removes them once the model is written. Every
    `train.log_every_steps` and at the end, rank 0 adds a row to `out/log.jsonl` and hands it to `on_log`.

    Args:
        epochs: passes over the examples.
        max_steps: optimizer steps at most; 0 sets no limit.

    Returns:
        On every rank: steps, loss (of the last log line), useful_tokens, seconds, useful_tokens_per_s and
        peak_memory_bytes (of the rank that needs most: allocated on CUDA, resident on the CPU).

    Raises:
        InputError: a config or examples that cannot work, before anything is loaded; a loss that diverged.
    """
    check(train, engine)
    lengths, targets = _measure(examples, objective, epochs)
    steps = count_steps(len(examples), train.batch_size, epochs, max_steps)
    epoch_steps = count_steps(len(examples), train.batch_size, epochs=1, max_steps=0)
    groups = [example.group for example in examples] if train.keep_groups else range(len(examples))
    order = Order(groups, train.batch_size, seed)

    with process_group() as device:
        with build(model_dir, objective, train, engine, seed) as model:
            done = checkpoints.restore(model, out / "checkpoints") or dict(NOTHING_DONE)
            began = time.monotonic() - done["seconds"]
            meter = _Meter(device)
            with _Log(out / "log.jsonl", done["step"], steps, on_log) as log:
                for step in range(done["step"], steps):
                    # Dropout is a function of seed, step and rank: a resumed run draws what the first drew.
                    torch.manual_seed(dropout_seed(seed, step, rank()))
                    batch = order.batch(step)
                    batch_targets = sum(targets[i] for i in batch)
                    shares = micro_batches(batch, lengths, engine.micro_batch_size, rank(), world_size())
                    for share in shares:
                        # A rank with none left runs an example with weight 0: the others wait for gradients.
                        weight = 1.0 if share else 0.0
                        inputs = objective.collate([examples[i] for i in share or batch[:1]])
                        inputs = {key: value.to(device, non_blocking=True) for key, value in inputs.items()}
                        model.set_gradient_accumulation_boundary(share is shares[-1])
                        loss, count = model(inputs)
                        # DeepSpeed averages over the ranks; the sum is what we want.
                        model.backward(loss * (weight * world_size() / batch_targets))
                        meter.add(loss.detach() * weight, count * weight)
                    rate = learning_rate(step, steps, train)
                    grad_norm = update(model, rate, train)

                    batch_tokens = sum(lengths[i] for i in batch)
                    meter.count(batch_tokens, batch_targets)
                    done["step"] += 1
                    done["useful_tokens"] += batch_tokens
                    done["seconds"] = round(time.monotonic() - began, 3)
                    if done["step"] % train.log_every_steps == 0 or done["step"] == steps:
                        done["loss"], useful_tokens_per_s = meter.read()
                        row = {
                            "step": done["step"],
                            "epoch": round(done["step"] / epoch_steps, 4),
                            "loss": done["loss"],
                            "learning_rate": rate,
                            "grad_norm": float(grad_norm),
                            "useful_tokens_per_s": useful_tokens_per_s,
                            "seconds": done["seconds"],
                        }
                        _refuse_divergence(row, train)
                        log.write(row)
                    log.bar.update()
                    if done["step"] % train.save_every_steps == 0 and done["step"] < steps:
                        with meter.pause():
                            checkpoints.save(model, out / "checkpoints", done)
            weights = gather(model)
        del model  # the engine is destroyed; now its memory can go
        if is_main():
            export(weights, model_dir, tokenizer, out / "model", train)
            shutil.rmtree(out / "checkpoints", ignore_errors=True)
        peak = torch.tensor(_peak_memory_bytes(device), device=device)
        dist.all_reduce(peak, op=dist.ReduceOp.MAX)  # and no rank leaves before the model is written
    return {
        "steps": done["step"],
        "loss": done["loss"],
        "useful_tokens": done["useful_tokens"],
        "seconds": done["seconds"],
        "useful_tokens_per_s": round(done["useful_tokens"] / done["seconds"], 1),
        "peak_memory_bytes": int(peak),
    }


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
    if empty := [example.id for example, count in zip(examples, targets, strict=True) if count < 1]:
        raise InputError(f"{len(empty)} training examples have no target token, {empty[0]} first; filter them out")
    return [objective.tokens(example) for example in examples], targets


class _Meter:
    """What happened since the last log line. The sums stay on the device, for reading them waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._restart()

    def _restart(self) -> None:
        self.sums.zero_()
        self.tokens = self.targets = 0
        self.began = time.monotonic()

    def add(self, loss: Tensor, count: Tensor) -> None:
        """One micro-batch of this rank."""
        self.sums += torch.stack([loss, count])

    def count(self, tokens: int, targets: int) -> None:
        """One global batch."""
        self.tokens += tokens
        self.targets += targets

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves what is done inside out of the speed."""
        paused = time.monotonic()
        yield
        self.began += time.monotonic() - paused

    def read(self) -> tuple[float, float]:
        """Loss per target over all ranks, and useful tokens per second; starts anew."""
        dist.all_reduce(self.sums)
        loss, count = self.sums.tolist()
        assert count == self.targets, f"the objective counted {count} targets of {self.targets}"
        tokens_per_s = self.tokens / (time.monotonic() - self.began)
        self._restart()
        return loss / count, round(tokens_per_s, 1)


class _Log:
    """Log file, progress bar and `on_log`; nothing of it on ranks > 0.

    Args:
        step: the step that a resumed training goes on from; rows after it are dropped, for they come again.
        steps: of the whole training.
    """

    def __init__(self, path: Path, step: int, steps: int, on_log: Callable[[dict[str, Any]], None] | None) -> None:
        self.on_log = on_log
        self.bar = Progress("train", steps, "steps", done=step)
        self.file: TextIO | None = None
        if is_main():
            rows = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("w", encoding="utf-8")
            self.file.writelines(row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= step)

    def write(self, row: dict[str, Any]) -> None:
        shown = {
            "loss": ("loss", ".3f"),
            "lr": ("learning_rate", ".1e"),
            "tok/s": ("useful_tokens_per_s", ".0f"),
        }
        self.bar.set_postfix({name: format(row[key], spec) for name, (key, spec) in shown.items()}, refresh=False)
        if self.file:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
            if self.on_log:
                self.on_log(row)

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_error: object) -> None:
        self.bar.close()
        if self.file:
            self.file.close()


def _refuse_divergence(row: dict[str, Any], train: TrainConfig) -> None:
    if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
        raise InputError(
            f"train.learning_rate={train.learning_rate} is too high: at step {row['step']} the loss is "
            f"{row['loss']} and the gradient's norm {row['grad_norm']}; lower it or raise train.warmup_ratio"
        )


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
