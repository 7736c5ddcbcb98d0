"""What a dashboard has to be able to do. A new one is a class here and a YAML in conf/tracking/."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from sdx.config import Config

Rows = Sequence[Mapping[str, Any]]


CELL = "cell"
"""Begins the names of figures of the process that finished the cell."""


class Ending(Enum):
    """How a process leaves its cell."""

    done = "done"
    failed = "failed"
    preempted = "preempted"
    """The same cell goes on in a later process."""


@dataclass(frozen=True)
class Results:
    """What is known at the end of a cell."""

    summary: Mapping[str, float]
    """Figures of the whole cell by name."""
    tables: Mapping[str, Rows]
    """Rows of text and numbers, all rows of a table with the same columns."""
    reports: Sequence[Path] = field(default_factory=list)
    """Files to read."""

    @property
    def lasting(self) -> dict[str, float]:
        """The figures that are the same when the same command finds everything done."""
        return {name: value for name, value in self.summary.items() if not name.startswith(f"{CELL}/")}


class Backend(ABC):
    """One dashboard run per run directory, opened at the first thing to show. It may raise: `Tracker` guards it.

    Args:
        config: the cell.
        run_dir: its files go here.
    """

    name: str
    """In messages."""

    def __init__(self, config: Config, run_dir: Path) -> None:
        self.config = config
        self.run_dir = run_dir

    @classmethod
    def check(cls) -> None:
        """Raises `InputError` if a package that it needs is not installed."""

    def logged(self, axis: str) -> int:
        """The last step on that axis that is shown for good, by this process or one before it; -1 where none is."""
        return -1

    @abstractmethod
    def log(self, axis: str, step: int, values: Mapping[str, float]) -> None:
        """Points of several curves.

        Args:
            axis: name of the horizontal axis, `train/step`; the curves in front of it share it.
            step: where on the axis.
            values: curve -> height, `train/loss`. A name carries its unit.
        """

    def has(self, results: Results) -> bool:
        """Whether these are shown already."""
        return False

    @abstractmethod
    def finish(self, results: Results) -> None:
        """Shows the results and closes."""

    @abstractmethod
    def close(self, ending: Ending) -> None:
        """Puts everything logged on the disk or the server, in bounded time."""
