"""Texts of one step, translated into one language, as a step of its own: shared, resumable, with progress."""

from functools import partial
from typing import Any

from sdx.languages import Language
from sdx.process.progress import Progress
from sdx.store.batch_log import BatchLog
from sdx.store.files import read_rows
from sdx.store.step import PlainStep, Step, Workspace
from sdx.translation.base import Translator


def translate_step(
    rows: Step, file: str, field: str, translator: Translator, source: Language, target: Language
) -> Step:
    """Publishes `rows.jsonl`: `{"id", "source", "text"}` for each row of `rows`/`file`, in its order.

    Args:
        rows: a step that publishes `file` with `id` and `field` in each row.
        field: the text, or the list of texts, to translate; `text` has the same form.
        translator: the engine, or what chooses one for the pair.
    """
    translator = translator.for_pair(source.flores, target.flores)
    return PlainStep(
        "translate",
        partial(_run, file=file, field=field, translator=translator, source=source, target=target),
        config={
            "file": file,
            "field": field,
            "translator": translator.name,
            "translator_version": translator.version,
            "source": source.flores,
            "target": target.flores,
        },
        inputs={"rows": rows, **translator.needs(source.flores, target.flores)},
    )


def _run(
    workspace: Workspace, file: str, field: str, translator: Translator, source: Language, target: Language
) -> None:
    rows = read_rows(workspace.inputs["rows"] / file)
    translator.prepare(workspace.inputs)
    record = BatchLog(workspace.dir / "rows.log")
    size = translator.batch_rows
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    with Progress(f"to {target.code}", len(rows), "rows", done=len(record.rows)) as progress:
        for batch in record.pending(batches):
            texts = [_texts(row[field]) for row in batch]
            flat = translator.translate([text for some in texts for text in some], source.flores, target.flores)
            translated = iter(flat)
            record.append(
                [_row(row, field, [next(translated) for _ in some]) for row, some in zip(batch, texts, strict=True)]
            )
            progress.update(len(batch))
    record.publish(workspace.dir / "rows.jsonl", [row["id"] for row in rows])
    workspace.counts.update(rows=len(rows))


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _row(row: dict[str, Any], field: str, texts: list[str]) -> dict[str, Any]:
    text = texts[0] if isinstance(row[field], str) else texts
    return {"id": row["id"], "source": row[field], "text": text}
