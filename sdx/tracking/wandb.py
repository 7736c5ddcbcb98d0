"""Metrics to wandb: online with a key, offline without a key or if the server does not answer.

A run directory is one wandb run, with its id in `tracking.json`, and the rows of the wandb run are the points of
`Curves`. A process that continues the run sends the rows that the server lacks. An offline process cannot ask the
server: it writes all rows that were not uploaded before into a new directory, which replaces the earlier ones.
"""

import netrc
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from logging import getLogger
from pathlib import Path
from shutil import rmtree
from typing import Any
from urllib.parse import urlparse

from sdx.config import Config, Stages, TrackingMode
from sdx.process.secret import clean, scrub
from sdx.store.files import read_intact, write_json
from sdx.store.provenance import provenance
from sdx.tracking.content import Results
from sdx.tracking.state import RunState
from sdx.tracking.tracker import Backend, Point

log = getLogger("sdx")

STATE = "tracking.json"
"""`id`: of the wandb run; `rows`: how many there were at the end of the last process; `sent`: how many of them the
server or an uploaded directory has; `results`: the `Results.lasting` that were logged."""


class Wandb(Backend):
    name = "wandb"

    def __init__(self, config: Config, run_dir: Path) -> None:
        super().__init__(config, run_dir)
        self._run: Any = None
        self._row = 0
        """The `step` of the next row in wandb, which drops a row if a step repeats."""
        self._axes: set[str] = set()

    def show(self, point: Point) -> None:
        if self._run is None:
            self._open()
        else:
            self._add(point)

    def has(self, results: Results) -> bool:
        return self._state().get("results") == results.lasting

    def finish(self, results: Results) -> None:
        import wandb

        if self._run is None:
            self._open()
        run = self._run
        run.summary.update(dict(results.summary))
        tables = {}
        for name, rows in results.tables.items():
            data = [[scrub(v) if isinstance(v, str) else v for v in row.values()] for row in rows]
            tables[f"tables/{name}"] = wandb.Table(list(rows[0]), data, allow_mixed_types=True)
        if self.curves.add("tables/number", self.curves.last("tables/number") + 1, {}):
            self._log(tables)
        artifact = wandb.Artifact(f"report-{run.id}", "report")
        for path in results.reports:
            with artifact.new_file(path.name, encoding="utf-8") as file:
                file.write(scrub(path.read_text(encoding="utf-8")))
        run.log_artifact(artifact)
        self.close(RunState.done, results=results.lasting)

    def close(self, state: RunState, **more: Any) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        if state is RunState.interrupted:
            run.mark_preempting()
        upload = f"wandb sync {'' if run.offline else '--include-online '}{self.run_dir / 'wandb'}"
        try:
            run.finish(exit_code=0 if state is RunState.done else 1)
        except Exception as error:  # the server's, or of wandb's own process
            why = " ".join(str(error).split())
            log.warning("%-12s ended before all was sent (%s); %s uploads what is on the disk", self.name, why, upload)
            return
        rows = len(self.curves.points)
        sent = {} if run.offline else {"sent": rows}
        write_json(self.run_dir / STATE, {**self._state(), "rows": rows, **sent, **more})
        if run.offline:
            log.info("%-12s offline; %s uploads it", self.name, upload)

    def _add(self, point: Point) -> None:
        if not point.values:  # tables, which are logged with the results
            self._row += 1
            return
        if point.axis not in self._axes:
            self._run.define_metric(point.axis, hidden=True)
            self._run.define_metric(f"{point.axis.rpartition('/')[0]}/*", step_metric=point.axis)
            self._axes.add(point.axis)
        self._log({point.axis: point.step, **point.values, "_timestamp": point.time_s})

    def _log(self, row: Mapping[str, Any]) -> None:
        self._run.log(dict(row), step=self._row, commit=True)
        self._row += 1

    def _state(self) -> dict[str, Any]:
        return read_intact(self.run_dir / STATE)

    def _open(self) -> None:
        """Begins or continues the wandb run, and sends the rows that it lacks."""
        state = {} if self.curves.are_new else self._state()
        folders = sorted((self.run_dir / "wandb").glob("offline-run-*"))
        uploaded = [any(folder.glob("*.synced")) for folder in folders]
        sent = state.get("sent", 0)
        if uploaded and uploaded[-1]:
            sent = state.get("rows", sent)
        state = {"id": state.get("id") or secrets.token_hex(4), "sent": sent}
        write_json(self.run_dir / STATE, state)
        # wandb copies what it uploads later: into the run directory, not into the home directory
        os.environ.setdefault("WANDB_DATA_DIR", str((self.run_dir / "wandb/data").resolve()))
        self._run = _begin(self.config, self.run_dir, state["id"])
        self._row = sent if self._run.offline else self._run.step
        for point in self.curves.points[self._row :]:
            self._add(point)
        for folder, there in zip(folders, uploaded, strict=True):
            if not there and folder != Path(self._run.settings.sync_dir):
                rmtree(folder)


def _begin(config: Config, run_dir: Path, id_: str) -> Any:
    """Begins a wandb run, or continues the one with that id; offline if a server does not answer."""
    import wandb
    from hydra.core.hydra_config import HydraConfig

    experiment = HydraConfig.get().runtime.choices.get("experiments") if HydraConfig.initialized() else None
    tags = (config.method.name, config.backbone.name, *config.lang.targets, f"seed-{config.seed}", config.engine.name)
    begin = partial(
        wandb.init,
        id=id_,
        resume="allow",
        project=config.tracking.project,
        entity=config.tracking.entity,
        group=config.tracking.group or experiment or f"{config.method.name}-{'+'.join(config.lang.targets)}",
        job_type="prepare" if config.stages is Stages.prepare else "run",
        tags=[tag[:64] for tag in clean(list(dict.fromkeys(tags)))],
        name=run_dir.name,
        dir=str(run_dir),
        config=clean({**asdict(config), "provenance": provenance()}),
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,  # the command line and the environment may hold secrets
            x_save_requirements=False,
            x_transaction_log_flush_interval=1.0,  # seconds of rows that a kill may cost a run that is not restarted
            init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", 30.0)),
            finish_timeout=float(os.environ.get("WANDB_FINISH_TIMEOUT", 60.0)),  # what is left stays on the disk
            finish_timeout_raises=True,
        ),
    )
    mode: Any = config.tracking.mode.value
    if config.tracking.mode is TrackingMode.auto:
        mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
    try:
        return begin(mode=mode)
    except (wandb.Error, TimeoutError) as error:
        if mode != "online":
            raise
        why = " ".join(str(error).split())
        log.warning("%-12s offline for this run, because the server cannot be used: %s", "wandb", why)
        wandb.teardown(exit_code=1)  # wandb's own process still has the run
        return begin(mode="offline")


def has_key() -> bool:
    """Whether wandb would find a key without asking: in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    own = os.environ.get("WANDB_BASE_URL")
    hosts = [urlparse(own).netloc] if own else ["api.wandb.ai", "api.forge.coreweave.com"]  # the second since 0.31
    try:
        found = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return any(found.authenticators(host) for host in hosts)
