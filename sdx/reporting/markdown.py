"""The report as Markdown, from results.json's content alone."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sdx.evaluation.scores import Score
from sdx.evaluation.statistics import detectable
from sdx.process.console import plain
from sdx.process.printable import escaped
from sdx.reporting import matrix, synthetic
from sdx.reporting.tables import markdown_table, with_interval

COLUMNS = ("benchmark", "language", "metric", "items", "n", "before", "after", "difference [95 %]")
NUMBERS = COLUMNS[4:]
"""Right-aligned columns."""
LEGEND = (
    "percent (chrF++ and BLEU: points of 100), 95 % intervals, differences paired over the same items, items that "
    "share a passage counted together; answer language: share of answers in the language of the instruction, where a "
    "loop or a text in no identifiable language counts as none"
)
SHOWN_SAMPLES = 10


def cells(score: Score) -> list[str]:
    """The row of a score, see `COLUMNS`."""
    return [
        *(score.task, score.language, score.metric, score.origin, str(score.before.n), f"{score.before.value:.1f}"),
        f"{score.after.value:.1f}" if score.after else "-",
        with_interval(score.difference) if score.difference else "-",
    ]


def limits(scores: Sequence[Score]) -> str | None:
    """A sentence on how small a difference the items can show; None without differences."""
    found: dict[str, list[float]] = {}
    for score in scores:
        if score.difference and score.difference.low < score.difference.high:
            found.setdefault(f"{score.task} {score.metric}", []).append(detectable(score.difference))
    sizes = [f"{name} {min(some):.1f}{f' to {max(some):.1f}' if len(some) > 1 else ''}" for name, some in found.items()]
    return f"a true difference of this size shows four times out of five: {', '.join(sizes)}" if sizes else None


def report(results: Mapping[str, Any], scores: Sequence[Score], samples: Sequence[Mapping[str, Any]]) -> str:
    config = results["config"]
    parts = [
        f"# {results['run']}",
        f"Method `{config['method']['name']}`, backbone `{config['backbone']['name']}`, "
        f"{config['lang']['source']} to {', '.join(config['lang']['targets'])}, "
        f"translator `{config['translator']['name']}`, scale `{config['scale']['name']}`, seed {config['seed']}.",
        f"Precision: {results['precision']}.",
        "## Scores",
        *_scores(scores, config["method"]["name"]),
    ]
    about = [((score.task, score.language, score.metric, score.system), score.note) for score in scores if score.note]
    notes = [f"{', '.join(filter(None, names))}: {note}" for names, note in about] + results["skipped"]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    if facts := results["training"]:
        lines = (f"- {name.replace('_', ' ')}: {_value(value)}" for name, value in facts.items())
        parts += ["## Training", "\n".join(lines)]
    parts += ["## Data and time", _steps(results["steps"])]
    if results["filters"]:
        parts += ["## What the filters dropped", synthetic.filter_table(results["filters"])]
    if results["translations"]:
        parts += ["## Translations", *synthetic.translation_tables(results["translations"])]
    parts.append(
        f"This run took {results['seconds']:.0f} s, steps from the cache not counted; peak memory "
        f"{results['peak_memory_bytes'] / 2**30:.1f} GiB."
    )
    if samples:
        parts += ["## Samples", *map(_sample, samples[:SHOWN_SAMPLES])]
    parts += ["## Configuration", "```json\n" + json.dumps(config, indent=1, ensure_ascii=False) + "\n```"]
    parts += ["## Provenance", "```json\n" + json.dumps(results["provenance"], indent=1) + "\n```"]
    return escaped("\n\n".join(parts)) + "\n"


def _scores(scores: Sequence[Score], method: str) -> list[str]:
    """A table of scores before and after; if there are other systems, their matrices and differences."""
    parts = []
    if rows := [cells(score) for score in scores if not score.system]:
        parts.append(markdown_table(COLUMNS, rows, NUMBERS))
    several = matrix.matrices(scores, method)
    for one in several:
        heads = [", ".join(head) for head in one.heads]
        rows = [[plain(text) for text in row] for row in one.rows]
        parts.append(markdown_table([f"{one.task}, {one.metric}", *heads], rows, heads))
    sentences = LEGEND, limits(scores), matrix.legend(f"`{method}`") if several else None
    parts += [f"{text[0].upper()}{text[1:]}." for text in sentences if text]
    if gaps := matrix.differences(scores):
        rows = [[plain(text) for text in row] for row in gaps]
        parts += [f"`{method}` minus each system:", markdown_table(matrix.DIFFERENCES, rows, ("n", "p"))]
    return parts


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [s["name"], s["what"], s["language"] or "", f"`{s['key']}`", f"{s['seconds']:.1f}", _value(s["counts"])]
        for s in steps
    ]
    return markdown_table(("step", "what", "language", "key", "seconds", "counts"), rows, ("seconds",))


def _sample(sample: Mapping[str, Any]) -> str:
    lines = [f"**{sample['language']}, {sample['id']}**", _quote(sample["instruction"])]
    for name in ("before", "after", "reference"):
        if sample.get(name) is not None:
            heading = name if f"{name}_language" not in sample else f"{name} ({sample[f'{name}_language']})"
            lines += [f"*{heading}:*", _quote(sample[name])]
    return "\n\n".join(lines)


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in escaped(text).splitlines()) or "> (empty)"
