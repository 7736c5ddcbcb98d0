"""Texts that a model reads as one sequence, such as a premise and a hypothesis, and which tokens are whose.

Each text is tokenised alone and the ids are laid end to end with a separator between them, so that a text's tokens are
known exactly and no tokenizer can leave the separator out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Encoded:
    """A sequence of texts, as ids."""

    ids: list[int]
    spans: list[tuple[int, int]]
    """Of each text, the place of its first token and the one after its last."""
    offsets: list[list[tuple[int, int]]]
    """Of each text, the characters of each of its tokens, first and one after the last; empty where the tokenizer
    cannot say."""
    cut: bool = False
    """Whether texts lost their ends."""


class Segments:
    """Encodes sequences of texts for one model.

    Args:
        tokenizer: of transformers.
        before, between, after: ids in front of the first text, between two, and behind the last.
        context: tokens of the longest sequence that the model reads; none: it has no limit.
    """

    def __init__(
        self,
        tokenizer: Any,
        before: Sequence[int],
        between: Sequence[int],
        after: Sequence[int],
        context: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.before, self.between, self.after = list(before), list(between), list(after)
        self.context = context

    @property
    def has_offsets(self) -> bool:
        """Whether the tokenizer can say which characters a token is made of."""
        return bool(self.tokenizer.is_fast)

    def encode(self, rows: Sequence[Sequence[str]], max_tokens: int, offsets: bool = True) -> list[Encoded]:
        """Each row's texts as one sequence; where it is longer than `max_tokens`, or than the model reads, its longest
        texts lose their ends.

        Args:
            offsets: whether to find the characters of each token, where that can be said.
        """
        limit = min(max_tokens, self.context or max_tokens)
        flat = [text for row in rows for text in row]
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        wanted = offsets and self.has_offsets
        found = self.tokenizer(flat, return_offsets_mapping=wanted, **options) if flat else {"input_ids": []}
        places = found.get("offset_mapping") or [[]] * len(flat)
        texts = iter(zip(found["input_ids"], places, strict=True))
        return [self._joined([next(texts) for _ in row], limit) for row in rows]

    def _joined(self, texts: list[tuple[list[int], list[Any]]], max_tokens: int) -> Encoded:
        room = max_tokens - len(self.before) - len(self.after) - len(self.between) * (len(texts) - 1)
        sizes = fitted([len(ids) for ids, _ in texts], room)
        ids, spans, offsets = list(self.before), [], []
        for number, ((tokens, places), size) in enumerate(zip(texts, sizes, strict=True)):
            ids += self.between if number else []
            spans.append((len(ids), len(ids) + size))
            ids += tokens[:size]
            offsets.append([(int(start), int(end)) for start, end in places[:size]])
        return Encoded([*ids, *self.after], spans, offsets, cut=sum(sizes) < sum(len(ids) for ids, _ in texts))


def fitted(sizes: Sequence[int], room: int) -> list[int]:
    """The sizes, the largest cut to one limit, so that their sum is within `room`; at least 1 where there was 1."""
    left, limits = max(room, 0), list(sizes)
    for done, index in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        share = max(left // (len(sizes) - done), min(1, sizes[index]))
        limits[index] = min(sizes[index], share)
        left -= limits[index]
    return limits


def llm_segments(tokenizer: Any) -> Segments:
    """Texts for an LLM: BOS first where the tokenizer itself puts one, a line break between two, no EOS. Ours."""

    def ids(text: str, special: bool = False) -> list[int]:
        return list(tokenizer(text, add_special_tokens=special)["input_ids"])

    bos = tokenizer.bos_token_id
    before = [bos] if bos is not None and ids("a", special=True)[:1] == [bos] else []
    alone, followed = ids("a"), ids("a\n")
    # SentencePiece puts a space in front of a line break that begins a text.
    between = followed[len(alone) :] if followed[: len(alone)] == alone else ids("\n")
    return Segments(tokenizer, before, between, [])
