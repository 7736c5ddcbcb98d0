"""What is minimised. The loop knows this seam and no objective."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sdx.models.loading import padded
from sdx.training import packing
from sdx.training.loss import linear_cross_entropy

Item = TypeVar("Item", contravariant=True)


class Objective(Protocol[Item]):
    """A loss that is a sum over units. The loop divides it by the number of units in the global batch.

    Examples have an `id` and a `group`, see `plan.Order`. `collate` runs on the CPU, `loss` on the device.
    """

    def collate(self, examples: Sequence[Item], packed: bool) -> dict[str, Any]:
        """A micro-batch of one example or more, as CPU tensors and plain numbers.

        Args:
            packed: the model takes packs (`packing.join`); else padded rows (`models.loading.padded`).
        """

    def targets(self, example: Item) -> int:
        """Units of the loss that the example adds: what `loss` counts."""

    def tokens(self, example: Item) -> int:
        """Useful tokens of the example: its length without padding."""

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The sum over the batch's units, with a gradient, and their count; two scalars.

        Runs inside the engine's forward. Weights may be sharded: use them by calling the modules they are in.
        """

    def score(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The same of what the model is selected by on validation data: higher is better. Runs without gradients."""


@dataclass(frozen=True)
class Auxiliary:
    """Examples with an objective of their own, whose batches take turns with those of a training (`plan.turn`).

    Args:
        name: in the log, where `<name>_loss` stands beside `loss`.
        batch_size: examples in a batch, over all ranks and micro-batches.
        share: of all optimizer steps, from 0 to less than 1.
    """

    name: str
    objective: Objective[Any]
    examples: Sequence[Any]
    batch_size: int
    share: float


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
        self._chunked = True

    def collate(self, examples: Sequence[Example], packed: bool) -> dict[str, Any]:
        """See `packing`.

        Returns:
            The model's inputs; and `positions` `[targets]`, where in the flattened `[batch * seq]` a target is
            predicted, with `labels` `[targets]`.
        """
        ids = [example.input_ids for example in examples]
        inputs = packing.join(ids) if packed else padded(ids, self.pad_id)
        lengths = [len(row) for row in ids]
        spans = lengths if packed else [max(lengths)] * len(lengths)
        starts = accumulate(spans[:-1], initial=0)
        positions = [
            torch.arange(length - self.targets(example), length) + (start - 1)
            for start, length, example in zip(starts, lengths, examples, strict=True)
        ]
        at = torch.cat(positions)
        return {"inputs": inputs, "positions": at, "labels": inputs["input_ids"].flatten()[at + 1]}

    def targets(self, example: Example) -> int:
        """Response tokens; the very first token of a text is predicted by nothing."""
        return max(0, len(example.input_ids) - max(1, example.prompt_tokens))

    def tokens(self, example: Example) -> int:
        return len(example.input_ids)

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Without the full logits, unless the model does something to its logits, such as soft-capping them."""
        inputs, positions, labels = batch["inputs"], batch["positions"], batch["labels"]
        head = model.get_output_embeddings()
        if self._chunked and getattr(head, "bias", None) is None:
            with _loss_as_output(head, positions, labels) as losses:
                output = model(**inputs, use_cache=False)
            # ZeRO-3 hands the head's output on as another tensor, of the same memory.
            if output.logits.data_ptr() == losses[0].data_ptr():
                return output.logits, torch.full_like(losses[0], len(positions))
            self._chunked = False
        with only_at(head, positions):
            output = model(**inputs, use_cache=False)
        loss = cross_entropy(output.logits[0].float(), labels, reduction="sum")
        return loss, torch.full_like(loss, len(positions))

    def score(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Minus the loss."""
        loss, count = self.loss(model, batch)
        return -loss, count


@contextmanager
def _loss_as_output(head: nn.Module, positions: Tensor, labels: Tensor) -> Iterator[list[Tensor]]:
    """While inside, calling the head gives the loss in place of logits, and puts it into the list.

    In the head rather than after the base model, because sharded weights are there only while their module is called.
    """
    losses: list[Tensor] = []

    def forward(hidden: Tensor) -> Tensor:
        losses.append(linear_cross_entropy(_select(hidden, positions), head.weight, labels))  # type: ignore[arg-type]
        return losses[-1]

    before = vars(head).get("forward")
    head.forward = forward
    try:
        yield losses
    finally:
        del head.forward
        if before is not None:
            head.forward = before


@contextmanager
def only_at(head: nn.Module, positions: Tensor) -> Iterator[None]:
    """While inside, the head sees the targets alone: `[batch, seq, hidden]` -> `[1, targets, hidden]`."""
    hook = head.register_forward_pre_hook(lambda _head, inputs: (_select(inputs[0], positions)[None],))
    try:
        yield
    finally:
        hook.remove()


def _select(hidden: Tensor, positions: Tensor) -> Tensor:
    return hidden.flatten(0, 1).index_select(0, positions)
