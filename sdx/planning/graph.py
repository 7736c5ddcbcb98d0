"""The steps that a run would make, in the order of `Store.realise`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sdx.store.batch_log import BatchLog
from sdx.store.step import Step
from sdx.store.store import Store


class State(str, Enum):
    cached = "cached"
    todo = "to do"
    resumes = "resumes"
    not_needed = "not needed"
    """Not there, but everything made from it is."""

    @property
    def runs(self) -> bool:
        return self in (State.todo, State.resumes)


@dataclass(frozen=True)
class Node:
    """A step with what a run would do with it."""

    step: Step
    state: State
    done: int = 0
    """Finished rows of an interrupted step; of a training, optimizer steps."""


def walk(store: Store, steps: Sequence[Step]) -> list[Node]:
    """The steps and all steps behind them, each once, in the order of a run: inputs first."""
    needed = store.needed(steps)
    nodes: dict[str, Node] = {}

    def visit(step: Step) -> None:
        if step.key in nodes:
            return
        for inner in step.inputs.values():
            visit(inner)
        nodes[step.key] = _node(store, step, needed)

    for step in steps:
        visit(step)
    return list(nodes.values())


def _node(store: Store, step: Step, needed: Mapping[str, Step]) -> Node:
    if store.cached(step):
        return Node(step, State.cached)
    if step.key not in needed:
        return Node(step, State.not_needed)
    partial = Path(f"{store.path(step)}.partial")
    return Node(step, State.resumes, _done(partial)) if partial.is_dir() else Node(step, State.todo)


def _done(partial: Path) -> int:
    """Rows in the logs of an interrupted step, or the optimizer steps of its last checkpoint."""
    checkpoints = (path.name.removeprefix("step_") for path in partial.glob("checkpoints/step_*"))
    if numbers := [int(number) for number in checkpoints if number.isdecimal()]:
        return max(numbers)
    return sum(_rows(path) for path in partial.glob(f"rows*{BatchLog.SUFFIX}"))


def _rows(path: Path) -> int:
    """Rows of a batch log."""
    return sum(len(rows) for _, rows in BatchLog.batches(path))
