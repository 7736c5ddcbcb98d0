"""Answers to test items by a model that reads them in one forward pass."""

from collections.abc import Sequence
from typing import Any

from sdx.config import Precision
from sdx.languages import Language
from sdx.stacking.parts import Parts, directories
from sdx.stacking.reader import load_reader, read_batches, written_batches
from sdx.store.batch_log import BatchLog
from sdx.store.files import read_rows
from sdx.store.step import PlainStep, Step, Workspace

VERSION = 1


def answers_step(model: Step, parts: Parts, items: Step, language: Language, max_tokens: int, label: str) -> Step:
    """Publishes `rows.jsonl`: of each item `id`, `gold`, `choice`, `acc` and `log_probs`, or of a model that writes
    `id`, `gold`, `acc` and `text`: it is right when it writes the label's words.

    Args:
        model: with a head, or one that writes.
        items: publishes the items as `rows.jsonl`, in `language`.
        label: in front of the progress bar.
    """

    def run(work: Workspace) -> None:
        _answer(work, language, max_tokens, parts.precision, label)

    inputs = {"model": model, "items": items, **parts.inputs}
    options = {"language": language.flores, "max_tokens": max_tokens, **parts.decides}
    return PlainStep("classify", run, options, inputs, VERSION)


def _answer(work: Workspace, language: Language, max_tokens: int, precision: Precision, label: str) -> None:
    from sdx.stacking.generation import answer, words

    items = read_rows(work.inputs["items"] / "rows.jsonl")
    log = BatchLog(work.dir / f"rows{BatchLog.SUFFIX}")
    if left := [item for item in items if item["id"] not in log.rows]:
        model = load_reader(work.inputs["model"] / "model", directories(work), precision)
        if hasattr(model, "write"):
            labels = [words(model.config.id2label[number]) for number in range(model.config.num_labels)]
            room = max(len(answer(model.tokenizer, text)) for text in labels)
            for places, texts in written_batches(model, left, language, max_tokens, room, label):
                log.append([_written(left[place], labels, text) for place, text in zip(places, texts, strict=True)])
        else:
            for places, _, logits in read_batches(model, left, language, max_tokens, label):
                log_probs = logits.float().log_softmax(-1).cpu()
                log.append([_row(left[place], its) for place, its in zip(places, log_probs.tolist(), strict=True)])
    log.publish(work.dir / "rows.jsonl", [item["id"] for item in items])
    correct = sum(row["acc"] for row in log.rows.values())
    work.counts.update(items=len(items), correct=correct)


def _written(item: dict[str, Any], labels: Sequence[str], text: str) -> dict[str, object]:
    return {"id": item["id"], "gold": item["label"], "acc": text == labels[item["label"]], "text": text}


def _row(item: dict[str, object], log_probs: list[float]) -> dict[str, object]:
    choice = max(range(len(log_probs)), key=log_probs.__getitem__)
    rounded = [round(value, 4) for value in log_probs]
    return {
        "id": item["id"],
        "gold": item["label"],
        "choice": choice,
        "acc": choice == item["label"],
        "log_probs": rounded,
    }
