"""Metrics to TensorBoard, in `<run directory>/tensorboard`: `tensorboard --logdir runs` shows all runs.

Each axis has a directory, because TensorBoard knows one axis. A resumed process writes the curves again, which hides
the earlier ones.
"""

from dataclasses import asdict
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import Config
from sdx.process.console import plain, table
from sdx.process.secret import clean, scrub
from sdx.tracking.content import Results, Rows
from sdx.tracking.state import RunState
from sdx.tracking.tracker import Backend, Point


class TensorBoard(Backend):
    name = "tensorboard"

    def __init__(self, config: Config, run_dir: Path) -> None:
        super().__init__(config, run_dir)
        self._writers: dict[str, Any] = {}

    @classmethod
    def check(cls) -> None:
        if find_spec("tensorboard") is None:
            raise InputError(
                "tracking=tensorboard needs the package tensorboard; pip install 'sdx[tensorboard]', or give "
                "tracking=wandb or tracking=none"
            )

    def show(self, point: Point) -> None:
        points = [point]
        if point.axis not in self._writers:
            points = sorted((one for one in self.curves.points if one.axis == point.axis), key=lambda one: one.step)
        writer = self._writer(point.axis, points[0].step)
        for one in points:
            for name, value in one.values.items():
                writer.add_scalar(name, value, one.step, one.time_s)

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
        self.close(RunState.done)

    def close(self, state: RunState) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, axis: str, first: int) -> Any:
        """The writer of an axis. A new one hides the points that are there from step `first` on."""
        if axis not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            directory = self.run_dir / "tensorboard" / axis.rpartition("/")[0]
            self._writers[axis] = SummaryWriter(str(directory), purge_step=first, flush_secs=10)
        return self._writers[axis]


def _markdown(rows: Rows) -> str:
    columns = [(name, "right" if isinstance(value, (int, float)) else "left") for name, value in rows[0].items()]
    texts = [
        [f"{v:.4g}" if isinstance(v, float) else "" if v is None else str(v) for v in row.values()] for row in rows
    ]
    return table([[scrub(plain(text)) for text in row] for row in texts], columns)
