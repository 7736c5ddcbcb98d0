"""Training in tests: a tiny model, examples of many lengths, and the trained weights before they are rounded.

Under torchrun, as `harness.py <model> <out>`: trains every case of `CASES`; rank 0 saves the weights of each.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import torch

from sdx.config import Adapter, Precision, TrainConfig
from sdx.process.ranks import is_main
from sdx.training import checkpoints, loop
from sdx.training import trainee as trainees
from sdx.training.memory import Layout
from sdx.training.objectives import Auxiliary, CausalLM, Example
from sdx.training.quiet import deepspeed
from sdx.training.state import WEIGHT, TrainedState
from sdx.training.trainee import CausalTrainee

PAD_ID = 3
SEED = 5
Weights = dict[str, torch.Tensor]

# On two ranks: of 11 examples in batches of 8 a batch of 3 is left, in which rank 1 has no example for its
# second micro-step where the micro-batch is 1.
CASES: dict[str, dict[str, Any]] = {
    "zero0": {"zero_stage": 0, "micro_batch_tokens": 64},
    "zero1": {"zero_stage": 1, "micro_batch_tokens": 1},
    "zero2": {"zero_stage": 2, "micro_batch_tokens": 1},
    "zero3": {"zero_stage": 3, "micro_batch_tokens": 1},
    "zero3_offload": {"zero_stage": 3, "offload_optimizer": True, "activation_checkpointing": True},
    "zero3_lora": {"zero_stage": 3, "adapter": Adapter.lora, "activation_checkpointing": True},
    "zero0_bf16": {"zero_stage": 0, "precision": Precision.bf16},
}


DEFAULTS = {
    "batch_size": 8,
    "learning_rate": 2e-4,
    "lora_dropout": 0.0,
    "precision": Precision.fp32,
    "micro_batch_tokens": 40,
}


class Interrupted(Exception):
    """Stands for a kill."""


def examples(count: int = 11) -> list[Example]:
    random = Random(0)
    lengths = [random.randint(6, 24) for _ in range(count)]
    return [
        Example(f"x{n}", [random.randrange(5, 400) for _ in range(length)], random.randint(1, 4))
        for n, length in enumerate(lengths)
    ]


def fit(
    model_dir: Path,
    out: Path,
    rows: list[Example] | None = None,
    epochs: int = 2,
    on_log: Callable[[dict[str, Any]], None] | None = None,
    trainee: Any = None,
    objective: Any = None,
    validation: Sequence[Any] = (),
    auxiliary: Auxiliary | None = None,
    **options: Any,
) -> tuple[Weights, dict[str, Any]]:
    """Trains with `DEFAULTS` unless `options`, fields of TrainConfig and EngineConfig, say otherwise.

    Returns:
        The trained weights, which the last export rounds to bf16 (none where the model was there already, or is none of
        `CausalTrainee`), and the summary.
    """
    from transformers import AutoTokenizer

    torch.compiler.reset()  # a process compiles a function only so often, and is to be as new as that of a user
    options = DEFAULTS | options
    train = TrainConfig(**{key: value for key, value in options.items() if hasattr(TrainConfig, key)})
    layout = Layout(**{key: value for key, value in options.items() if hasattr(Layout, key)})
    caught: list[Weights] = []
    export = trainees.export

    def note_and_export(model: Any, *rest: Any) -> None:
        caught.append(trained_weights(model))
        export(model, *rest)

    trainees.export = note_and_export
    try:
        summary = loop.train(
            trainee=trainee or CausalTrainee(model_dir, AutoTokenizer.from_pretrained(model_dir)),
            objective=objective or CausalLM(PAD_ID),
            examples=examples() if rows is None else rows,
            out=out,
            train=train,
            layout=layout,
            epochs=epochs,
            max_steps=0,
            seed=SEED,
            on_log=on_log,
            validation=validation,
            auxiliary=auxiliary,
        )
    finally:
        trainees.export = export
    return (caught[-1] if caught else {}), summary


def trained_weights(engine: Any) -> Weights:
    """In fp32, as the optimizer has them."""
    state = TrainedState(engine)
    return {name: state.read(name, WEIGHT).to("cpu", copy=True) for name in state.shapes}


def live_weights(engine: Any) -> Weights:
    """As the forward pass has them."""
    weights: Weights = {}
    sharded = engine.zero_optimization_partition_weights()
    for name, weight in engine.module.model.named_parameters():
        if weight.requires_grad:
            with deepspeed.zero.GatheredParameters([weight], enabled=sharded):
                weights[name] = weight.detach().to("cpu", copy=True)
    return weights


def interrupt_after(step: int) -> Callable[[dict[str, Any]], None]:
    """For `on_log`."""

    def on_log(row: dict[str, Any]) -> None:
        if row["step"] == step:
            raise Interrupted

    return on_log


def interrupted(model_dir: Path, out: Path, after: int, **options: Any) -> None:
    """Trains until every rank has written the checkpoint of step `after`, then dies."""
    save = checkpoints.save

    def save_and_die(engine: Any, folder: Path, progress: dict[str, Any]) -> int:
        written = save(engine, folder, progress)
        if progress["step"] == after:
            raise Interrupted
        return written

    checkpoints.save = save_and_die
    try:
        with suppress(Interrupted):
            fit(model_dir, out, **options)
    finally:
        checkpoints.save = save


def main(model_dir: Path, out: Path) -> None:
    for name, options in CASES.items():
        weights, _ = fit(model_dir, out / name, **options)
        if is_main():
            torch.save(weights, out / f"{name}.pt")
    resumed = out / "resumed"
    options = CASES["zero3"] | {"save_every_steps": 2}
    interrupted(model_dir, resumed, after=2, **options)
    weights, _ = fit(model_dir, resumed, **options)
    if is_main():
        torch.save(weights, out / "resumed.pt")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
