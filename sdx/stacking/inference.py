"""Inference with a trained stack, or a part of one, on rows of a task; answers to test items."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sdx import InputError
from sdx.config import Precision
from sdx.languages import Language
from sdx.models.loading import dtype_of, gpu_options
from sdx.models.residency import resident
from sdx.process.quiet import quiet
from sdx.stacking.parts import PartsStep, directories
from sdx.stacking.sequences import Encoded, SequenceTokenizer
from sdx.stacking.work import lengths, one_pass
from sdx.store.batch_log import Row
from sdx.store.estimate import ROWS, Estimate, Plan, Rows
from sdx.store.files import write_rows
from sdx.store.row_file import RowFile
from sdx.store.row_step import RowStep, in_order
from sdx.store.shared_log import SharedLog
from sdx.store.step import Step, Workspace, runtime

if TYPE_CHECKING:
    from sdx.stacking.objectives import TextExample

logger = getLogger("sdx")

BATCH_ROWS = 256
"""Items between two points at which a killed step resumes."""
FIX = "lower scale.max_length_tokens or take a GPU with more memory"


@dataclass(frozen=True, eq=False)
class InferenceStep(PartsStep, RowStep[Any]):
    """A step in which a trained system reads rows of a task."""

    model: Step
    max_tokens: int
    """Longest text; longer ones are cut at the end."""
    read_as: Language
    """The language that the encoder takes the rows to be in."""
    _: KW_ONLY
    task: str = runtime()
    """The task's name."""

    @property
    def config(self) -> Mapping[str, Any]:
        return {"language": self.read_as.flores, "max_tokens": self.max_tokens, **self.parts.decides}

    @property
    def about(self) -> str:
        return f"{self.task}, {self.parts.system.value}"

    @property
    def language(self) -> Language:
        return self.read_as

    def estimate_of(self, plan: Plan, rows: Rows, count: float, chooses: bool) -> Estimate:
        """The estimate of one pass over `count` rows that are like `rows`."""
        own, read = lengths(plan, self.parts, rows, self.max_tokens, self.read_as, chooses)
        work = replace(one_pass(plan, self.parts, count, own, read), resident=f"{self.model.key} stack")
        return Estimate(count, count * read, work=work)

    def load(self, work: Workspace) -> Any:
        return load_for_inference(work.inputs["model"] / "model", directories(work), self.parts.precision)

    def batches(self, rows: Sequence[Row], loaded: Any) -> list[list[int]]:
        """Texts of similar length, the longest first."""
        check_choices(rows)
        order = sorted(range(len(rows)), key=[-len("".join(row["segments"]).encode()) for row in rows].__getitem__)
        return [order[some.start : some.stop] for some in in_order(rows, BATCH_ROWS)]

    def process(self, batch: Sequence[Row], loaded: Any) -> list[Row]:
        """The rows of `answers`; those of texts that lost their ends say `cut`, which is not published."""
        encoded = encode_rows(loaded, batch, self.read_as, self.max_tokens)
        answers = self.answers(loaded, batch, encoded)
        return [{**row, "cut": True} if encoded[index].cut else row for index, row in answers]

    @abstractmethod
    def answers(self, model: Any, rows: Sequence[Row], encoded: Sequence[Encoded]) -> Iterator[tuple[int, Row]]:
        """(index, what the model says) of all rows of a batch, in any order."""


@dataclass(frozen=True, eq=False)
class ClassifyStep(InferenceStep):
    """Publishes `rows.jsonl`: `id`, `gold`, `choice`, `acc` and `log_probs` of each item.

    A model that writes gives `id`, `gold`, `acc` and `text`; its answer is right if it is the label's words.
    """

    name: ClassVar[str] = "classify"

    items: Step
    """Publishes the items as `rows.jsonl`."""
    _: KW_ONLY
    tested: Language = runtime()
    """The language of the test, from which the items may have been translated."""

    @property
    def purpose_language(self) -> Language:
        return self.tested

    @property
    def label(self) -> str:
        """Of the progress bar."""
        return f"{self.task} {self.tested.code} {self.parts.system.value}"

    def estimate(self, plan: Plan) -> Estimate:
        rows = plan.rows(self.items)
        return self.estimate_of(plan, rows, rows.count, chooses=True)

    def read(self, work: Workspace) -> Sequence[Row]:
        return RowFile(work.inputs["items"] / ROWS)

    def answers(self, model: Any, rows: Sequence[Row], encoded: Sequence[Encoded]) -> Iterator[tuple[int, Row]]:
        answers = self._generated if hasattr(model, "generate_from_ids") else self._classified
        return answers(model, rows, encoded)

    def count(self, rows: Iterable[Row]) -> dict[str, int]:
        correct = [row["acc"] for row in rows]
        return {"items": len(correct), "correct": sum(correct)}

    def publish(self, log: SharedLog, work: Workspace) -> None:
        warn_of_cut(log.rows(), self.max_tokens)
        work.counts.update(self.count(log.rows()))
        write_rows(work.dir / ROWS, ({name: row[name] for name in row if name != "cut"} for row in log.rows()))

    def _classified(self, model: Any, items: Sequence[Row], encoded: Sequence[Encoded]) -> Iterator[tuple[int, Row]]:
        for indices, (_, logits) in pooled_batches(model, items, encoded):
            for index, log_probs in zip(indices, logits.float().log_softmax(-1).cpu(), strict=True):
                id_, gold, choice = items[index]["id"], items[index]["label"], int(log_probs.argmax())
                rounded = [round(value, 4) for value in log_probs.tolist()]
                right = {"choice": choice, "acc": choice == gold, "log_probs": rounded}
                yield index, {"id": id_, "gold": gold, **right}

    def _generated(self, model: Any, items: Sequence[Row], encoded: Sequence[Encoded]) -> Iterator[tuple[int, Row]]:
        from sdx.stacking.generation import label_ids, label_text

        labels = [label_text(model.config.id2label[number]) for number in range(model.config.num_labels)]
        longest = max(len(label_ids(model.tokenizer, label)) for label in labels)
        for indices, texts in generated_batches(model, encoded, longest):
            for index, text in zip(indices, texts, strict=True):
                id_, gold = items[index]["id"], items[index]["label"]
                yield index, {"id": id_, "gold": gold, "acc": text == labels[gold], "text": text}


