"""The texts of the alignment in both tokenizers, on disk: millions of them are read where they lie.

encoder.ids llm.ids            int32, one text after the other
words                          int32 [words, 4], a word's tokens in the encoder's ids and in the LLM's
*.ends                         int64, where each text ends in these
"""

import os
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, ClassVar

from sdx.languages import ENGLISH, language
from sdx.stacking.parts import PartsStep
from sdx.stacking.segments import Encoded
from sdx.stacking.texts import read_texts
from sdx.stacking.work import cut
from sdx.store.estimate import Estimate, Plan, Work
from sdx.store.step import Step, Workspace

CHUNK = 1000
TOKENISED_PER_S = 60_000.0
"""Tokens a second in both tokenizers, their words aligned, in one process. Assumed."""
END = "<i8"
ARRAYS = {"encoder.ids": "<i4", "llm.ids": "<i4", "words": "<i4"}


@dataclass(frozen=True, eq=False)
class TokensStep(PartsStep):
    """Publishes the texts of `rows.jsonl` as ids, cut at `max_tokens` in either tokenizer."""

    name: ClassVar[str] = "tokens"
    is_data: ClassVar[bool] = True

    texts: Step
    max_tokens: int

    @property
    def config(self) -> Mapping[str, Any]:
        return {**super().config, "prefix": self.parts.prefix}

    @property
    def about(self) -> str:
        return self.texts.about

    def estimate(self, plan: Plan) -> Estimate:
        texts = plan.rows(self.texts)
        tokens = texts.count * cut(texts.of("text"), self.max_tokens)
        return Estimate(texts.count, tokens, work=Work(seconds=2 * tokens / TOKENISED_PER_S))

    def run(self, work: Workspace) -> None:
        """Chunk by chunk. Where each text ends is written last, so that it tells what a kill left whole."""
        import numpy as np
        from transformers import AutoTokenizer

        from sdx.models.loading import pretrained
        from sdx.stacking.encoder_languages import encoder_segments
        from sdx.stacking.segments import llm_segments

        read = encoder_segments(work.inputs["encoder"] / "model", self.parts.prefix, language(ENGLISH))
        own = llm_segments(pretrained(AutoTokenizer, work.inputs["backbone"] / "model"))
        ends = {name: _whole(work.dir, name) for name in ARRAYS}
        done = min(len(its) for its in ends.values()) // CHUNK * CHUNK
        for name, its in ends.items():
            del its[done:]
            _cut(work.dir, name, its)
        texts = islice(read_texts(work.inputs["texts"]), done, None)
        while chunk := [[text] for text in islice(texts, CHUNK)]:
            rows: dict[str, list[list[int]]] = {name: [] for name in ARRAYS}
            for [text], one, other in zip(
                chunk, read.encode(chunk, self.max_tokens), own.encode(chunk, self.max_tokens), strict=True
            ):
                places = [place for its in aligned(text, one, other) for span in its for place in span]
                for name, new in zip(ARRAYS, (one.ids, other.ids, places), strict=True):
                    rows[name].append(new)
            for name, kind in ARRAYS.items():
                last = ends[name][-1] if ends[name] else 0
                new_ends = [last + size for size in accumulate(map(len, rows[name]))]
                ends[name] += new_ends
                for file, values, of in (
                    (name, [*chain.from_iterable(rows[name])], kind),
                    (f"{name}.ends", new_ends, END),
                ):
                    with (work.dir / file).open("ab") as out:
                        out.write(np.array(values, of).tobytes())
                        out.flush()
                        os.fsync(out.fileno())  # in this order: an end that is on disk has its values there
        counts = {name: ends[name][-1] for name in ARRAYS}
        work.counts.update(texts=len(ends["words"]), tokens=counts["encoder.ids"], words=counts["words"] // 4)


def _whole(folder: Path, name: str) -> list[int]:
    """The ends that are on disk, without zeros that a power cut left."""
    import numpy as np

    path = folder / f"{name}.ends"
    if not path.exists():
        return []
    ends = np.frombuffer(path.read_bytes()[: path.stat().st_size // 8 * 8], END)
    falls = np.flatnonzero(np.diff(ends) < 0)
    return list(ends[: falls[0] + 1 if len(falls) else None].tolist())


def _cut(folder: Path, name: str, ends: list[int]) -> None:
    """Drops what is behind the last whole chunk."""
    import numpy as np

    for file, size in (
        (name, ends[-1] * np.dtype(ARRAYS[name]).itemsize if ends else 0),
        (f"{name}.ends", 8 * len(ends)),
    ):
        with (folder / file).open("ab") as out:
            out.truncate(size)


@dataclass(frozen=True)
class AlignmentText:
    """As `sdx.stacking.objectives.Text`; its words are looked at in its turn, its length is asked of all before."""

    id: str
    input_ids: list[int]
    llm_ids: list[int]
    words: list[int]
    """Four numbers for each, see the module's text."""
    group: str = ""
    label: int = -1

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        return [(0, len(self.input_ids)), *zip(self.words[::4], self.words[1::4], strict=True)]

    @cached_property
    def llm_spans(self) -> list[tuple[int, int]]:
        return [(0, len(self.llm_ids)), *zip(self.words[2::4], self.words[3::4], strict=True)]


class AlignmentTexts(Sequence[Any]):
    """What `TokensStep` published, of the texts from `first` to before `last`; read where it lies."""

    def __init__(self, directory: Path, first: int = 0, last: int | None = None) -> None:
        import numpy as np

        self._ends = {name: np.fromfile(directory / f"{name}.ends", END) for name in ARRAYS}
        self._arrays = {
            name: np.memmap(directory / name, kind, "r") if (directory / name).stat().st_size else np.empty(0, kind)
            for name, kind in ARRAYS.items()
        }
        self._range = range(len(self._ends["words"]))[first:last]

    def __len__(self) -> int:
        return len(self._range)

    @property
    def words(self) -> Any:
        """Of all texts, four numbers for each."""
        return self._arrays["words"]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        number = self._range[index]
        ids, own, flat = (
            self._arrays[name][ends[number - 1] if number else 0 : ends[number]].tolist()
            for name, ends in self._ends.items()
        )
        return AlignmentText(str(number), ids, own, flat)


WORD = re.compile(r"\S+")
Span = tuple[int, int]


def aligned(text: str, one: Encoded, other: Encoded) -> list[tuple[Span, Span]]:
    """For each word that both have tokens of, its tokens in one and in the other: the first and the one after the last.

    A token is of the word that its last character is in: some tokenizers count the space before a word to it. One that
    is all space is of none.

    Args:
        text: English, or another language with spaces between words.
        one, other: encodings of that text alone.
    """
    words = [match.span() for match in WORD.finditer(text)]
    places = _places(words, one), _places(words, other)
    return [(places[0][word], places[1][word]) for word in places[0] if word in places[1]]


def _places(words: Sequence[Span], encoded: Encoded) -> dict[int, Span]:
    """Word -> its tokens."""
    found: dict[int, Span] = {}
    starts = [start for start, _ in words]
    first, _ = encoded.spans[0]
    for number, (start, end) in enumerate(encoded.offsets[0]):
        if end <= start:
            continue
        word = bisect_right(starts, end - 1) - 1
        if word >= 0 and end <= words[word][1]:
            begin, _ = found.get(word, (first + number, 0))
            found[word] = begin, first + number + 1
    return found
