"""Compiled layers against eager ones over packs of many lengths."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo import utils

from sdx.training import engine
from sdx.training.hardware import can_compile
from sdx.training.objectives import CausalLM
from tests.kit.gpu.machine import CUDA, needs_cuda
from tests.kit.gpu.training import train
from tests.kit.tiny import tiny_gemma, tiny_model
from tests.kit.training import PAD_ID, examples

pytestmark = pytest.mark.gpu

ROUNDING = 0.003
"""Relative; a fused kernel rounds to bf16 less often."""
OF_SDX = Path(engine.__file__).parent


class Watched(CausalLM):
    """Notes at each training micro-batch its size in tokens and the layers' graphs until then."""

    def __init__(self) -> None:
        super().__init__(PAD_ID)
        self.sizes: list[int] = []
        self.graphs: list[int] = []

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            self.sizes.append(batch["inputs"]["input_ids"].numel())
            self.graphs.append(len(graphs_of_layers()))
        return super().loss(model, batch)


def graphs_of_layers() -> list[str]:
    """Why each graph of a decoder layer was compiled; sdx's own kernels and its probe of the compiler are none."""
    frames = [one for one in utils.get_compilation_metrics() if one.is_forward and one.co_filename]
    return [str(one.recompile_reason) for one in frames if not Path(one.co_filename).is_relative_to(OF_SDX)]


@pytest.mark.skipif(not can_compile(CUDA), reason="needs a compiler and Python's headers")
@pytest.mark.parametrize(
    ("make", "layer_types"),
    [pytest.param(tiny_model, 1, marks=needs_cuda), pytest.param(tiny_gemma, 2)],  # a graph takes the CPU half a minute
    ids=["llama", "gemma, with and without a window"],
)
def test_one_graph_a_layer_type_and_the_losses_of_eager_layers(
    tmp_path: Path, make: Callable[[Path], Path], layer_types: int
):
    model, rows, objective = make(tmp_path / "tiny"), examples(40), Watched()
    options: dict[str, Any] = {"batch_size": 8, "learning_rate": 1e-3, "micro_batch_tokens": 48}
    torch.compiler.reset()
    utils.clear_compilation_metrics()
    compiled = train(model, tmp_path / "compiled", rows, objective, compile=True, **options)
    assert len(set(objective.sizes)) > 6, "the packs are too much alike"
    assert len(graphs_of_layers()) == layer_types, graphs_of_layers()
    assert objective.graphs[2:] == [layer_types] * len(objective.graphs[2:])
    eager = train(model, tmp_path / "eager", rows, **options)
    assert compiled.losses == pytest.approx(eager.losses, rel=ROUNDING)
    assert eager.losses[-1] != pytest.approx(eager.losses[0], rel=ROUNDING), "nothing was learned"
