"""Sequences of texts that a model reads as one, such as a premise and a hypothesis, and which tokens are whose.

Each text is tokenised alone and the ids are joined with a separator, so the tokens of each text are known exactly and
no tokenizer can leave the separator out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Encoded:
    """A sequence of texts, as ids."""

    ids: list[int]
    spans: list[tuple[int, int]]
    """Of each text the index of its first token and the one after its last."""
    offsets: list[list[tuple[int, int]]]
    """Of each text the characters of its tokens, first and one after the last; empty if the tokenizer cannot say."""
    cut: bool = False
    """Whether texts were cut."""


@dataclass(frozen=True)
class SequenceTokenizer:
    """Encodes sequences of texts for one model."""

    tokenizer: Any
    """Of transformers."""
    before: list[int]
    between: list[int]
    after: list[int]
    """Ids before the first text, between two, and after the last."""
    context: int | None = None
    """Longest sequence that the model reads, in tokens; None: no limit."""

    def encode(self, rows: Sequence[Sequence[str]], max_tokens: int, offsets: bool = True) -> list[Encoded]:
        """Each row's texts as one sequence. If it exceeds `max_tokens` or the context, its longest texts are cut.

        With `offsets`, the characters of each token are found, if the tokenizer can.
        """
        limit = min(max_tokens, self.context or max_tokens)
        flat = [text for row in rows for text in row]
        if not flat:
            return []
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        offsets = offsets and self.tokenizer.is_fast
        encoded = self.tokenizer(flat, return_offsets_mapping=offsets, **options)
        characters = encoded["offset_mapping"] if offsets else [[]] * len(flat)
        texts = iter(zip(encoded["input_ids"], characters, strict=True))
        return [self._join([next(texts) for _ in row], limit) for row in rows]

    def _join(self, texts: list[tuple[list[int], list[Any]]], max_tokens: int) -> Encoded:
        room = max_tokens - len(self.before) - len(self.after) - len(self.between) * (len(texts) - 1)
        sizes = truncated_sizes([len(ids) for ids, _ in texts], room)
        ids, spans, offsets = list(self.before), [], []
        for number, ((tokens, characters), size) in enumerate(zip(texts, sizes, strict=True)):
            ids += self.between if number else []
            spans.append((len(ids), len(ids) + size))
            ids += tokens[:size]
            offsets.append([(int(start), int(end)) for start, end in characters[:size]])
        return Encoded([*ids, *self.after], spans, offsets, cut=sum(sizes) < sum(len(tokens) for tokens, _ in texts))


def truncated_sizes(sizes: Sequence[int], room: int) -> list[int]:
    """The sizes with the largest cut to one limit, so that their sum is at most `room`; at least 1 of each is left."""
    left, limits = max(room, 0), list(sizes)
    for done, index in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        share = max(left // (len(sizes) - done), min(1, sizes[index]))
        limits[index] = min(sizes[index], share)
        left -= limits[index]
    return limits


def llm_tokenizer(tokenizer: Any) -> SequenceTokenizer:
    """For an LLM: BOS first if the tokenizer itself puts one, a line break between two texts, no EOS. Ours."""

    def ids(text: str, special: bool = False) -> list[int]:
        return list(tokenizer(text, add_special_tokens=special)["input_ids"])

    bos = tokenizer.bos_token_id
    before = [bos] if bos is not None and ids("a", special=True)[:1] == [bos] else []
    alone, followed = ids("a"), ids("a\n")
    # SentencePiece puts a space in front of a line break that begins a text.
    between = followed[len(alone) :] if followed[: len(alone)] == alone else ids("\n")
    return SequenceTokenizer(tokenizer, before, between, [])
