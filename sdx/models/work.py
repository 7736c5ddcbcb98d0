"""What a step asks of the hardware where a model does it: passes over tokens, and the memory of a row."""

import math
from dataclasses import dataclass, field, replace

from sdx.config import ShapeConfig
from sdx.models.batches import BF16, READ_TOKENS, ROWS, Arithmetic, Most
from sdx.store.estimate import Work


@dataclass(frozen=True)
class ModelWork(Work):
    """Work of a model, in tokens.

    Args:
        shape: of the model.
        read: tokens of given text in forward passes.
        generated: tokens.
        rows: texts, completed or read in batches.
        most: the most rows of a batch, unless memory sets the limit.
        row_bytes: of a GPU's memory that a row takes.
        beams: sequences in which each row is decoded.
        decode_steps: forward passes that give each row of a batch a token.
        trained: tokens over all epochs.
        steps: of the optimizer.
        passes: forward passes over given text, for each batch.
        context: mean tokens attended to.
        also: forward passes of other models in the same step: an encoder, a teacher. Those of a training are on all
            ranks.
        arithmetic: in what the model computes.
        engine: what runs the model, if not transformers in this process: a name in `sdx.planning.rates`.
    """

    shape: ShapeConfig = field(default_factory=ShapeConfig)
    read: float = 0.0
    generated: float = 0.0
    rows: float = 1.0
    most: Most = ROWS
    row_bytes: float = 0.0
    beams: int = 1
    decode_steps: float = 0.0
    trained: float = 0.0
    steps: float = 0.0
    passes: float = 0.0
    context: float = 0.0
    also: tuple["ModelWork", ...] = ()
    arithmetic: Arithmetic = BF16
    engine: str = ""

    def without_loading(self) -> "ModelWork":
        return replace(self, loads=0, also=tuple(one.without_loading() for one in self.also))


def reading(shape: ShapeConfig, rows: float, tokens: float, arithmetic: Arithmetic) -> ModelWork:
    """One pass over texts of a mean length."""
    passes = math.ceil(rows * tokens / READ_TOKENS.gpu)
    return ModelWork(shape=shape, read=rows * tokens, passes=passes, context=tokens / 2, arithmetic=arithmetic)


def most_rows(given: int | None) -> Most:
    """The most rows of a batch: what the user gave, or the default of each device."""
    return Most(given, given) if given else ROWS
