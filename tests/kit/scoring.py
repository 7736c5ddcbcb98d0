"""A model's scores on given items, through the store.

As a program, `python -m tests.kit.scoring MODEL CACHE COPIES`, also on the ranks of torchrun: of many `ITEMS`, and
slowly, so that a rank that begins later finds batches left.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdx.config import Precision
from sdx.evaluation import log_probs
from sdx.evaluation.harness import Score
from sdx.models.batches import Most
from sdx.store.files import read_rows
from sdx.store.store import Store
from sdx.tasks.base import ChoiceTask
from tests.kit.prompts import ITEMS, Quiz
from tests.kit.suites import model_step, published

BATCH_S = 0.3


def score_step(
    model_dir: Path,
    task: ChoiceTask,
    items: Sequence[dict[str, Any]],
    precision: Precision = Precision.fp32,
    context_tokens: int = 1024,
    stage: str = "test",
) -> Score:
    given = published("items", task.name, [*items])
    return Score(model_step(model_dir), given, precision, context_tokens, label=stage, task=task)


def score(model_dir: Path, task: ChoiceTask, items: Sequence[Any], work_dir: Path, **options: Any) -> list[Any]:
    """The rows; the step lies in the cache `work_dir`."""
    return read_rows(Store(work_dir).realise(score_step(model_dir, task, items, **options)) / "rows.jsonl")


def copied(copies: int) -> list[dict[str, Any]]:
    return [
        {**item, "id": f"{item['id']}{n}", "question": f"{n} {item['question']}"}
        for n in range(copies)
        for item in ITEMS
    ]


if __name__ == "__main__":
    process = Score.process

    def slowly(*given: Any) -> Any:
        time.sleep(BATCH_S)
        return process(*given)

    Score.process, log_probs.QUESTIONS = slowly, Most(2, 2)  # type: ignore[method-assign]
    model, cache, copies = sys.argv[1:]
    score(Path(model), Quiz("arc.en", shots=1), copied(int(copies)), Path(cache))
