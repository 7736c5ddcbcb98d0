"""What a run leaves: results.json, items.jsonl, report.md, samples.jsonl, translations.jsonl, a link to the model, and
a table in the terminal."""

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from sdx.evaluation.scores import Score, judge, samples, score
from sdx.evaluation.suites import Comparison
from sdx.evaluation.values import ItemScores
from sdx.models.precision import ResolvedConfig
from sdx.process import events
from sdx.process.console import Console, wide
from sdx.process.console import console as new_console
from sdx.process.disk import writing
from sdx.process.secret import scrub, scrub_all
from sdx.reporting import markdown, matrix, paired, synthetic
from sdx.reporting.tables import direction
from sdx.store.files import write_json, write_rows
from sdx.store.inventory import lineage, subject
from sdx.store.provenance import provenance
from sdx.store.step import Step
from sdx.store.store import Store
from sdx.tasks.base import Instructions

DEFAULT_BACKBONE = "smollm2_135m"
"""Of conf/config.yaml."""
RESIDENT_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


def report_run(
    run_dir: Path,
    resolved: ResolvedConfig,
    store: Store,
    model: Step,
    outcomes: Sequence[Comparison],
    skipped: Sequence[str],
    compared_with: Sequence[str],
    began: float,
) -> None:
    """Writes and prints the report of a finished run.

    Args:
        model: the step that published `model/`.
        outcomes: published steps.
        skipped: a sentence for each benchmark and language that could not be run.
        compared_with: overrides of a run to compare this one with.
        began: `time.monotonic()` at the start of the run.
    """
    config = resolved.config
    items: list[ItemScores] = []
    answers: list[dict[str, Any]] = []
    for outcome in outcomes:
        paths = store.path(outcome.before), store.path(outcome.after) if outcome.after else None
        items += judge(outcome.suite, store, *paths, outcome.system)
        if isinstance(outcome.suite.task, Instructions) and not outcome.system:
            answers += samples(outcome.suite, store, *paths)
    answers.sort(key=lambda sample: sample["language"] == config.lang.source)
    scores = [score(one) for one in items]
    scored = [step for outcome in outcomes for step in (outcome.before, outcome.after) if step]
    behind = _cached(store, [model])
    results: dict[str, Any] = {
        "run": run_dir.name,
        "config": asdict(config),
        "precision": resolved.summary,
        "scores": [asdict(one) for one in scores],
        "skipped": list(skipped),
        "training": store.manifest(model)["counts"] if model.trains else None,
        "steps": [_entry(store, step) for step in _cached(store, [model, *scored])],
        "filters": synthetic.filters(store, behind),
        "translations": synthetic.translations(store, behind),
        "seconds": round(time.monotonic() - began, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RESIDENT_UNIT_BYTES,
        "provenance": provenance(),
    }
    results, answers = scrub_all(results), scrub_all(answers)
    link = run_dir / "model"
    link.unlink(missing_ok=True)
    link.symlink_to((store.path(model) / "model").resolve(), target_is_directory=True)
    paired.write(run_dir, items)
    write_json(run_dir / "results.json", results)
    write_rows(run_dir / "samples.jsonl", answers)
    write_rows(run_dir / "translations.jsonl", results["translations"])
    with writing(run_dir / "report.md"):
        (run_dir / "report.md").write_text(scrub(markdown.report(results, scores, answers)), encoding="utf-8")
    events.finished(results)
    _print(run_dir, results, scores, compared_with)


def _cached(store: Store, steps: Sequence[Step]) -> list[Step]:
    return [step for step in lineage(steps) if store.cached(step)]


def _entry(store: Store, step: Step) -> dict[str, Any]:
    manifest = store.manifest(step)
    facts = {name: manifest[name] for name in ("name", "key", "counts", "seconds", "created")}
    return {**facts, **subject(step), "path": str(store.path(step))}


def _print(run_dir: Path, results: dict[str, Any], scores: Sequence[Score], compared_with: Sequence[str]) -> None:
    console = new_console()
    console.print(f"\n{results['run']}", style="italic")
    _print_scores(console, scores, results["config"]["method"]["name"])
    for line in synthetic.lines(results["filters"]):
        console.print(line, soft_wrap=True)
    for reason in results["skipped"]:
        console.print(f"not run: {reason}", style="yellow")
    memory_gib = results["peak_memory_bytes"] / 2**30
    files = [run_dir / f"{name}.jsonl" for name in ("samples", "translations")]
    lines = {
        "time": f"{results['seconds'] / 60:.1f} min, peak memory {memory_gib:.1f} GiB",
        "model": f"{run_dir / 'model'}  (from_pretrained loads it)",
        "report": run_dir / "report.md",
        **{file.stem: file for file in files if file.stat().st_size},
        "next": f"python -m sdx {_next(results['config'], compared_with)}  uses the same cache; python -m sdx --help "
        "shows more",
    }
    for name, text in lines.items():
        console.print(f"{name:<8} {text}", soft_wrap=True)


def _print_scores(console: Console, scores: Sequence[Score], method: str) -> None:
    if simple := [one for one in scores if not one.system]:
        table = Table(header_style="bold")
        for name in markdown.COLUMNS:
            justify = "right" if name in markdown.NUMBERS else "left"
            table.add_column(name, justify=justify, no_wrap=name != "items")  # type: ignore[arg-type]
        for one in simple:
            table.add_row(*markdown.cells(one), style={1: "green", -1: "red"}.get(direction(one.difference)))
        console.print(table)
    several = matrix.matrices(scores, method)
    for shown in several:
        # The engine of a machine translation stands in a line of its own.
        heads = [(language, *origin.split(" ", 1), n) for language, origin, n in shown.heads]
        wide(console, f"{shown.task}\n{shown.metric}", heads, shown.rows)
    for line in (markdown.LEGEND, markdown.limits(scores), matrix.legend(method) if several else None):
        if line:
            console.print(line, style="dim")


def _next(config: dict[str, Any], compared_with: Sequence[str]) -> str:
    """The overrides of a run to compare this one with, whole."""
    overrides, backbone = list(compared_with), config["backbone"]["name"]
    if backbone != DEFAULT_BACKBONE:
        overrides.append(f"backbone={backbone}")
    targets = ",".join(config["lang"]["targets"])
    return " ".join([*overrides, f"lang='[{targets}]'" if "," in targets else f"lang={targets}"])