def load_for_inference(model_dir: Path, parts: Mapping[str, Path], precision: Precision) -> Any:
    """The model of the class that was trained, on this process' GPU if there is one.

    It stays loaded until another model is needed, because one model answers one language after the other.
    """
    what = ("stack", model_dir, (precision, *sorted(parts.items())))
    return resident(what, lambda: _load(model_dir, parts, precision)).model


def _load(model_dir: Path, parts: Mapping[str, Path], precision: Precision) -> Any:
    from sdx.stacking import generation, model

    quiet()
    config = model.StackConfig.from_pretrained(model_dir)
    name = config.architectures[0]
    model_class = getattr(model, name, None) or getattr(generation, name)
    return model_class.from_pretrained(
        model_dir, config=config, parts=parts, dtype=dtype_of(precision), **gpu_options()
    )


def pooled_batches(
    model: Any, rows: Sequence[Row], encoded: Sequence[Encoded]
) -> Iterator[tuple[list[int], tuple[Any, Any]]]:
    """Indices of the rows in each batch, their vectors `[texts, spans, hidden]`, and logits if the model has a head.

    A row's vectors do not depend on the other rows of its batch.
    """
    import torch
    from accelerate.utils import send_to_device

    from sdx.stacking.batches import in_batches
    from sdx.stacking.objectives import Collator
    from sdx.training.hidden_states import pooled

    texts = _examples(rows, encoded)
    collator = Collator({"llm" if model.encoder is None else "encoder": model.pad_id})

    def work(indices: list[int]) -> tuple[Any, Any]:
        ids, spans = ([getattr(texts[index], name) for index in indices] for name in ("input_ids", "spans"))
        batch = send_to_device(collator.collate(ids, spans, packed=False), model.device)
        with torch.inference_mode():
            vectors = pooled(model.hidden_states(**batch["inputs"]), batch)
            vectors = vectors.view(len(indices), -1, model.config.hidden_size)
            if not hasattr(model, "classify"):
                return vectors, None
            return vectors, model.classify(vectors if rows[0]["choices"] else vectors.squeeze(1))

    return in_batches(model, [len(text.input_ids) for text in texts], work, FIX)


def generated_batches(
    model: Any, encoded: Sequence[Encoded], max_new_tokens: int
) -> Iterator[tuple[list[int], list[str]]]:
    """Indices of the texts in each batch, and what a model that writes generates after each."""
    from sdx.stacking.batches import in_batches

    texts = [one.ids for one in encoded]

    def work(indices: list[int]) -> list[str]:
        generated: list[str] = model.generate_from_ids([texts[index] for index in indices], max_new_tokens)
        return generated

    return in_batches(model, [len(ids) + max_new_tokens for ids in texts], work, FIX, writes=True)


def text_examples(
    rows: Sequence[Mapping[str, Any]], tokenizer: SequenceTokenizer, max_tokens: int, split: str = ""
) -> "list[TextExample]":
    """Each row's texts as one sequence, cut at `max_tokens`, with a span of all tokens, or a span for each choice.

    Raises:
        InputError: questions have different numbers of answers; the vectors of a batch are one array.
    """
    check_choices(rows)
    encoded = tokenizer.encode([row["segments"] for row in rows], max_tokens, offsets=False)
    warn_of_cut([vars(one) for one in encoded], max_tokens)
    return _examples(rows, encoded, split)


def _examples(rows: Sequence[Mapping[str, Any]], encoded: Sequence[Encoded], split: str = "") -> "list[TextExample]":
    from sdx.stacking.objectives import TextExample

    return [
        TextExample(
            id=example_id(split, row["id"]),
            input_ids=text.ids,
            spans=text.spans[-row["choices"] :] if row["choices"] else [(0, len(text.ids))],
            label=row["label"],
        )
        for row, text in zip(rows, encoded, strict=True)
    ]


def check_choices(rows: Iterable[Mapping[str, Any]]) -> None:
    if len(counts := sorted({row["choices"] for row in rows})) > 1:
        raise InputError(
            f"task: there are questions with {' and '.join(map(str, counts))} answers, and a stack needs one "
            "number; leave the others out of the task's files, or give another task"
        )


def encode_rows(model: Any, rows: Sequence[Row], language: Language, max_tokens: int) -> list[Encoded]:
    """Each row's texts as the one sequence that the model reads."""
    tokenizer: SequenceTokenizer = model.sequence_tokenizer(language.flores)
    return tokenizer.encode([row["segments"] for row in rows], max_tokens, offsets=False)


def warn_of_cut(rows: Iterable[Mapping[str, Any]], max_tokens: int) -> None:
    """Warns if many rows say that they were `cut`."""
    flags = [row.get("cut", False) for row in rows]
    if sum(flags) > 0.05 * len(flags):  # our limit
        message = "%-12s %d of %d are longer than scale.max_length_tokens=%d and lose their ends; raise it"
        logger.warning(message, "texts", sum(flags), len(flags), max_tokens)


def example_id(split: str, id_: str) -> str:
    """A row's id among the rows of all files, whose own ids may coincide."""
    return f"{split}/{id_}"
