"""What is trained: how it is loaded, what of it learns how fast, what it costs and how it is written."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from sdx.config import TrainConfig

if TYPE_CHECKING:
    from sdx.training.quiet import deepspeed
    from sdx.training.throughput import Cost


class Trainee(Protocol):
    """A model on disk that the loop trains. The loop knows this seam and no architecture."""

    def load(self, dtype: torch.dtype, train: TrainConfig) -> nn.Module:
        """The model, loaded, adapters in place; what has `requires_grad` is trained.

        Called on every rank, with ZeRO-3's sharded loading around it; all ranks have the same random state.
        """

    def llm(self, model: nn.Module) -> Any:
        """The part that takes packs: a transformers model that takes ids, and perhaps embeddings too.

        It alone is asked by `probe`, compiled and checkpointed. None: there is no such part, and nothing is.
        """

    def rate(self, name: str) -> float:
        """By what the learning rate is multiplied for a trained parameter, above 0; its name is the model's."""

    def cost(self, model: nn.Module) -> "Cost":
        """FLOPs of training it. Sharded weights count whole."""

    def export(self, engine: "deepspeed.DeepSpeedEngine", out: Path) -> None:
        """Writes the model as it is now, all of it or nothing, in place of what was in `out`. Called on every rank."""
