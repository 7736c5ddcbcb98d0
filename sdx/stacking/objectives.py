"""Objectives of models that read a text and give vectors: alignment, distillation, classification.

All pool the states of the topmost part over tokens: of a whole text, of a choice, of a word. A batch says which tokens
(`positions`, counted through the flattened batch) belong to which vector (`owners`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sdx.models.loading import padded
from sdx.stacking.model import without_adapters
from sdx.training import packing
from sdx.training.hidden_states import Span, pooled, pooling
from sdx.training.objectives import CausalLM

SEQUENCE_SHARE = 1 / 3
"""Of the sequences' error in the loss, where words count, too (MT-LLM, later recipe)."""


@dataclass(frozen=True)
class Text:
    """A tokenised text for a reader, with a label, a teacher's vectors, or what the teacher reads."""

    id: str
    input_ids: list[int]
    spans: list[Span]
    """The tokens of each vector: one span of all of them, or one for each choice; in alignment all, then each word."""
    group: str = ""
    label: int = -1
    llm_ids: list[int] = field(default_factory=list)
    """The same text in the LLM's own tokens."""
    llm_spans: list[Span] = field(default_factory=list)
    """What the spans are in these."""


@dataclass(frozen=True)
class Reader:
    """What texts are collated for.

    Args:
        stacked: an encoder reads them: its rows are padded, and what it gives is packed where the LLM takes packs.
        llm: whether there is an LLM at all.
        pad_id: of who reads.
        llm_pad_id: of the LLM.
    """

    stacked: bool
    llm: bool
    pad_id: int
    llm_pad_id: int = 0

    def collate(self, rows: Sequence[list[int]], spans: Sequence[Sequence[Span]], packed: bool) -> dict[str, Any]:
        """The model's inputs and the pooling of a batch."""
        packed = packed and self.llm
        if not self.stacked:
            return _own_tokens(rows, spans, packed, self.pad_id)
        inputs: dict[str, Any] = padded(rows, self.pad_id)
        if packed:
            inputs |= {key: value for key, value in packing.join(rows).items() if key != "input_ids"}
            inputs["places"] = inputs["attention_mask"].flatten().nonzero().squeeze(1)
        return {"inputs": inputs, **pooling(rows, spans, packed)}


def _own_tokens(
    rows: Sequence[list[int]], spans: Sequence[Sequence[Span]], packed: bool, pad_id: int
) -> dict[str, Any]:
    inputs = packing.join(rows) if packed else padded(rows, pad_id)
    return {"inputs": inputs, **pooling(rows, spans, packed)}


