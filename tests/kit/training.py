"""Training in tests: a tiny model, examples of many lengths, and the trained weights before they are rounded.

Under torchrun, as `training.py <model> <out>`: trains every case of `CASES`; rank 0 saves the weights of each.
"""

import gc
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import torch

from sdx.config import Adapter, Precision, TrainConfig
from sdx.process.ranks import is_main
from sdx.training import checkpoints, loop
from sdx.training import trainable as trainables
from sdx.training.memory import Layout
from sdx.training.objectives import Auxiliary, CausalLM, Example
from sdx.training.quiet import deepspeed
from sdx.training.trainable import TrainableLM
from sdx.training.trained_state import WEIGHT, TrainedState

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
    trainable: Any = None,
    objective: Any = None,
    validation: Sequence[Any] = (),
    auxiliary: Auxiliary | None = None,
    **options: Any,
) -> tuple[Weights, dict[str, Any]]:
    """Trains with `DEFAULTS` unless `options`, fields of TrainConfig and EngineConfig, say otherwise.

    Returns:
        The trained weights before the last export rounds them to bf16 (none if the model existed already or is not a
        `TrainableLM`), and the summary.
    """
    from transformers import AutoTokenizer

    torch.compiler.reset()  # a process compiles a function only so often, and is to be as new as that of a user
    options = DEFAULTS | options
    train = TrainConfig(**{key: value for key, value in options.items() if hasattr(TrainConfig, key)})
    layout = Layout(**{key: value for key, value in options.items() if hasattr(Layout, key)})
    caught: list[Weights] = []
    export = trainables.export

    def note_and_export(model: Any, *rest: Any) -> None:
        caught.append(trained_weights(model))
        export(model, *rest)

    trainables.export = note_and_export
    try:
        summary = loop.train(
            trainable=trainable or TrainableLM(model_dir, AutoTokenizer.from_pretrained(model_dir)),
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
        trainables.export = export
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


def rows_of(out: Path) -> list[dict[str, Any]]:
    """What was logged of each step."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in rows_of(out)]


def grad_norms(out: Path) -> list[float]:
    """Before clipping: the gradient's scale shows nowhere else, clipping and Adam undo it."""
    return [row["grad_norm"] for row in rows_of(out)]


def assert_close(ours: Weights, theirs: Weights, tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def plain_loss(model: torch.nn.Module, rows: list[Example]) -> torch.Tensor:
    """Sum over the response tokens as transformers computes it, one row at a time."""
    total = torch.zeros(())
    for row in rows:
        labels = torch.tensor([row.input_ids])
        labels[0, : row.prompt_tokens] = -100
        count = len(row.input_ids) - row.prompt_tokens
        total = total + model(input_ids=torch.tensor([row.input_ids]), labels=labels).loss * count
    return total


def alive() -> tuple[int, int]:
    """Engines, and the bytes of all tensors' storages, each counted once; garbage that nobody collected counts."""
    objects = gc.get_objects()
    engines = [one for one in objects if type(one) is deepspeed.DeepSpeedEngine]
    storages = {}
    for one in objects:
        if type(one) in (torch.Tensor, torch.nn.Parameter) and one.device.type == "cpu":
            storages[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return len(engines), sum(storages.values())


def steps_of(out: Path) -> list[int]:
    return [row["step"] for row in rows_of(out)]


def checkpoints_of(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").glob("*"))


@contextmanager
def replaced(place: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def whole_and_resumed(model_dir: Path, out: Path, **options: Any) -> tuple[Weights, Weights]:
    """Weights of a training in one go, and of one that goes on from the middle of it."""
    save = checkpoints.save

    def save_and_keep(engine: Any, folder: Path, progress: dict[str, Any]) -> bool:
        written = save(engine, folder, progress)
        if is_main():
            shutil.copytree(folder, out / "parts/checkpoints")
        return written

    with replaced(checkpoints, "save", save_and_keep):
        whole, _ = fit(model_dir, out / "whole", save_every_steps=2, **options)
    assert not is_main() or checkpoints_of(out / "parts") == ["step_2"]
    resumed, _ = fit(model_dir, out / "parts", **options)
    assert not is_main() or steps_of(out / "parts") == [3, 4]
    return whole, resumed


def assert_equal(ours: Weights, theirs: Weights) -> None:
    assert ours.keys() == theirs.keys()
    different = [name for name, weight in ours.items() if not torch.equal(weight, theirs[name])]
    assert not different, f"{len(different)} of {len(ours)} differ, {different[0]} first"


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
