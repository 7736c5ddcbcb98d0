"""A second trainable model: a frozen encoder, a projection, an LLM without its own ids, and a head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModel

from sdx.config import TrainConfig
from sdx.models.loading import padded
from sdx.process.ranks import is_main
from sdx.training import packing
from sdx.training.throughput import Cost
from tests.kit.tiny import VOCABULARY
from tests.kit.training import SEED, trained_weights

WIDTH = 24
CLASSES = 3
UP_RATE = 10.0


class Stack(nn.Module):
    def __init__(self, llm: Any) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, WIDTH))
        self.up = nn.Linear(WIDTH, llm.config.hidden_size)
        self.llm = llm
        self.head = nn.Linear(llm.config.hidden_size, CLASSES)

    def forward(self, input_ids: Tensor, **rest: Any) -> Tensor:
        """Last hidden states `[batch, seq, hidden]`."""
        with torch.no_grad():
            states = self.encoder(input_ids)
        hidden: Tensor = self.llm(inputs_embeds=self.up(states), use_cache=False, **rest)[0]
        return hidden


class TrainableStack:
    """
    Args:
        packs: whether `llm` names the part that takes packs.
    """

    def __init__(self, model_dir: Path, packs: bool = True) -> None:
        self.model_dir = model_dir
        self.packs = packs

    def load(self, dtype: torch.dtype, train: TrainConfig) -> nn.Module:
        stack = Stack(AutoModel.from_pretrained(self.model_dir, dtype=dtype)).to(dtype)
        stack.encoder.requires_grad_(False)
        stack.llm.get_input_embeddings().requires_grad_(False)  # nothing reads it but the probe
        return stack

    def llm(self, model: Any) -> Any:
        return model.llm if self.packs else None

    def rate(self, name: str) -> float:
        return UP_RATE if name.startswith("up.") else 1.0

    def cost(self, model: nn.Module) -> Cost:
        return Cost(1.0, 0.0)

    def export(self, engine: Any, out: Path) -> None:
        weights = trained_weights(engine)
        if is_main():
            out.mkdir(parents=True, exist_ok=True)
            torch.save(weights, out / "weights.pt")


@dataclass(frozen=True)
class Labelled:
    id: str
    input_ids: list[int]
    label: int
    group: str = ""


def labelled(count: int = 11) -> list[Labelled]:
    """The label is the class of the first token."""
    random = Random(SEED)
    ids = [[random.randrange(5, VOCABULARY) for _ in range(random.randint(4, 20))] for _ in range(count)]
    return [Labelled(f"x{n}", row, row[0] % CLASSES) for n, row in enumerate(ids)]


class Classes:
    """Cross-entropy of mean-pooled states; the score is the accuracy."""

    def collate(self, examples: Sequence[Labelled], packed: bool) -> dict[str, Any]:
        ids = [example.input_ids for example in examples]
        inputs = packing.join(ids) if packed else padded(ids, pad_id=3)
        labels = torch.tensor([example.label for example in examples])
        return {"inputs": inputs, "lengths": [len(row) for row in ids], "labels": labels}

    def targets(self, example: Labelled) -> int:
        return 1

    def tokens(self, example: Labelled) -> int:
        return len(example.input_ids)

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        loss = cross_entropy(self._logits(model, batch), batch["labels"], reduction="sum")
        return loss, torch.full_like(loss, len(batch["labels"]))

    def score(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        right = (self._logits(model, batch).argmax(1) == batch["labels"]).float()
        return right.sum(), torch.ones_like(right).sum()

    def _logits(self, model: Any, batch: dict[str, Any]) -> Tensor:
        hidden, lengths = model(**batch["inputs"]), batch["lengths"]
        packed = "cu_seq_lens_q" in batch["inputs"]
        rows = hidden[0].split(lengths) if packed else [row[:n] for row, n in zip(hidden, lengths, strict=True)]
        logits: Tensor = model.head(torch.stack([row.mean(0) for row in rows])).float()
        return logits
