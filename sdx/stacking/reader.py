"""A trained stack, or a part of one, that reads rows of a task."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx import InputError
from sdx.config import Precision
from sdx.languages import Language
from sdx.models.loading import dtype_of, straight
from sdx.models.residency import resident
from sdx.process.quiet import quiet
from sdx.stacking.parts import PartsStep, directories
from sdx.stacking.segments import Encoded, Segments
from sdx.store.step import Step, Workspace, runtime

if TYPE_CHECKING:
    from sdx.stacking.objectives import Prompted, Text
    from sdx.training.objectives import Example

log = getLogger("sdx")

MOST_CUT = 0.05
"""Share of texts that may lose their ends without a word. Ours."""
SHORTER = "lower scale.max_length_tokens or take a GPU with more memory"


@dataclass(frozen=True, eq=False)
class ReadingStep(PartsStep):
    """A step in which a trained system reads rows of a task."""

    model: Step
    max_tokens: int
    """Longest text; a longer one loses its end."""
    told: Language
    """What the encoder is told that the rows are in."""
    _: KW_ONLY
    task: str = runtime()
    """The task's name."""

    @property
    def config(self) -> Mapping[str, Any]:
        return {"language": self.told.flores, "max_tokens": self.max_tokens, **self.parts.decides}

    @property
    def about(self) -> str:
        return f"{self.task}, {self.parts.system.value}"

    @property
    def language(self) -> Language:
        return self.told

    def load(self, work: Workspace) -> Any:
        """The model, see `load_reader`."""
        return load_reader(work.inputs["model"] / "model", directories(work), self.parts.precision)


def load_reader(model_dir: Path, parts: Mapping[str, Path], precision: Precision) -> Any:
    """The model of the class that was trained, for inference, on this process' GPU where there is one.

    It is kept until another is asked for: a model answers one language after the other.
    """
    what = ("stack", model_dir, (precision, *sorted(parts.items())))
    return resident(what, lambda: _loaded(model_dir, parts, precision)).model


def _loaded(model_dir: Path, parts: Mapping[str, Path], precision: Precision) -> Any:
    from sdx.stacking import generation as stack_generation
    from sdx.stacking import model as stack

    quiet()
    config = stack.StackConfig.from_pretrained(model_dir)
    name = config.architectures[0]
    kind = getattr(stack_generation if hasattr(stack_generation, name) else stack, name)
    return kind.from_pretrained(model_dir, config=config, parts=parts, dtype=dtype_of(precision), **straight())


def read_batches(
    model: Any, rows: Sequence[Mapping[str, Any]], language: Language, max_tokens: int, label: str
) -> Iterator[tuple[list[int], tuple[Any, Any]]]:
    """Places of the rows of a batch, their vectors `[texts, spans, hidden]` and, of a model with a head, logits.

    Rows of like length are read together; a row's vectors do not depend on the others.
    """
    import torch
    from accelerate.utils import send_to_device

    from sdx.stacking.batches import in_batches
    from sdx.stacking.objectives import Reader
    from sdx.training.hidden_states import pooled

    texts = examples(rows, model.segments(language.flores), max_tokens)
    reader = Reader(model.encoder is not None, model.llm is not None, model.pad_id)

    def work(places: list[int]) -> tuple[Any, Any]:
        batch = [texts[place] for place in places]
        collated = reader.collate([one.input_ids for one in batch], [one.spans for one in batch], packed=False)
        moved = send_to_device(collated, model.device)
        with torch.inference_mode():
            vectors = pooled(model.states(**moved["inputs"]), moved).view(len(batch), -1, model.config.hidden_size)
            if not hasattr(model, "classify"):
                return vectors, None
            return vectors, model.classify(vectors if rows[0]["choices"] else vectors.squeeze(1))

    return in_batches(model, [len(text.input_ids) for text in texts], work, SHORTER, label=label)


def written_batches(
    model: Any, rows: Sequence[Mapping[str, Any]], language: Language, max_tokens: int, max_new_tokens: int, label: str
) -> Iterator[tuple[list[int], list[str]]]:
    """Places of the rows of a batch, and what a model that writes makes of them."""
    from sdx.stacking.batches import in_batches

    texts = [one.ids for one in read(rows, model.segments(language.flores), max_tokens)]

    def work(places: list[int]) -> list[str]:
        written: list[str] = model.write([texts[place] for place in places], max_new_tokens)
        return written

    lengths = [len(ids) + max_new_tokens for ids in texts]
    return in_batches(model, lengths, work, SHORTER, writes=True, label=label)


def examples(rows: Sequence[Mapping[str, Any]], segments: Segments, max_tokens: int, split: str = "") -> "list[Text]":
    """Each row's segments as one sequence, cut at `max_tokens`; one vector of it all, or one of each choice.

    Args:
        split: the rows' file, see `key`.

    Raises:
        InputError: questions have unlike numbers of answers: a batch's vectors are one array.
    """
    from sdx.stacking.objectives import Text

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
    from sdx.stacking.objectives import Prompted
    from sdx.training.objectives import Example

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
