"""What is minimised. The loop knows the protocol `Objective` and no objective."""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.functional import cross_entropy

from sdx.models.loading import padded
from sdx.process.ranks import rank, world_size
from sdx.training import packing
from sdx.training.loss import linear_cross_entropy
from sdx.training.schedule import micro_batches

if TYPE_CHECKING:
    from sdx.training.quiet import deepspeed

AnyExample = TypeVar("AnyExample", contravariant=True)


class Objective(Protocol[AnyExample]):
    """A loss that is a sum over units. The loop divides it by the number of units in the global batch.

    Examples have an `id` and a `group`, see `schedule.Order`. `collate` runs on the CPU, `loss` on the device.
    """

    def collate(self, examples: Sequence[AnyExample], packed: bool) -> dict[str, Any]:
        """A micro-batch of one example or more, as CPU tensors and plain numbers.

        Args:
            packed: the model takes packs (`packing.join`); otherwise padded rows (`models.loading.padded`).
        """

    def targets(self, example: AnyExample) -> int:
        """Units of the loss that the example adds, as counted by `loss`."""

    def tokens(self, example: AnyExample) -> int:
        """Useful tokens of the example: its length without padding."""

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The sum over the batch's units, with a gradient, and their count; two scalars.

        Runs inside the engine's forward. Weights may be sharded: use them by calling the modules they are in.
        """

    def score(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The same for the score by which the model is selected: higher is better. Runs without gradients."""


@contextmanager
def evaluating(engine: "deepspeed.DeepSpeedEngine") -> Iterator[None]:
    """The engine without dropout, gradients and compiled kernels."""
    training = engine.module.training
    engine.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        engine.train(training)


def validate(
    engine: "deepspeed.DeepSpeedEngine", objective: Objective[Any], examples: Sequence[Any], budget: int
) -> float:
    """Mean of `objective.score` over validation examples, in micro-batches of `budget` tokens.

    Called on every rank, with the same result.
    """
    packed = engine.module.packed
    lengths = [objective.tokens(example) for example in examples]
    sums = torch.zeros(2, dtype=torch.float64, device=engine.device)
    with evaluating(engine):
        for shares in micro_batches(range(len(examples)), lengths, budget, world_size(), packed):
            # A rank without examples runs one with weight 0: the other ranks wait for it to gather weights.
            share = shares[rank()]
            batch = objective.collate([examples[index] for index in share or [0]], packed)
            score, count = engine(objective.score, send_to_device(batch, engine.device, non_blocking=True))
            if share:
                sums += torch.stack([score, count])
    dist.all_reduce(sums)
    total, counted = sums.tolist()
    return float(total / counted)


@dataclass(frozen=True)
class Auxiliary:
    """Examples with an objective of their own, whose batches alternate with those of a training (`schedule.turn`).

    Args:
        name: the log has `<name>_loss` beside `loss`.
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
    """A tokenised prompt and response, which begins after `prompt_tokens`."""

    id: str
    input_ids: Sequence[int]
    prompt_tokens: int
    group: Hashable = ""
    """Examples of one group stay together in the shuffled order (`train.keep_groups`)."""


class CausalLM:
    """Negative log-likelihood of the response's tokens, in nats."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id
        self._chunked = True

    def collate(self, examples: Sequence[Example], packed: bool) -> dict[str, Any]:
        """
        Returns:
            The model's `inputs`; `positions` `[targets]` in the flattened `[batch * seq]` at which a target is
            predicted; and `labels` `[targets]`.
        """
        ids = [example.input_ids for example in examples]
        inputs = packing.join(ids) if packed else padded(ids, self.pad_id)
        lengths = [len(row) for row in ids]
        spans = zip(packing.starts(lengths, packed), lengths, map(self.targets, examples), strict=True)
        labels = torch.cat([start + torch.arange(length - targets, length) for start, length, targets in spans])
        return {"inputs": inputs, "positions": labels - 1, "labels": inputs["input_ids"].flatten()[labels]}

    def targets(self, example: Example) -> int:
        """Response tokens; nothing predicts the first token of a text."""
        return max(0, len(example.input_ids) - max(1, example.prompt_tokens))

    def tokens(self, example: Example) -> int:
        return len(example.input_ids)

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Without the full logits, unless the model transforms its logits, as soft-capping does."""
        inputs, positions, labels = batch["inputs"], batch["positions"], batch["labels"]
        head = model.get_output_embeddings()
        if self._chunked and getattr(head, "bias", None) is None:
            with _loss_as_output(head, positions, labels) as losses:
                output = model(**inputs, use_cache=False)
            # At ZeRO-3 the head's output is passed on as another tensor with the same memory.
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
    """While inside, the head returns the loss instead of logits, and appends it to the list.

    Computed in the head, because sharded weights exist only while their module is called.
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
    """While inside, the head gets the targets alone: `[batch, seq, hidden]` -> `[1, targets, hidden]`."""
    hook = head.register_forward_pre_hook(lambda _head, inputs: (_select(inputs[0], positions)[None],))
    try:
        yield
    finally:
        hook.remove()


def _select(hidden: Tensor, positions: Tensor) -> Tensor:
    return hidden.flatten(0, 1).index_select(0, positions)
