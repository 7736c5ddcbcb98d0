"""From runs to a Markdown block: medians, spreads, ratios. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from sdx.config import Adapter, ShapeConfig

GIB = 2**30
FACTOR = {Adapter.full: 6, Adapter.lora: 4}
"""FLOPs of a token and weight."""
Run = Mapping[str, Any]


def flops_per_token(shape: ShapeConfig, lengths: Sequence[int], adapter: Adapter) -> tuple[float, float]:
    """FLOPs that a useful token needs: in products with weights, and in attention.

    6N in full training, 2 forward and 4 backward; 4N where the weights are frozen and get no gradients. N counts all
    weights. Attention: 2 L^2 h in a layer's causal forward pass over L tokens, and twice that backward.
    """
    squares = sum(length**2 for length in lengths) / sum(lengths)
    return FACTOR[adapter] * shape.parameters, 6 * shape.layers * shape.hidden_size * squares


def rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each contestant: medians over the rounds, and sdx's ratio to it.

    Returns:
        `contestant`; `failed` where a round has no result, else `tokens_per_s`, `low`, `high`, `peak_gib`,
        `compile_s`, `padding`, `isolated`, `weights`; where sdx ran, `speedup` of medians, `speedup_low` and
        `speedup_high` over the rounds, `memory`: sdx's peak as a share of the contestant's.
    """
    by_name: dict[str, list[Run]] = {}
    for run in comparison["runs"]:
        by_name.setdefault(run["contestant"], []).append(run)
    return [_row(name, runs, by_name.get("sdx", [])) for name, runs in by_name.items()]


def _row(name: str, runs: Sequence[Run], ours: Sequence[Run]) -> dict[str, Any]:
    if failed := [run["failed"] for run in runs if "failed" in run]:
        return {"contestant": name, "failed": failed[0]}
    speeds = [run["tokens_per_s"] for run in runs]
    row = {
        "contestant": name,
        "tokens_per_s": median(speeds),
        "low": min(speeds),
        "high": max(speeds),
        "peak_gib": median(run["peak_bytes"] for run in runs) / GIB,
        "compile_s": median(run["compile_s"] for run in runs),
        "padding": median(run["padding"] for run in runs),
        "isolated": all(run["isolated"] for run in runs),
        "weights": runs[0]["weights"],
    }
    if name != "sdx" and ours and not any("failed" in run for run in ours):
        ratios = [our["tokens_per_s"] / speed for our, speed in zip(ours, speeds, strict=True)]
        row["speedup"] = median(run["tokens_per_s"] for run in ours) / row["tokens_per_s"]
        row["speedup_low"], row["speedup_high"] = min(ratios), max(ratios)
        row["memory"] = median(run["peak_bytes"] for run in ours) / GIB / row["peak_gib"]
    return row


HEADINGS = (
    "contestant",
    "useful tokens/s (range)",
    "sdx is faster (by round)",
    "peak memory",
    "sdx needs",
    "compile s",
    "padding",
    "examples see each other",
    "trained weights",
)


def markdown(measured: Mapping[str, Any]) -> str:
    """What RESULTS.md records of a command: one section for each comparison."""
    return "\n\n".join(_section(measured, comparison) for comparison in measured["comparisons"]) + "\n"


def _section(measured: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    machine, job, data = measured["machine"], comparison["job"], measured["data"]
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    best = comparison["trl_best"]
    layouts = [run["layout"] for run in comparison["runs"] if "layout" in run]
    layout = ", ".join(f"{key}={value}" for key, value in layouts[0].items()) if layouts else ""
    searched = "; ".join(f"{name} {speed:,.0f}" for name, speed in comparison["searched"].items())
    lines = [
        f"### {measured['date']}: {measured['model']}, {comparison['adapter']}, on {machine['device']}",
        "",
        f"    {measured['command']}",
        "",
        *_bullets(
            f"Machine: {machine['cpu']}, {machine['cores']} cores, {measured['threads']} threads a run, "
            f"{machine['memory_gib']:.0f} GiB",
            f"Versions: {versions}; sdx at {measured['git'] or 'no checkout'}",
            f"Data: {data['source']}; tokens of an example: mean {data['mean']}, median {data['median']}, "
            f"p95 {data['p95']}, longest {data['longest']}; {data['prompt_share']:.0%} of them prompt",
            f"Each run: {job['warmup_steps']} warm-up and {job['steps']} measured steps of {job['batch_size']} "
            f"examples; {measured['rounds']} alternating rounds",
            f"sdx: {layout}" if layout else "",
            f"TRL's best: {best['name']} ({best['found']})" if best else "",
            f"TRL's candidates, useful tokens/s in a short run each: {searched}" if searched else "",
        ),
        "",
        *table(HEADINGS, [_cells(row) for row in rows(comparison)]),
        "",
        *_flops_lines(measured, comparison),
    ]
    return "\n".join(lines)


def _bullets(*texts: str) -> list[str]:
    return [f"- {text}" for text in texts if text]


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "failed" in row:
        return [row["contestant"], row["failed"].splitlines()[0], *[""] * (len(HEADINGS) - 2)]
    versus = "speedup" in row
    return [
        row["contestant"],
        f"{row['tokens_per_s']:,.0f} ({row['low']:,.0f} to {row['high']:,.0f})",
        f"{row['speedup']:.2f} x ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})" if versus else "",
        f"{row['peak_gib']:.2f} GiB",
        f"{row['memory']:.0%}" if versus else "",
        f"{row['compile_s']:.1f}",
        f"{row['padding']:.1%}",
        "no" if row["isolated"] else "yes",
        row["weights"],
    ]


def _flops_lines(measured: Mapping[str, Any], comparison: Mapping[str, Any]) -> list[str]:
    """Each contestant's share of what the device can do."""
    weights, attention = comparison["flops_per_token"]
    factor = FACTOR[Adapter(comparison["adapter"])]
    ceiling, peak = measured["ceiling"]["flops_per_s"], measured["ceiling"]["vendor_flops_per_s"]
    shape = " x ".join(map(str, measured["ceiling"]["shape"]))
    stated = f", the vendor's figure {peak / 1e12:.0f} TFLOP/s" if peak else ""
    shares = []
    for row in rows(comparison):
        if "failed" not in row:
            used = row["tokens_per_s"] * weights
            of_peak = f", {used / peak:.1%} of the vendor's figure" if peak else ""
            shares.append(f"{row['contestant']} {used / ceiling:.1%} of the ceiling{of_peak}")
    return [
        f"{factor}N FLOPs a useful token (N = {measured['parameters']:,} weights), attention's "
        f"{attention / weights:.1%} on top not counted; bf16 ceiling measured here {ceiling / 1e12:.2f} TFLOP/s "
        f"({shape}){stated}:",
        "",
        *_bullets(*shares),
    ]


def table(headings: Sequence[str], cells: Iterable[Sequence[str]]) -> list[str]:
    """Markdown, aligned so that a terminal can show it."""
    table = [list(headings), *map(list, cells)]
    widths = [max(len(line[column]) for line in table) for column in range(len(headings))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in table]
    rule = ["-" * width for width in widths]
    return [f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:])]
