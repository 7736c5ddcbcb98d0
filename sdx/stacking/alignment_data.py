"""The texts of the alignment in both tokenizers, on disk: millions of them are read from there as needed.

encoder.ids llm.ids            int32, one text after the other
words                          int32 [words, 4], a word's tokens in the encoder's ids and in the LLM's
*.ends                         int64, the end of each text in these
"""

import os
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

from sdx.languages import ENGLISH, language
from sdx.models.loading import pretrained
from sdx.stacking.encoder_languages import encoder_tokenizer
from sdx.stacking.english_texts import read_texts
from sdx.stacking.parts import PartsStep
from sdx.stacking.sequences import Encoded, llm_tokenizer
from sdx.stacking.work import cut
from sdx.store.estimate import Estimate, Plan, Work
from sdx.store.files import read_intact, write_json
from sdx.store.step import Step, Workspace

CHUNK = 1000
"""Texts between two points at which a killed step resumes."""
TOKENISED_PER_S = 60_000.0
"""Tokens a second in both tokenizers, their words aligned, in one process. Assumed."""
ENDS, VALUES = "<i8", "<i4"
ARRAYS = ("encoder.ids", "llm.ids", "words")
WORD = re.compile(r"\S+")
Span = tuple[int, int]


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
        """Appends chunk by chunk; `progress.json` has the bytes of each file after the last whole chunk."""
        import numpy as np
        from transformers import AutoTokenizer

        ours = encoder_tokenizer(work.inputs["encoder"] / "model", self.parts.prefix, language(ENGLISH))
        theirs = llm_tokenizer(pretrained(AutoTokenizer, work.inputs["backbone"] / "model"))
        progress = work.dir / "progress.json"
        sizes = {f"{name}{suffix}": 0 for name in ARRAYS for suffix in ("", ".ends")} | read_intact(progress)
        for file, size in sizes.items():
            with (work.dir / file).open("ab") as out:
                out.truncate(size)
        texts = islice(read_texts(work.inputs["texts"]), sizes["words.ends"] // 8, None)
        while chunk := [[text] for text in islice(texts, CHUNK)]:
            rows: dict[str, list[list[int]]] = {name: [] for name in ARRAYS}
            encoded = (tokenizer.encode(chunk, self.max_tokens) for tokenizer in (ours, theirs))
            for [text], ours_of, theirs_of in zip(chunk, *encoded, strict=True):
                words = [[*our, *their] for our, their in aligned_words(text, ours_of, theirs_of)]
                for name, new in zip(ARRAYS, (ours_of.ids, theirs_of.ids, [*chain(*words)]), strict=True):
                    rows[name].append(new)
            for name, new_rows in rows.items():
                ends = sizes[name] // 4 + np.cumsum([len(row) for row in new_rows])
                for file, values in (name, np.array([*chain(*new_rows)], VALUES)), (f"{name}.ends", ends.astype(ENDS)):
                    with (work.dir / file).open("ab") as out:
                        sizes[file] += out.write(values.tobytes())
                        out.flush()
                        os.fsync(out.fileno())
            write_json(progress, sizes)
        progress.unlink(missing_ok=True)
        texts_done, words_done = sizes["words.ends"] // 8, sizes["words"] // 16
        work.counts.update(texts=texts_done, tokens=sizes["encoder.ids"] // 4, words=words_done)


@dataclass(frozen=True)
class AlignmentExample:
    """As `sdx.stacking.objectives.TextExample`. Spans are made on access: a training first asks every text's length."""

    id: str
    input_ids: list[int]
    llm_ids: list[int]
    words: list[int]
    """Four numbers for each, see the module's docstring."""
    group: str = ""
    label: int = -1

    @cached_property
    def spans(self) -> list[Span]:
        return [(0, len(self.input_ids)), *zip(self.words[::4], self.words[1::4], strict=True)]

    @cached_property
    def llm_spans(self) -> list[Span]:
        return [(0, len(self.llm_ids)), *zip(self.words[2::4], self.words[3::4], strict=True)]


class AlignmentData(Sequence[Any]):
    """The texts that `TokensStep` published, read from disk on access. A slice is a view."""

    def __init__(self, directory: Path) -> None:
        import numpy as np

        self._ends = {name: np.fromfile(directory / f"{name}.ends", ENDS) for name in ARRAYS}
        self._arrays = {
            name: np.memmap(directory / name, VALUES, "r") if (directory / name).stat().st_size else np.empty(0, VALUES)
            for name in ARRAYS
        }
        self._range = range(len(self._ends["words"]))

    def __len__(self) -> int:
        return len(self._range)

    @property
    def words(self) -> Any:
        """Of all texts, four numbers for each."""
        return self._arrays["words"]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            view = copy(self)
            view._range = self._range[index]
            return view
        number = self._range[index]
        values = (
            self._arrays[name][ends[number - 1] if number else 0 : ends[number]].tolist()
            for name, ends in self._ends.items()
        )
        return AlignmentExample(str(number), *values)


def aligned_words(text: str, *encodings: Encoded) -> list[tuple[Span, ...]]:
    """The tokens of each word in each encoding of a text with spaces between words; only words with tokens in all.

    A token belongs to the word of its last character, because some tokenizers count the space before a word to it. A
    token of spaces alone belongs to no word.
    """
    words = [match.span() for match in WORD.finditer(text)]
    found = [_tokens_of_words(words, encoded) for encoded in encodings]
    return [tuple(tokens[word] for tokens in found) for word in found[0] if all(word in tokens for tokens in found)]


def _tokens_of_words(words: Sequence[Span], encoded: Encoded) -> dict[int, Span]:
    """By the word's number."""
    found: dict[int, Span] = {}
    starts = [start for start, _ in words]
    for token, (start, end) in enumerate(encoded.offsets[0], encoded.spans[0][0]):
        word = bisect_right(starts, end - 1) - 1
        if start < end and word >= 0 and end <= words[word][1]:
            found[word] = found.get(word, (token, 0))[0], token + 1
    return found
