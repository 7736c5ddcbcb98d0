"""Objectives of a stack and its parts: alignment, distillation, classification, and the labels' words.

All but the last pool the hidden states of the topmost part over tokens: of a whole text, a choice or a word. A batch
says which tokens (`positions` in the flattened batch) belong to which vector (`owners`), see
`sdx.training.hidden_states`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sdx.models.loading import padded
from sdx.stacking.model import without_adapters
from sdx.store.files import read_json
from sdx.training import packing
from sdx.training.hidden_states import Span, pooled, pooling
from sdx.training.objectives import CausalLM, Example

SEQUENCE_SHARE = 1 / 3
"""Weight of the sequences' error in the loss if words count too (MT-LLM, later recipe)."""


@dataclass(frozen=True)
class TextExample:
    """A tokenised text, with what its objective needs."""

    id: str
    input_ids: list[int]
    spans: list[Span]
    """The tokens of each vector: one span of all tokens, or one for each choice; in alignment all, then each word."""
    group: str = ""
    label: int = -1
    llm_ids: list[int] = field(default_factory=list)
    """The LLM's own tokens: of the same text, for the teacher of the alignment, or of what follows the text."""
    llm_spans: list[Span] = field(default_factory=list)
    """`spans` in the same text."""


@dataclass(frozen=True)
class Collator:
    """Collates token ids for an encoder, whose states are packed if there is an LLM that takes packs, or for an LLM."""

    pads: Mapping[str, int]
    """The padding token of each part, "encoder" and "llm"."""

    @classmethod
    def of(cls, parts: Mapping[str, Path]) -> "Collator":
        """For the parts in these directories."""
        return cls({part: int(read_json(parts[part] / "config.json").get("pad_token_id") or 0) for part in parts})

    @property
    def pad_id(self) -> int:
        """Of the part that reads the ids."""
        return self.pads["encoder" if "encoder" in self.pads else "llm"]

    def collate(self, rows: Sequence[list[int]], spans: Sequence[Sequence[Span]], packed: bool) -> dict[str, Any]:
        """The model's inputs and the pooling of a batch."""
        packed = packed and "llm" in self.pads
        inputs: dict[str, Any] = packing.join(rows) if packed else padded(rows, self.pad_id)
        if packed and "encoder" in self.pads:
            inputs |= padded(rows, self.pad_id)
            inputs["token_index"] = inputs["attention_mask"].flatten().nonzero().squeeze(1)
        return {"inputs": inputs, **pooling(rows, spans, packed)}


