"""Rows with prompts in, rows with completions out: in batches of like length, with progress, resumable."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sdx import InputError
from sdx.generation.hf import Completion
from sdx.process.progress import Progress
from sdx.store.batch_log import BatchLog
from sdx.store.files import read_rows


class Generator(Protocol):
    """What completes prompts, and says which ones at once."""

    def batches(self, instructions: Sequence[str], max_new_tokens: int) -> list[slice]: ...

    def complete(self, instructions: list[str], max_new_tokens: int) -> list[Completion]: ...


def generate_rows(
    generator: Generator, rows: Sequence[dict[str, Any]], out: Path, max_new_tokens: int, stage: str
) -> dict[str, int]:
    """Writes `{"id", "prompt", "text", "tokens", "finished"}` for each row, in the order of `rows`.

    The batches are planned over all rows, longest prompts first: memory that does not suffice shows at once,
    and what an interruption left to do is done in the very batches of an undisturbed run. With nothing left
    to do the model is not touched.

    Args:
        rows: `id`, unique, and `prompt`.
        out: written whole at the end; the finished batches are in a log beside it.
        stage: name in the progress bar.

    Returns:
        `rows`, `tokens` generated, `cut`, the rows that ran into `max_new_tokens`, and `too_long`, those whose prompt
        left no room for an answer in the model's context: theirs is empty.

    Raises:
        InputError: no prompt left room.
    """
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids)
    if not out.exists():
        record = BatchLog(out.with_suffix(BatchLog.SUFFIX))
        _complete(generator, rows, record, max_new_tokens, stage)
        if rows and not any(row["tokens"] for row in record.rows.values()):
            raise InputError(
                f"scale.max_new_tokens={max_new_tokens} leaves no room for any of the {len(rows)} prompts in the "
                "model's context; lower it"
            )
        record.publish(out, ids)
    done = read_rows(out)
    return {
        "rows": len(done),
        "tokens": sum(row["tokens"] for row in done),
        "cut": sum(not row["finished"] and row["tokens"] > 0 for row in done),
        "too_long": sum(row["tokens"] == 0 for row in done),
    }


def _complete(
    generator: Generator, rows: Sequence[dict[str, Any]], record: BatchLog, max_new_tokens: int, stage: str
) -> None:
    if len(record.rows) == len(rows):
        return
    # Bytes follow the tokens of a text in any script better than characters do, and need no tokenizer.
    ordered = sorted(rows, key=lambda row: -len(row["prompt"].encode()))
    batches = [ordered[some] for some in generator.batches([row["prompt"] for row in ordered], max_new_tokens)]
    tokens, began = 0, time.monotonic()
    with Progress(stage, len(rows), "rows", done=len(record.rows)) as progress:
        for batch in record.pending(batches):
            completions = generator.complete([row["prompt"] for row in batch], max_new_tokens)
            record.append(
                [
                    {
                        "id": row["id"],
                        "prompt": row["prompt"],
                        "text": completion.text,
                        "tokens": completion.tokens,
                        "finished": completion.finished,
                    }
                    for row, completion in zip(batch, completions, strict=True)
                ]
            )
            tokens += sum(completion.tokens for completion in completions)
            progress.set_postfix_str(f"{tokens / (time.monotonic() - began):.0f} tokens/s", refresh=False)
            progress.update(len(batch))
