"""A cell for trackers, without running it, and what they left read back."""

import json
import time
from pathlib import Path
from typing import Any

from sdx.config import Config
from sdx.store.files import write_rows
from sdx.tracking import wandb_log
from tests.kit.configs import composed


def config(tmp_path: Path, *overrides: str) -> Config:
    return composed("method=sft", "lang=[pt,sw]", "seed=3", f"cache_dir={tmp_path}", *overrides)


def results(run_dir: Path, name: str = "x", score: float = 40.0) -> dict[str, Any]:
    """Of a finished cell that trained one step, with its files in the run directory."""
    (run_dir / "trained").mkdir(exist_ok=True)
    write_rows(run_dir / "trained/log.jsonl", [row(1)])
    (run_dir / "report.md").write_text(f"# {name}\n")
    write_rows(run_dir / "samples.jsonl", [{"id": str(n), "language": "pt", "prompt": name} for n in range(300)])
    write_rows(run_dir / "translations.jsonl", [])
    estimate = {"value": score, "low": 30.0, "high": 50.0, "n": 10}
    about = {"task": "t", "benchmark": "", "language": "pt", "metric": "accuracy", "origin": "original", "system": ""}
    return {
        "scores": [{**about, "before": estimate, "after": None, "difference": None}],
        "filters": [{"what": "own", "language": "pt", "rows": 9, "kept": 6, "dropped": {"empty": 3, "long": 0}}],
        "steps": [
            {"name": "score", "what": "t", "language": "pt", "seconds": 1.5, "path": str(run_dir)},
            {"name": "train", "what": "x", "language": None, "seconds": 1.5, "path": str(run_dir / "trained")},
        ],
        "seconds": time.monotonic(),
        "peak_memory_bytes": 10,
    }


def row(step: int) -> dict[str, float]:
    """A line of the training log."""
    return {"step": step, "loss": 10.0 - step, "useful_tokens_per_s": 100.0}


def history(path: Path) -> list[dict[str, Any]]:
    """The rows of a `.wandb` file."""
    rows = [record.history for _, record in wandb_log.records(path) if record.HasField("history")]
    return [{item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in one.item} for one in rows]


def whole_history(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of all processes that worked on a cell."""
    return [one for path in wandb_log.files(run_dir) for one in history(path)]


def beginning(path: Path) -> Any:
    """What a `.wandb` file says of its run."""
    return next(record.run for _, record in wandb_log.records(path) if record.HasField("run"))


def summary(path: Path) -> dict[str, Any]:
    """What a `.wandb` file says in the end."""
    updates = [one for _, record in wandb_log.records(path) for one in record.summary.update]
    return {one.key or ".".join(one.nested_key): json.loads(one.value_json) for one in updates}
