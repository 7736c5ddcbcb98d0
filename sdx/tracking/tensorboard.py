"""Metrics to TensorBoard, in `<run directory>/tensorboard`: `tensorboard --logdir runs` shows all cells.

Each axis is a directory, for TensorBoard knows one axis, and what a resumed process shows anew hides what was there
from that step on.
"""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import Config
from sdx.process.console import plain, table
from sdx.process.secret import clean, scrub
from sdx.tracking.backend import Backend, Ending, Results, Rows


class TensorBoard(Backend):
    """See the module's text."""

    name = "tensorboard"

    def __init__(self, config: Config, run_dir: Path) -> None:
        super().__init__(config, run_dir)
        self._writers: dict[str, Any] = {}
        self._last: dict[str, int] = {}

    @classmethod
    def check(cls) -> None:
        if find_spec("tensorboard") is None:
            raise InputError(
                "tracking=tensorboard needs the package tensorboard; pip install 'sdx[tensorboard]', or give "
                "tracking=wandb or tracking=none"
            )

    def logged(self, axis: str) -> int:
        if axis not in self._last:
            self._last[axis] = _last_step(self._dir(axis))
        return self._last[axis]

    def log(self, axis: str, step: int, values: Mapping[str, float]) -> None:
        writer = self._writer(axis, step)
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        self._last[axis] = max(step, self.logged(axis))

    def finish(self, results: Results) -> None:
        writer = self._writer("results/number", 0)
        writer.add_text("config", f"```\n{dumps(clean(asdict(self.config)), indent=2)}\n```", 0)
        for name, value in results.summary.items():
            writer.add_scalar(name, value, 0)
        for name, rows in results.tables.items():
            writer.add_text(f"tables/{name}", _markdown(rows), 0)
        for path in results.reports:
            if path.suffix == ".md":
                writer.add_text(path.name, scrub(path.read_text(encoding="utf-8")), 0)
        self.close(Ending.done)

    def close(self, ending: Ending) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _dir(self, axis: str) -> Path:
        return self.run_dir / "tensorboard" / axis.rpartition("/")[0]

    def _writer(self, axis: str, step: int) -> Any:
        if axis not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            last = self.logged(axis)
            self._writers[axis] = SummaryWriter(
                str(self._dir(axis)), purge_step=step if last >= step else None, flush_secs=10
            )
        return self._writers[axis]


def _last_step(directory: Path) -> int:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not directory.exists():
        return -1
    read = EventAccumulator(str(directory))
    read.Reload()
    return max((read.Scalars(tag)[-1].step for tag in read.Tags()["scalars"]), default=-1)


def _markdown(rows: Rows) -> str:
    columns = [(name, "right" if isinstance(value, (int, float)) else "left") for name, value in rows[0].items()]
    cells = [
        ["" if v is None else plain(f"{v:.4g}" if isinstance(v, float) else str(v)) for v in row.values()]
        for row in rows
    ]
    return table([[scrub(cell) for cell in row] for row in cells], columns)
