"""What is minimised. The loop knows this seam and no objective."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Item = TypeVar("Item", contravariant=True)


class Objective(Protocol[Item]):
    """A loss that is a sum over units. The loop divides it by the number of units in the global batch.

    Examples have an `id` and a `group`, see `plan.Order`. All methods are pure functions; `collate` runs on the CPU,
    `loss` on the device.
    """

    def collate(self, examples: Sequence[Item]) -> dict[str, Tensor]:
        """A micro-batch of one example or more, as CPU tensors."""

    def targets(self, example: Item) -> int:
        """Units of the loss that the example adds: what `loss` counts."""

    def tokens(self, example: Item) -> int:
        """Useful tokens of the example: its length without padding."""

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The sum over the batch's units, with a gradient, and their count; two scalars.

        Runs inside the engine's forward. Weights may be sharded: use them by calling the modules they are in.
        """


@dataclass(frozen=True)
class Example:
    """A tokenised prompt and response; the tokens from `prompt_tokens` on are the response."""

    id: str
    input_ids: list[int]
    prompt_tokens: int
    group: str = ""
    """Examples of one group stay together in the shuffled order (`train.keep_groups`)."""


class CausalLM:
    """Negative log-likelihood of the response's tokens, in nats."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def collate(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Pads on the right.

        Returns:
            `input_ids` and `attention_mask`, both `[batch, seq]`; `positions` `[targets]`, where in the
            flattened `[batch * seq]` a target is predicted; `labels` `[targets]`.
        """
        seq = max(len(example.input_ids) for example in examples)
        input_ids = torch.full((len(examples), seq), self.pad_id)
        attention_mask = torch.zeros((len(examples), seq), dtype=torch.long)
        positions = []
        for row, example in enumerate(examples):
            length = len(example.input_ids)
            input_ids[row, :length] = torch.tensor(example.input_ids)
            attention_mask[row, :length] = 1
            positions.append(torch.arange(length - self.targets(example), length) + (row * seq - 1))
        at = torch.cat(positions)
        labels = input_ids.flatten()[at + 1]
        return {"input_ids": input_ids, "attention_mask": attention_mask, "positions": at, "labels": labels}

    def targets(self, example: Example) -> int:
        """Response tokens; the very first token of a text is predicted by nothing."""
        return max(0, len(example.input_ids) - max(1, example.prompt_tokens))

    def tokens(self, example: Example) -> int:
        return len(example.input_ids)

    def loss(self, model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits `[targets, vocabulary]` only where a target is predicted: the head costs the most memory."""
        positions = batch["positions"]

        def select(_head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
            """`[batch, seq, hidden]` -> `[targets, hidden]`"""
            return (inputs[0].flatten(0, 1).index_select(0, positions),)

        # On the way into the head rather than after the base model: what a model does to its logits, such as
        # soft-capping, stays its own business.
        hook = model.get_output_embeddings().register_forward_pre_hook(select)
        try:
            output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        finally:
            hook.remove()
        loss = cross_entropy(output.logits.float(), batch["labels"], reduction="sum")
        return loss, torch.full_like(loss, len(positions))
