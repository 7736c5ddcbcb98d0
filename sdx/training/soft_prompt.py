"""Causal language modelling behind a soft prompt: the loss of what a stack writes after what its encoder read. Ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from sdx.models.loading import padded
from sdx.training import packing
from sdx.training.objectives import CausalLM


@dataclass(frozen=True)
class Prompted:
    """A text for the encoder, and what the LLM reads and writes after it."""

    id: str
    input_ids: list[int]
    """The encoder's."""
    written: list[int]
    """The LLM's own tokens, the cue and then the answer."""
    cue_tokens: int
    group: str = ""


class SoftPromptedLM(CausalLM):
    """Negative log-likelihood of the answers' tokens, in nats.

    Args:
        pad_id: of the encoder.
    """

    def targets(self, example: Prompted) -> int:  # type: ignore[override]
        return len(example.written) - example.cue_tokens

    def tokens(self, example: Prompted) -> int:  # type: ignore[override]
        """What the LLM reads."""
        return len(example.input_ids) + len(example.written)

    def collate(self, examples: Sequence[Prompted], packed: bool) -> dict[str, Any]:  # type: ignore[override]
        """As `CausalLM.collate`, with the inputs of `StackForCausalLM`."""
        inputs: dict[str, Any] = padded([one.input_ids for one in examples], self.pad_id)
        width = inputs["input_ids"].shape[1]
        behind = accumulate((len(one.written) for one in examples[:-1]), initial=len(examples) * width)
        rows = [
            [*range(number * width, number * width + len(one.input_ids)), *range(first, first + len(one.written))]
            for number, (one, first) in enumerate(zip(examples, behind, strict=True))
        ]
        read = packing.join(rows) if packed else padded(rows, 0)
        inputs["order"] = read.pop("input_ids")
        if not packed:
            inputs["llm_mask"] = read.pop("attention_mask")
        inputs |= {**read, "written": torch.tensor([token for one in examples for token in one.written])}
        lengths = [len(row) for row in rows]
        starts = accumulate(lengths[:-1] if packed else [max(lengths)] * (len(rows) - 1), initial=0)
        positions = [
            torch.arange(start + length - self.targets(one), start + length) - 1
            for start, length, one in zip(starts, lengths, examples, strict=True)
        ]
        labels = [token for one in examples for token in one.written[one.cue_tokens :]]
        return {"inputs": inputs, "positions": torch.cat(positions), "labels": torch.tensor(labels)}
