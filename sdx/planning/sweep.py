"""`plan=true` of a sweep: a line for each run, and the totals with shared steps counted once."""

from collections.abc import Sequence

from rich.table import Table

from sdx.methods.base import RunPlan
from sdx.models.precision import ResolvedConfig
from sdx.planning import tables
from sdx.planning.measured import Measured
from sdx.planning.show import estimated, sum_up
from sdx.process.console import console as new_console
from sdx.process.console import duration, short
from sdx.process.devices import visible_gpu
from sdx.store.store import Store


def show_sweep(runs: Sequence[tuple[str, ResolvedConfig, RunPlan]], store: Store) -> None:
    """Prints the plan of runs, each with its name, configuration and steps."""
    gpu, measured = visible_gpu(), Measured(store)
    console = new_console()
    table = Table(title="plan of the sweep", title_justify="left", header_style="bold")
    together: dict[str, tables.Line] = {}
    for name, resolved, work in runs:
        lines, shape, _, where = estimated(resolved.config, resolved.on_gpus, store, work.ordered(store), gpu, measured)
        if not table.columns:
            for head in ("run", "to do", "cached", "generated", "translated", "trained"):
                table.add_column(head, justify="left" if head == "run" else "right", overflow="fold")
            for machine in where:
                table.add_column(machine.name, justify="right")
        figures = sum_up(lines, where)
        tokens = [short(figures[f"{done}_tokens"]) for done in ("generated", "translated", "trained")]
        hours = map(duration, figures["hours"].values())
        table.add_row(name, str(figures["to_do"]), str(figures["cached"]), *tokens, *hours)
        together.update({line.node.step.key: line for line in lines if line.node.state.runs})
    console.print(table)
    for said in dict.fromkeys(resolved.summary for _, resolved, _ in runs):
        console.print(f"precision: {said}")
    console.print(f"{len(runs)} runs, one after the other, each step made once:")
    tables.total(console, shape, sum_up(list(together.values()), where), where, gpu)
