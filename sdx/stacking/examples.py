"""Rows of a task as the examples of a reader, or of a writer."""

from collections.abc import Mapping, Sequence
from logging import getLogger
from typing import TYPE_CHECKING, Any

from sdx.config import InputError
from sdx.models.segments import Encoded, Segments

if TYPE_CHECKING:
    from sdx.training.objectives import Example
    from sdx.training.reading import Text
    from sdx.training.soft_prompt import Prompted

log = getLogger("sdx")

MOST_CUT = 0.05
"""Share of texts that may lose their ends without a word. Ours."""


def examples(rows: Sequence[Mapping[str, Any]], segments: Segments, max_tokens: int, split: str = "") -> "list[Text]":
    """Each row's segments as one sequence, cut at `max_tokens`; one vector of it all, or one of each choice.

    Args:
        split: the rows' file, see `key`.

    Raises:
        InputError: questions have unlike numbers of answers: a batch's vectors are one array.
    """
    from sdx.training.reading import Text

    if len(counts := sorted({row["choices"] for row in rows})) > 1:
        raise InputError(
            f"task: there are questions with {' and '.join(map(str, counts))} answers, and a stack chooses among one "
            "number of them; leave the others out of the task's files, or give another task"
        )
    encoded = read(rows, segments, max_tokens)
    return [
        Text(
            id=key(split, row["id"]),
            input_ids=one.ids,
            spans=one.spans[-row["choices"] :] if row["choices"] else [(0, len(one.ids))],
            label=row["label"],
        )
        for row, one in zip(rows, encoded, strict=True)
    ]


def written(
    rows: Sequence[Mapping[str, Any]],
    segments: Segments,
    answers: Sequence[Sequence[int]],
    cue: Sequence[int],
    stacked: bool,
    max_tokens: int,
    split: str,
) -> "list[Prompted] | list[Example]":
    """Each row's segments as one sequence, cut at `max_tokens`, and the answer to be written after it.

    Args:
        answers: of each label, in the LLM's tokens, the end among them.
        cue: the LLM's tokens in between.
        stacked: an encoder reads the text; else the LLM, in its own tokens.
        split: the rows' file, see `key`.
    """
    from sdx.training.objectives import Example
    from sdx.training.soft_prompt import Prompted

    encoded = read(rows, segments, max_tokens)
    both = [
        (key(split, row["id"]), one.ids, [*cue, *answers[row["label"]]]) for row, one in zip(rows, encoded, strict=True)
    ]
    if stacked:
        return [Prompted(id_, read, after, len(cue)) for id_, read, after in both]
    return [Example(id_, [*read, *after], len(read) + len(cue)) for id_, read, after in both]


def read(rows: Sequence[Mapping[str, Any]], segments: Segments, max_tokens: int) -> list[Encoded]:
    """Each row's segments as one sequence, with a warning where many lose their ends."""
    encoded = segments.encode([row["segments"] for row in rows], max_tokens, offsets=False)
    cut = sum(one.cut for one in encoded)
    if cut > MOST_CUT * len(rows):
        log.warning(
            "%-12s %d of %d are longer than scale.max_length_tokens=%d and lose their ends; raise it",
            "texts", cut, len(rows), max_tokens,
        )  # fmt: skip
    return encoded


def key(split: str, id_: str) -> str:
    """A row's name among those of all files: two of them may number their rows alike."""
    return f"{split}/{id_}"
