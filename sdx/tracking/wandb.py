"""Metrics to wandb: online with a key, offline without and where the server does not answer.

A run directory is one wandb run, whose id lies in `tracking.json`, and its rows are the points of `Curves`. A process
that goes on with the run sends the rows that the server lacks. An offline one cannot ask: it writes all rows that were
not uploaded by then into a directory of its own, which takes the place of the earlier ones.
"""

import netrc
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from logging import getLogger
from pathlib import Path
from shutil import rmtree
from typing import Any
from urllib.parse import urlparse

from sdx.config import Config, TrackingMode
from sdx.process.secret import clean, scrub
from sdx.store.files import read_intact, write_json
from sdx.store.provenance import provenance
from sdx.tracking.content import Results
from sdx.tracking.state import RunState
from sdx.tracking.tracker import Backend, Point

log = getLogger("sdx")

INIT_TIMEOUT_S = 30.0
FINISH_TIMEOUT_S = 60.0
"""For what is not uploaded yet. What remains is on the disk. wandb's own variables WANDB_INIT_TIMEOUT and
WANDB_FINISH_TIMEOUT set others."""
FLUSH_S = 1.0
"""Between two writes to the disk: what a kill may cost a run that nobody starts again."""
HOSTS = ["api.wandb.ai", "api.forge.coreweave.com"]
"""wandb's own servers: the one of old, and that of wandb 0.31."""
LONGEST_TAG = 64
PREPARE = "prepare"
STATE = "tracking.json"
KINDS = {"id": str, "sent": int, "rows": int, "results": dict}
"""What it holds: `sent` is how many rows the server or an uploaded directory has, `rows` how many there were when the
last process ended."""


class Wandb(Backend):
    """See the module's text."""

    name = "wandb"

    def __init__(self, config: Config, run_dir: Path) -> None:
        super().__init__(config, run_dir)
        self._run: Any = None
        self._row = 0
        """wandb's own step: a row with a step that was there before would be dropped."""
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
        with _staged(self.run_dir):
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
        self._close(RunState.done, {"results": results.lasting})

    def close(self, state: RunState) -> None:
        if self._run is not None:
            self._close(state, {})

    def _close(self, state: RunState, more: Mapping[str, Any]) -> None:
        run, self._run = self._run, None
        if state is RunState.interrupted:
            run.mark_preempting()
        upload = f"wandb sync {'' if run.offline else '--include-online '}{self.run_dir / 'wandb'}"
        try:
            run.finish(exit_code=0 if state is RunState.done else 1)
        except Exception as error:  # that is the server's trouble, or of wandb's own process
            why = " ".join(str(error).split())
            log.warning("%-12s ended before all was sent (%s); %s uploads what is on the disk", self.name, why, upload)
            return
        rows = len(self.curves.points)
        sent = {} if run.offline else {"sent": rows}
        write_json(self.run_dir / STATE, {**self._state(), "rows": rows, **sent, **more})
        if run.offline:
            log.info("%-12s offline; %s uploads it", self.name, upload)

    def _add(self, point: Point) -> None:
        if not point.values:  # tables, which come with the results
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
        found = read_intact(self.run_dir / STATE)
        return {name: found[name] for name, kind in KINDS.items() if isinstance(found.get(name), kind)}

    def _open(self) -> None:
        """Begins the run or goes on with it, and shows what is missing in it."""
        state = {} if self.curves.are_new else self._state()
        folders = sorted((self.run_dir / "wandb").glob("offline-run-*"))
        uploaded = [any(folder.glob("*.synced")) for folder in folders]
        sent = state.get("sent", 0)
        if uploaded and uploaded[-1]:
            sent = state.get("rows", sent)
        state = {"id": state.get("id") or secrets.token_hex(4), "sent": sent}
        write_json(self.run_dir / STATE, state)
        self._run = _begin(self.config, self.run_dir, state["id"])
        self._row = sent if self._run.offline else self._run.step
        for point in self.curves.points[self._row :]:
            self._add(point)
        for folder, there in zip(folders, uploaded, strict=True):
            if not there and folder != Path(self._run.settings.sync_dir):
                rmtree(folder)


def _begin(config: Config, run_dir: Path, id_: str) -> Any:
    """A wandb run, resumed if one with that id is there already, and offline where a server does not answer."""
    import wandb

    mode = _mode(config)
    try:
        return _init(config, run_dir, id_, mode)
    except (wandb.Error, TimeoutError) as error:
        if mode != "online":
            raise
        why = " ".join(str(error).split())
        log.warning("%-12s offline for this run, as the server cannot be used: %s", "wandb", why)
        wandb.teardown(exit_code=1)  # its process still has the run
        return _init(config, run_dir, id_, "offline")


def _init(config: Config, run_dir: Path, id_: str, mode: str) -> Any:
    import wandb

    tags = (config.method.name, config.backbone.name, *config.lang.targets, f"seed-{config.seed}", config.engine.name)
    return wandb.init(
        id=id_,
        resume="allow",
        mode=mode,  # type: ignore[arg-type]
        project=config.tracking.project,
        entity=config.tracking.entity,
        group=config.tracking.group or _study(config),
        job_type=PREPARE if getattr(config, "stages", None) == PREPARE else "run",
        tags=[tag[:LONGEST_TAG] for tag in clean(list(dict.fromkeys(tags)))],
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
            x_transaction_log_flush_interval=FLUSH_S,
            init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_TIMEOUT_S)),
            finish_timeout=float(os.environ.get("WANDB_FINISH_TIMEOUT", FINISH_TIMEOUT_S)),
            finish_timeout_raises=True,
        ),
    )


def _mode(config: Config) -> str:
    mode = config.tracking.mode
    if mode is not TrackingMode.auto:
        return str(mode.value)
    return os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")


def _study(config: Config) -> str:
    """The experiment that Hydra was given, else method and languages."""
    from hydra.core.hydra_config import HydraConfig

    chosen = HydraConfig.get().runtime.choices.get("experiments") if HydraConfig.initialized() else None
    return chosen or f"{config.method.name}-{'+'.join(config.lang.targets)}"


def has_key() -> bool:
    """Whether wandb would find a key without asking: in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    own = os.environ.get("WANDB_BASE_URL")
    hosts = [urlparse(own).netloc] if own else HOSTS
    try:
        found = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return any(found.authenticators(host) for host in hosts)


@contextmanager
def _staged(run_dir: Path) -> Iterator[None]:
    """wandb copies what it uploads later; the copies belong with the run and not into the home directory."""
    name = "WANDB_DATA_DIR"
    before = os.environ.get(name)
    os.environ[name] = before or str((run_dir / "wandb/data").resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
