"""A small mix in tokens. `python -m tests.kit.token_step CACHE MODEL_DIR` makes it with two processes."""

import sys
from pathlib import Path
from typing import Any

from sdx.config import TemplateKind
from sdx.process import pool
from sdx.store import row_step
from sdx.store.files import write_rows
from sdx.store.store import Store
from sdx.training.tokens import Tokens
from tests.kit.plain_step import PlainStep

LIMIT = 60
ROWS: list[dict[str, Any]] = [
    {
        "id": f"{number}/{subset}",
        "source_id": f"q{number}",
        "subset": subset,
        "prompt": f"Question {number}: what is {number} + {number}? ไทย",
        "response": "word " * (number % 40) or " \n",
        **({"plain": True} if subset == "plain" else {}),
    }
    for subset in ("ll", "plain", "tt")
    for number in range(40)
]


def step(model_dir: Path, limit: int = LIMIT, rows: Any = ROWS) -> Tokens:
    mix = PlainStep("mix", lambda work: write_rows(work.dir / "rows.jsonl", rows))
    backbone = PlainStep("backbone", lambda work: (work.dir / "model").symlink_to(model_dir))
    return Tokens(mix, backbone, TemplateKind.auto, limit)


if __name__ == "__main__":
    pool.PIECE, pool.FEWEST, pool.cores, row_step.POOLED_ROWS = 8, 1, lambda: 2, 24
    Store(Path(sys.argv[1])).realise(step(Path(sys.argv[2])))