class _Texts:
    """What the objectives share: one unit of loss for each text."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def targets(self, example: Text) -> int:
        return 1

    def tokens(self, example: Text) -> int:
        return len(example.input_ids)

    def collate(self, examples: Sequence[Text], packed: bool) -> dict[str, Any]:
        batch = self.reader.collate([one.input_ids for one in examples], [one.spans for one in examples], packed)
        return {**batch, "labels": torch.tensor([one.label for one in examples])}

    def vectors(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """`[texts, hidden]`, or of several spans `[texts, spans, hidden]`."""
        found = pooled(model.states(**batch["inputs"]), batch)
        texts = len(batch["labels"])
        return found if len(found) == texts else found.view(texts, -1, found.shape[-1])


class Classification(_Texts):
    """Cross-entropy of the head's logits, over labels or over choices, in nats."""

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        logits = model.classify(self.vectors(model, batch))
        loss = cross_entropy(logits, batch["labels"], reduction="sum")
        return loss, torch.full_like(loss, len(logits))

    def score(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Texts with the right answer."""
        logits = model.classify(self.vectors(model, batch))
        right = (logits.argmax(-1) == batch["labels"]).float().sum()
        return right, torch.full_like(right, len(logits))


class Probe(Classification):
    """The same for vectors that are there already: nothing below the head is trained.

    Args:
        stored: `[spans, hidden]` by the text's id.
    """

    def __init__(self, reader: Reader, stored: Mapping[str, Tensor]) -> None:
        super().__init__(reader)
        self.stored = stored

    def tokens(self, example: Text) -> int:
        return 1

    def collate(self, examples: Sequence[Text], packed: bool) -> dict[str, Any]:
        vectors = torch.stack([self.stored[one.id] for one in examples])
        return {"vectors": vectors.float(), "labels": torch.tensor([one.label for one in examples])}

    def vectors(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """`[texts, hidden]`, or of several choices `[texts, choices, hidden]`."""
        found: Tensor = batch["vectors"]
        return found.squeeze(1)


class Distillation(Classification):
    """Squared error to the teacher's vectors, as a share of their variance; no labels (MT-LLM, stage 2).

    The score is the share of right answers by the head that was the teacher's.

    Args:
        stored: the teacher's vectors, `[spans, hidden]` by the text's id.
        variance: of those of the training data, over all texts and dimensions.
    """

    def __init__(self, reader: Reader, stored: Mapping[str, Tensor], variance: float) -> None:
        super().__init__(reader)
        self.stored, self.variance = stored, variance

    def collate(self, examples: Sequence[Text], packed: bool) -> dict[str, Any]:
        taught = torch.stack([self.stored[one.id] for one in examples])
        return {**super().collate(examples, packed), "taught": taught.float()}

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        taught = batch["taught"]
        errors = (self.vectors(model, batch).view_as(taught) - taught).square().flatten(1).mean(1)
        return errors.sum() / self.variance, torch.full_like(errors[0], len(errors))


class Alignment(_Texts):
    """Squared error to the vectors of the same LLM that reads its own tokens without adapters (MT-LLM, stage 1).

    As a share of the variance of these vectors, so that the loss is the fraction of variance unexplained: 1 says
    nothing, and neither does a student that gives every text one vector. Sequences alone, or a third of it with two
    thirds of the words', each text's words averaged.

    Args:
        variances: of the teacher's vectors of sequences and of words, over all texts and dimensions.
        words: whether they count.
    """

    def __init__(self, reader: Reader, variances: tuple[float, float], words: bool) -> None:
        super().__init__(reader)
        self.of_sequences, self.of_words = variances
        self.words = words

    def tokens(self, example: Text) -> int:
        """Those of both readings."""
        return len(example.input_ids) + len(example.llm_ids)

    def collate(self, examples: Sequence[Text], packed: bool) -> dict[str, Any]:
        taken = None if self.words else 1
        batch = self.reader.collate(
            [one.input_ids for one in examples], [one.spans[:taken] for one in examples], packed
        )
        rows, spans = [one.llm_ids for one in examples], [one.llm_spans[:taken] for one in examples]
        teacher = _own_tokens(rows, spans, packed, self.reader.llm_pad_id)
        counts = torch.tensor([len(its) - 1 for its in spans])
        firsts = torch.tensor([0, *accumulate(len(its) for its in spans)][:-1])
        return {**batch, "teacher": teacher, "firsts": firsts, "words": counts}

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        sequences, words = self._errors(model, batch)
        loss = sequences.sum() / self.of_sequences
        if self.words:
            loss = SEQUENCE_SHARE * loss + (1 - SEQUENCE_SHARE) * words.sum() / self.of_words
        return loss, torch.full_like(loss, len(sequences))

    def score(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Minus the fraction of variance unexplained, of the sequences."""
        sequences, _ = self._errors(model, batch)
        return -sequences.sum() / self.of_sequences, torch.full_like(sequences[0], len(sequences))

    def _errors(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Mean squared error of each text's sequence, `[texts]`, and of its words."""
        with torch.no_grad(), without_adapters(model.llm):
            taught = pooled(model.states_of_llm(**batch["teacher"]["inputs"]), batch["teacher"])
        errors = (pooled(model.states(**batch["inputs"]), batch) - taught).square().mean(1)
        firsts, counts = batch["firsts"], batch["words"]
        sequences = errors.index_select(0, firsts)
        owners = torch.arange(len(firsts), device=errors.device).repeat_interleave(counts + 1)
        every = errors.new_zeros(len(firsts)).index_add(0, owners, errors)
        return sequences, (every - sequences) / counts.clamp(min=1)


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
