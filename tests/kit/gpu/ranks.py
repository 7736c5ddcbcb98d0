"""Under torchrun, as `-m tests.kit.gpu.ranks <model> <out> <layout>...`: trains each layout, in `out/<layout>`.

Each rank makes the files `out/<process id>.pid` and `out/<layout>.<rank>.json`, a `Trained`. With the layout `failing`,
rank 1 raises in the forward pass of the second step, and makes the file `out/failed`.
"""

import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdx.process.failure import Failure, leave
from sdx.process.ranks import device, is_main, rank
from sdx.store.files import write_json
from sdx.training.objectives import CausalLM
from tests.kit.gpu.machine import warm
from tests.kit.gpu.training import train
from tests.kit.training import PAD_ID

FAILING = "failing"
MESSAGE = "put into rank 1 by a test"
OPTIONS: dict[str, dict[str, Any]] = {
    "zero1": {"zero_stage": 1},
    "zero2": {"zero_stage": 2},
    "zero3": {"zero_stage": 3},
    FAILING: {"zero_stage": 2, "save_every_steps": 100},
}


class Failing(CausalLM):
    """Args: out: where `failed` is made."""

    def __init__(self, out: Path) -> None:
        super().__init__(PAD_ID)
        self.out = out
        self.steps_left = 2

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if model.training:
            self.steps_left -= 1
        if rank() == 1 and not self.steps_left:
            (self.out / "failed").touch()
            raise RuntimeError(MESSAGE)
        return super().loss(model, batch)


def main(model_dir: Path, out: Path, layouts: list[str]) -> None:
    (out / f"{os.getpid()}.pid").touch()
    here = device()
    if here.type == "cuda":
        torch.cuda.set_device(here)
    warm(here)
    failure = Failure(out)
    for name in layouts:
        objective = Failing(out) if name == FAILING else None
        try:
            trained = train(model_dir, out / name, objective=objective, **OPTIONS[name])
        except RuntimeError as error:  # as `sdx.run` and `sdx.cli.main` do
            failure.report(error)
            leave(failure, error)
        write_json(out / f"{name}.{rank()}.json", asdict(trained))
        if is_main():
            shutil.rmtree(out / name / "model")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
