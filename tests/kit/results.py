"""results.json of finished runs, written by hand."""

import json
from pathlib import Path
from typing import Any

from sdx.store.files import write_rows

BASE: dict[str, Any] = {
    "method": {"_target_": "sdx.methods.x.X", "name": "stt", "mixture": "src"},
    "backbone": {"name": "tiny", "learning_rate": 2e-5, "path": None},
    "lang": {"source": "en", "targets": {"pt": "por_Latn"}},
    "task": {"quiz": {"_target_": "sdx.tasks.base.Quiz", "shots": 0}},
    "scale": {"name": "laptop", "batch_size": 128},
    "train": {"learning_rate": 2e-5, "batch_size": 128, "keep_groups": True},
    "seed": 1,
    "cache_dir": "/cache",
    "runs_dir": "runs",
}


def config(**changes: Any) -> dict[str, Any]:
    """`BASE` with some leaves changed; `__` stands for the dot."""
    made = json.loads(json.dumps(BASE))
    for key, value in changes.items():
        *groups, name = key.split("__")
        place = made
        for group in groups:
            place = place[group]
        place[name] = value
    return made


def estimate(value: float, half: float = 5.0, n: int = 40) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": n, "p": None}


def score(before: float, after: float | None, metric: str = "accuracy", **more: Any) -> dict[str, Any]:
    gap = None if after is None else estimate(after - before)
    known = {"task": "quiz", "language": "pt", "metric": metric, "origin": "original", "note": ""}
    return {
        **known,
        "before": estimate(before),
        "after": None if after is None else estimate(after),
        "difference": gap,
    } | more


def run(
    root: Path, name: str, settings: dict[str, Any], scores: list[dict[str, Any]], right: int | None = None
) -> Path:
    """A finished run; `right` of its 40 answers are right in each of its accuracies."""
    directory = root / name
    directory.mkdir(parents=True)
    if right is not None:
        ids, values = [str(n) for n in range(40)], [n < right for n in range(40)]
        known = [{key: one[key] for key in ("task", "language", "metric", "origin")} for one in scores]
        lines = [{**one, "ids": ids, "before": values, "after": None} for one in known if one["metric"] == "accuracy"]
        write_rows(directory / "items.jsonl", lines)
    content = {"run": name, "config": settings, "scores": scores}
    (directory / "results.json").write_text(json.dumps(content))
    return directory
