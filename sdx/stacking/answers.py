"""Answers to test items by a model that reads them in one forward pass."""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from sdx.languages import Language
from sdx.stacking.reader import ReadingStep, read_batches, written_batches
from sdx.store.batch_log import BatchLog
from sdx.store.estimate import Estimate, Plan
from sdx.store.files import read_rows
from sdx.store.step import Step, Workspace, runtime


@dataclass(frozen=True, eq=False)
class ClassifyStep(ReadingStep):
    """Publishes `rows.jsonl`: of each item `id`, `gold`, `choice`, `acc` and `log_probs`, or of a model that writes
    `id`, `gold`, `acc` and `text`: it is right when it writes the label's words."""

    name: ClassVar[str] = "classify"

    items: Step
    """Publishes the items as `rows.jsonl`."""
    _: KW_ONLY
    tested: Language = runtime()
    """The language of the test, whose items may have been translated."""

    @property
    def purpose_language(self) -> Language:
        return self.tested

    @property
    def label(self) -> str:
        """In front of the progress bar."""
        return f"{self.task} {self.tested.code} {self.parts.system.value}"

    def estimate(self, plan: Plan) -> Estimate:
        rows = plan.rows(self.items)
        return self.estimate_of(plan, rows, rows.count, chooses=True)

    def run(self, work: Workspace) -> None:
        items = read_rows(work.inputs["items"] / "rows.jsonl")
        log = BatchLog(work.dir / f"rows{BatchLog.SUFFIX}")
        if left := [item for item in items if item["id"] not in log.rows]:
            model = self.load(work)
            for rows in (self._written if hasattr(model, "write") else self._chosen)(model, left):
                log.append(rows)
        log.publish(work.dir / "rows.jsonl", [item["id"] for item in items])
        correct = sum(row["acc"] for row in log.rows.values())
        work.counts.update(items=len(items), correct=correct)

    def _chosen(self, model: Any, items: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, object]]]:
        for places, (_, logits) in read_batches(model, items, self.told, self.max_tokens, self.label):
            log_probs = logits.float().log_softmax(-1).cpu().tolist()
            yield [_row(items[place], its) for place, its in zip(places, log_probs, strict=True)]

    def _written(self, model: Any, items: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, object]]]:
        from sdx.stacking.generation import answer, words

        labels = [words(model.config.id2label[number]) for number in range(model.config.num_labels)]
        room = max(len(answer(model.tokenizer, text)) for text in labels)
        for places, texts in written_batches(model, items, self.told, self.max_tokens, room, self.label):
            both = [(items[place], text) for place, text in zip(places, texts, strict=True)]
            yield [
                {"id": item["id"], "gold": item["label"], "acc": text == labels[item["label"]], "text": text}
                for item, text in both
            ]


def _row(item: dict[str, Any], log_probs: list[float]) -> dict[str, object]:
    choice = max(range(len(log_probs)), key=log_probs.__getitem__)
    right, rounded = choice == item["label"], [round(value, 4) for value in log_probs]
    return {"id": item["id"], "gold": item["label"], "choice": choice, "acc": right, "log_probs": rounded}
