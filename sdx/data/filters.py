"""Which synthetic rows are kept. Each drop is counted by its reason, and the dropped rows stay readable."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sdx.artifacts import Step, Workspace, read_rows, write_rows

GRAM_CHARS = 10
DISTINCT_SHARE = 0.5


def repeats(text: str) -> bool:
    """Whether a text goes round in a loop: less than half of its 10-character stretches are distinct. Ours.

    Characters, not words, so that it holds for scripts without spaces; a list with a common wording is far above.
    """
    grams = [text[start : start + GRAM_CHARS] for start in range(len(text) - GRAM_CHARS + 1)]
    return len(set(grams)) < DISTINCT_SHARE * len(grams)


FILTERS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "empty": lambda row: not row["text"].strip(),
    "truncated": lambda row: not row["finished"],
    "repetition": lambda row: repeats(row["text"]),
}
"""Reason -> whether a completion `{"id", "prompt", "text", "tokens", "finished"}` is dropped for it."""


def filter_step(completions: Step, reasons: Sequence[str]) -> Step:
    """Publishes the kept rows as `rows.jsonl` and the others, with their reason, as `dropped.jsonl`."""
    return Step(
        "filter",
        partial(_run, reasons=reasons),
        config={"reasons": list(reasons)},
        inputs={"completions": completions},
    )


def _run(workspace: Workspace, reasons: Sequence[str]) -> None:
    kept, dropped = [], []
    for row in read_rows(workspace.inputs["completions"] / "rows.jsonl"):
        reason = next((name for name in reasons if FILTERS[name](row)), None)
        if reason:
            dropped.append({**row, "reason": reason})
        else:
            kept.append(row)
    write_rows(workspace.dir / "rows.jsonl", kept)
    write_rows(workspace.dir / "dropped.jsonl", dropped)
    workspace.counts.update(kept=len(kept), **Counter(row["reason"] for row in dropped))
