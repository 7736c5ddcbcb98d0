"""The report as Markdown, from results.json's content alone."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sdx.evaluation.scores import Score
from sdx.evaluation.statistics import detectable
from sdx.process.console import plain, table
from sdx.process.printable import escaped
from sdx.reporting import matrix, synthetic

COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("benchmark", "left"),
    ("language", "left"),
    ("metric", "left"),
    ("items", "left"),
    ("n", "right"),
    ("before", "right"),
    ("after", "right"),
    ("difference [95 %]", "right"),
)
LEGEND = (
    "percent (chrF++ and BLEU: points of 100), 95 % intervals, differences paired over the same items, items that "
    "share a passage counted together; answer "
    "language: share of answers in the language of the instruction, where a loop or a text in no identifiable language "
    "counts as none"
)
SHOWN_SAMPLES = 10


def direction(score: Score) -> int:
    """1 or -1 where the interval of the difference excludes 0, else 0."""
    if score.difference is None or score.difference.low <= 0 <= score.difference.high:
        return 0
    return 1 if score.difference.low > 0 else -1


def cells(score: Score) -> list[str]:
    """One row of the table."""
    after = f"{score.after.value:.1f}" if score.after else "-"
    gap = score.difference
    difference = f"{gap.value:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]" if gap else "-"
    return [
        score.task,
        score.language,
        score.metric,
        score.origin,
        str(score.before.n),
        f"{score.before.value:.1f}",
        after,
        difference,
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
    notes = [f"{_about(score)}: {score.note}" for score in scores if score.note]
    if notes or results["skipped"]:
        parts += ["\n".join(f"- {line}" for line in [*notes, *results["skipped"]])]
    if results["training"]:
        parts += ["## Training", _facts(results["training"])]
    parts += ["## Data and time", _steps(results["steps"])]
    if results["filters"]:
        parts += ["## What the filters dropped", synthetic.filter_table(results["filters"])]
    if results["translations"]:
        parts += ["## Translations", *synthetic.translation_tables(results["translations"])]
    parts += [
        f"This run took {results['seconds']:.0f} s, steps from the cache not counted; peak memory "
        f"{results['peak_memory_bytes'] / 2**30:.1f} GiB."
    ]
    if samples:
        parts += ["## Samples", *(_sample(sample) for sample in samples[:SHOWN_SAMPLES])]
    parts += ["## Configuration", "```json\n" + json.dumps(config, indent=1, ensure_ascii=False) + "\n```"]
    parts += ["## Provenance", "```json\n" + json.dumps(results["provenance"], indent=1) + "\n```"]
    return escaped("\n\n".join(parts)) + "\n"


def _scores(scores: Sequence[Score], method: str) -> list[str]:
    """A table of scores before and after, and where there are several systems, their matrices and differences."""
    parts = []
    if simple := [cells(score) for score in scores if not score.system]:
        parts.append(table(simple, COLUMNS))
    several = matrix.matrices(scores, method)
    for one in several:
        heads = [(f"{one.task}, {one.metric}", "left"), *((", ".join(head), "right") for head in one.heads)]
        parts.append(table([[plain(text) for text in row] for row in one.rows], heads))
    parts.append(_sentence(LEGEND))
    if found := limits(scores):
        parts.append(_sentence(found))
    if several:
        parts.append(_sentence(matrix.legend(f"`{method}`")))
    if gaps := matrix.differences(scores):
        columns = [(name, "right" if name in ("n", "p") else "left") for name in matrix.DIFFERENCES]
        parts += [f"`{method}` minus each system:", table([[plain(text) for text in row] for row in gaps], columns)]
    return parts


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _about(score: Score) -> str:
    return ", ".join(filter(None, (score.task, score.language, score.metric, score.system)))


def _facts(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name.replace('_', ' ')}: {_value(value)}" for name, value in facts.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    names = ("step", "what", "language", "key", "seconds", "counts")
    columns = [(name, "right" if name == "seconds" else "left") for name in names]
    rows = [
        [s["name"], s["what"], s["language"] or "", f"`{s['key']}`", f"{s['seconds']:.1f}", _value(s["counts"])]
        for s in steps
    ]
    return table(rows, columns)


def _sample(sample: Mapping[str, Any]) -> str:
    lines = [f"**{sample['language']}, {sample['id']}**", _quote(sample["instruction"])]
    for name in ("before", "after", "reference"):
        if sample.get(name) is not None:
            heading = name if f"{name}_language" not in sample else f"{name} ({sample[f'{name}_language']})"
            lines += [f"*{heading}:*", _quote(sample[name])]
    return "\n\n".join(lines)


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in escaped(text).splitlines()) or "> (empty)"