class _Pooling:
    """Base of the objectives on pooled vectors: each text is one unit of the loss."""

    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def targets(self, example: TextExample) -> int:
        return 1

    def tokens(self, example: TextExample) -> int:
        return len(example.input_ids)

    def collate(self, examples: Sequence[TextExample], packed: bool) -> dict[str, Any]:
        batch = self.collator.collate([text.input_ids for text in examples], [text.spans for text in examples], packed)
        return {**batch, "labels": torch.tensor([text.label for text in examples])}

    def vectors(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """`[texts, hidden]`, or for several spans `[texts, spans, hidden]`."""
        vectors, texts = pooled(model.hidden_states(**batch["inputs"]), batch), len(batch["labels"])
        return vectors if len(vectors) == texts else vectors.view(texts, -1, vectors.shape[-1])


class Classification(_Pooling):
    """Cross-entropy of the head's logits over labels or choices, in nats."""

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        logits = model.classify(self.vectors(model, batch))
        loss = cross_entropy(logits, batch["labels"], reduction="sum")
        return loss, torch.full_like(loss, len(logits))

    def score(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The number of correct answers."""
        logits = model.classify(self.vectors(model, batch))
        correct = (logits.argmax(-1) == batch["labels"]).float().sum()
        return correct, torch.full_like(correct, len(logits))


class Probe(Classification):
    """Classification of stored vectors, `[spans, hidden]` by the text's id; only the head is trained."""

    def __init__(self, collator: Collator, stored: Mapping[str, Tensor]) -> None:
        super().__init__(collator)
        self.stored = stored

    def tokens(self, example: TextExample) -> int:
        return 1

    def collate(self, examples: Sequence[TextExample], packed: bool) -> dict[str, Any]:
        vectors = torch.stack([self.stored[text.id] for text in examples])
        return {"vectors": vectors.float(), "labels": torch.tensor([text.label for text in examples])}

    def vectors(self, model: Any, batch: dict[str, Any]) -> Tensor:
        vectors: Tensor = batch["vectors"]
        return vectors.squeeze(1)


class Distillation(Classification):
    """Squared error to the teacher's vectors, divided by their variance; no labels (MT-LLM, stage 2).

    The score counts correct answers of the head, which is the teacher's.

    Args:
        stored: the teacher's vectors, `[spans, hidden]` by the text's id.
        variance: of the teacher's vectors of the training data, over texts and dimensions.
    """

    def __init__(self, collator: Collator, stored: Mapping[str, Tensor], variance: float) -> None:
        super().__init__(collator)
        self.stored, self.variance = stored, variance

    def collate(self, examples: Sequence[TextExample], packed: bool) -> dict[str, Any]:
        teacher = torch.stack([self.stored[text.id] for text in examples])
        return {**super().collate(examples, packed), "teacher": teacher.float()}

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        teacher = batch["teacher"]
        errors = (self.vectors(model, batch).view_as(teacher) - teacher).square().flatten(1).mean(1)
        return errors.sum() / self.variance, torch.full_like(errors[0], len(errors))


class Alignment(_Pooling):
    """Squared error to the vectors of the same LLM without adapters, reading its own tokens (MT-LLM, stage 1).

    The error is divided by the variance of these vectors, so the loss is the fraction of variance unexplained: a
    student that gives every text the same vector has a loss of 1. The loss is the sequences' error alone, or a third of
    it and two thirds of the words' error, which is averaged over the words of each text.

    Args:
        variances: of the teacher's vectors of sequences and of words, over texts and dimensions.
        words: whether words count.
    """

    def __init__(self, collator: Collator, variances: tuple[float, float], words: bool) -> None:
        super().__init__(collator)
        self.teacher = Collator({"llm": collator.pads["llm"]})
        self.sequence_variance, self.word_variance = variances
        self.words = words

    def tokens(self, example: TextExample) -> int:
        """Of student and teacher."""
        return len(example.input_ids) + len(example.llm_ids)

    def collate(self, examples: Sequence[TextExample], packed: bool) -> dict[str, Any]:
        count = None if self.words else 1
        spans, llm_spans = ([getattr(text, name)[:count] for text in examples] for name in ("spans", "llm_spans"))
        counts = [len(of_text) for of_text in spans]
        return {
            **self.collator.collate([text.input_ids for text in examples], spans, packed),
            "teacher": self.teacher.collate([text.llm_ids for text in examples], llm_spans, packed),
            "sequences": torch.tensor([*accumulate(counts[:-1], initial=0)]),
            "words": torch.tensor(counts) - 1,
        }

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        sequences, words = self._errors(model, batch)
        loss = sequences.sum() / self.sequence_variance
        if self.words:
            loss = SEQUENCE_SHARE * loss + (1 - SEQUENCE_SHARE) * words.sum() / self.word_variance
        return loss, torch.full_like(loss, len(sequences))

    def score(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Minus the sequences' fraction of variance unexplained."""
        sequences, _ = self._errors(model, batch)
        return -sequences.sum() / self.sequence_variance, torch.full_like(sequences[0], len(sequences))

    def _errors(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Mean squared error of each text's sequence, and the mean over its words; both `[texts]`."""
        with torch.no_grad(), without_adapters(model.llm):
            teacher = pooled(model.llm_hidden_states(**batch["teacher"]["inputs"]), batch["teacher"])
        errors = (pooled(model.hidden_states(**batch["inputs"]), batch) - teacher).square().mean(1)
        sequences, words = errors.index_select(0, batch["sequences"]), batch["words"]
        texts = torch.arange(len(words), device=errors.device).repeat_interleave(words + 1)
        sums = torch.zeros_like(sequences).index_add(0, texts, errors)
        return sequences, (sums - sequences) / words.clamp(min=1)


class SoftPromptedLM(CausalLM):
    """Negative log-likelihood of the answers' tokens in nats. An example's `llm_ids` are the cue and the answer."""

    def __init__(self, encoder_pad_id: int, cue_tokens: int) -> None:
        super().__init__(encoder_pad_id)
        self.cue_tokens = cue_tokens

    def targets(self, example: TextExample) -> int:  # type: ignore[override]
        return len(example.llm_ids) - self.cue_tokens

    def tokens(self, example: TextExample) -> int:  # type: ignore[override]
        """What the LLM reads."""
        return len(example.input_ids) + len(example.llm_ids)

    def collate(self, examples: Sequence[TextExample], packed: bool) -> dict[str, Any]:  # type: ignore[override]
        """As `CausalLM.collate`, with the inputs of `StackForCausalLM`: a text is a row of indices that are gathered
        from the encoder's padded states and, behind these, the LLM's own tokens."""
        inputs: dict[str, Any] = padded([text.input_ids for text in examples], self.pad_id)
        width, states = inputs["input_ids"].shape[1], inputs["input_ids"].numel()
        starts = accumulate((len(text.llm_ids) for text in examples[:-1]), initial=states)
        rows = []
        for row, (text, start) in enumerate(zip(examples, starts, strict=True)):
            read = range(row * width, row * width + len(text.input_ids))
            own = range(start, start + len(text.llm_ids))
            rows.append(Example(text.id, [*read, *own], len(read) + self.cue_tokens))
        batch = CausalLM(pad_id=0).collate(rows, packed)
        llm_inputs = batch["inputs"]
        inputs["gather_index"] = llm_inputs.pop("input_ids")
        if not packed:
            inputs["llm_mask"] = llm_inputs.pop("attention_mask")
        inputs["llm_ids"] = torch.tensor([token for text in examples for token in text.llm_ids])
        return {**batch, "inputs": inputs | llm_inputs, "labels": inputs["llm_ids"][batch["labels"] - states]}
