"""What a run leaves: results.json, items.jsonl, report.md, samples.jsonl, translations.jsonl, a link to the model, and
a table in the terminal."""

import os
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
from sdx.store.files import write_json, write_rows
from sdx.store.provenance import provenance
from sdx.store.step import Step
from sdx.store.store import Store
from sdx.tasks.base import Instructions

DEFAULT_BACKBONE = "smollm2_135m"
"""Of conf/config.yaml."""


def conclude(
    run_dir: Path,
    resolved: ResolvedConfig,
    store: Store,
    model: Step,
    outcomes: Sequence[Comparison],
    skipped: Sequence[str],
    compared_with: Sequence[str],
    began: float,
) -> None:
    """Reports a finished run.

    Args:
        model: the step that published `model/`.
        outcomes: all of them in the store.
        skipped: a sentence for each benchmark and language that could not be run.
        compared_with: overrides of a run to compare this one with.
        began: `time.monotonic()` at the start of the run.
    """
    config = resolved.config
    judged: list[ItemScores] = []
    answers: list[dict[str, Any]] = []
    for one in outcomes:
        paths = store.path(one.before), store.path(one.after) if one.after else None
        judged += judge(one.suite, store, *paths, one.system)
        if isinstance(one.suite.task, Instructions) and not one.system:
            answers += samples(one.suite, store, *paths)
    answers.sort(key=lambda sample: sample["language"] == config.lang.source)
    found = [score(one) for one in judged]

    behind = ancestry(store, [model])
    results: dict[str, Any] = {
        "run": run_dir.name,
        "config": asdict(config),
        "precision": resolved.summary,
        "scores": [asdict(one) for one in found],
        "skipped": list(skipped),
        "training": store.manifest(model)["counts"] if model.trains else None,
        "steps": [_step(store, step) for step in ancestry(store, [model, *_steps(outcomes)])],
        "filters": synthetic.filters(store, behind),
        "translations": synthetic.translations(store, behind),
        "seconds": round(time.monotonic() - began, 1),
        "peak_memory_bytes": peak_memory_bytes(),
        "provenance": provenance(),
    }
    results, answers = scrub_all(results), scrub_all(answers)
    link(run_dir / "model", store.path(model) / "model")
    paired.write(run_dir, judged)
    write_json(run_dir / "results.json", results)
    write_rows(run_dir / "samples.jsonl", answers)
    write_rows(run_dir / "translations.jsonl", results["translations"])
    with writing(run_dir / "report.md"):
        (run_dir / "report.md").write_text(scrub(markdown.report(results, found, answers)), encoding="utf-8")
    events.finished(results)
    _print(run_dir, results, found, compared_with)


def _steps(outcomes: Sequence[Comparison]) -> list[Step]:
    return [step for one in outcomes for step in (one.before, one.after) if step]


def ancestry(store: Store, steps: Sequence[Step]) -> list[Step]:
    """The steps and all behind them that are in the store, inputs first, each once."""
    found: dict[str, Step] = {}

    def visit(step: Step) -> None:
        for needed in step.inputs.values():
            visit(needed)
        if store.cached(step):
            found.setdefault(step.key, step)

    for step in steps:
        visit(step)
    return list(found.values())


def _step(store: Store, step: Step) -> dict[str, Any]:
    manifest = store.manifest(step)
    language = step.purpose_language
    about = {"what": step.about, "language": language.code if language else None}
    shown = {name: manifest[name] for name in ("name", "key", "counts", "seconds", "created")}
    return {**shown, **about, "path": str(store.path(step))}


def peak_memory_bytes() -> int:
    """Largest resident set of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def link(path: Path, target: Path) -> None:
    """Points `path` at `target`, whatever it pointed at before."""
    path.unlink(missing_ok=True)
    os.symlink(target.resolve(), path, target_is_directory=True)


def _print(run_dir: Path, results: dict[str, Any], found: Sequence[Score], compared_with: Sequence[str]) -> None:
    console = new_console()
    _print_scores(console, results["run"], found, results["config"]["method"]["name"])
    for line in synthetic.lines(results["filters"]):
        console.print(line, soft_wrap=True)
    for reason in results["skipped"]:
        console.print(f"not run: {reason}", style="yellow")
    memory, minutes = results["peak_memory_bytes"] / 2**30, results["seconds"] / 60
    lines = {
        "time": f"{minutes:.1f} min, peak memory {memory:.1f} GiB",
        "model": f"{run_dir / 'model'}  (from_pretrained loads it)",
        "report": f"{run_dir / 'report.md'}",
        **{
            file: f"{run_dir / file}.jsonl"
            for file in ("samples", "translations")
            if (run_dir / f"{file}.jsonl").stat().st_size
        },
        "next": f"python -m sdx {_next(results['config'], compared_with)}  uses the same cache; python -m sdx --help "
        "shows more",
    }
    for name, text in lines.items():
        console.print(f"{name:<8} {text}", soft_wrap=True)


def _print_scores(console: Console, run: str, found: Sequence[Score], method: str) -> None:
    console.print(f"\n{run}", style="italic")
    if simple := [one for one in found if not one.system]:
        table = Table(header_style="bold")
        for name, justify in markdown.COLUMNS:
            table.add_column(name, justify=justify, no_wrap=name != "items")
        for one in simple:
            table.add_row(*markdown.cells(one), style={1: "green", -1: "red"}.get(markdown.direction(one)))
        console.print(table)
    several = matrix.matrices(found, method)
    for shown in several:
        # The engine of a machine translation stands in a line of its own.
        heads = [(language, *origin.split(" ", 1), n) for language, origin, n in shown.heads]
        wide(console, f"{shown.task}\n{shown.metric}", heads, shown.rows)
    console.print(markdown.LEGEND, style="dim")
    if limits := markdown.limits(found):
        console.print(limits, style="dim")
    if several:
        console.print(matrix.legend(method), style="dim")


def _next(config: dict[str, Any], compared_with: Sequence[str]) -> str:
    """The overrides of a run to compare this one with, whole."""
    overrides, backbone = list(compared_with), config["backbone"]["name"]
    if backbone != DEFAULT_BACKBONE:
        overrides.append(f"backbone={backbone}")
    targets = ",".join(config["lang"]["targets"])
    return " ".join([*overrides, f"lang='[{targets}]'" if "," in targets else f"lang={targets}"])
