"""Metrics to wandb: online with a key, offline without, never a reason for a run to fail."""

import netrc
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict
from logging import getLogger
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from sdx.artifacts import read_json, write_json
from sdx.config import Config, TrackingMode
from sdx.ranks import is_main

log = getLogger("sdx")

INIT_TIMEOUT_S = 30
STATE = "tracking.json"


class Tracker:
    """One wandb run per run directory, opened at the first thing there is to log and resumed by its id.

    Args:
        config: the cell.
        run_dir: wandb's files and the run's id go here.
    """

    def __init__(self, config: Config, run_dir: Path) -> None:
        self.config = config
        self.run_dir = run_dir
        self.state = run_dir / STATE
        self.enabled = is_main() and config.tracking.mode is not TrackingMode.off
        self._run: Any = None
        self._axes: set[str] = set()

    def log_training(self, row: dict[str, Any], stage: str = "") -> None:
        """One line of the training log, on its own step axis.

        Args:
            stage: which of a cell's trainings it is, where there are several.
        """
        where = f"train/{stage}" if stage else "train"
        self._guarded(lambda: self._axis(where).log({f"{where}/{name}": value for name, value in row.items()}))

    def _axis(self, where: str) -> Any:
        """The run, in which the metrics there have their own steps."""
        run = self._open()
        if where not in self._axes:
            run.define_metric(f"{where}/step")
            run.define_metric(f"{where}/*", step_metric=f"{where}/step")
            self._axes.add(where)
        return run

    def finish(self, summary: dict[str, Any], report: Path) -> None:
        """The scores and the report; nothing where the same scores were logged before."""
        logged = read_json(self.state).get("summary") if self.state.exists() else None
        if logged != summary:
            self._guarded(lambda: self._finish(summary, report))

    def _finish(self, summary: dict[str, Any], report: Path) -> None:
        run = self._open()
        run.summary.update(summary)
        shutil.copy(report, run.dir)  # wandb uploads what it finds there
        write_json(self.state, {"id": run.id, "summary": summary})
        run.finish()
        self._run = None
        if run.settings.mode == "offline":
            log.info("%-12s offline; wandb sync %s uploads it", "wandb", Path(run.dir).parent)

    def _guarded(self, action: Callable[[], Any]) -> None:
        """Tracking is a convenience and its failures are many (network, keys, quotas): warn once, go on without."""
        if not self.enabled:
            return
        try:
            action()
        except Exception as error:
            self.enabled = False
            log.warning("wandb        off for this run: %s", " ".join(str(error).split()) or type(error).__name__)

    def _open(self) -> Any:
        if self._run is None:
            import wandb

            tracking = self.config.tracking
            id_ = read_json(self.state)["id"] if self.state.exists() else secrets.token_hex(4)
            write_json(self.state, {"id": id_})
            self._run = wandb.init(
                id=id_,
                resume="allow",
                mode=self._mode(),
                project=tracking.project,
                entity=tracking.entity,
                group=tracking.group or f"{self.config.method.name}-{'+'.join(self.config.lang.targets)}",
                name=self.run_dir.name,
                dir=str(self.run_dir),
                config=asdict(self.config),
                settings=wandb.Settings(console="off", silent=True, init_timeout=INIT_TIMEOUT_S),
            )
        return self._run

    def _mode(self) -> Any:
        mode = self.config.tracking.mode
        if mode is not TrackingMode.auto:
            return mode.value
        return os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")


def _has_key() -> bool:
    """Whether wandb would find a key without asking: in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc().authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
