"""The state of a run, in `state.json` of its directory, for `python -m sdx.status` and later readers.

Clocks jump and differ between machines, so no reader has to trust one: `beat` counts up while the process lives, and a
reader that sees the same beat for long knows that the process is gone. The times in the file are for people.
"""

import json
import math
import os
import platform
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from enum import Enum
from itertools import count
from logging import FileHandler, getLogger
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.process import events
from sdx.process.console import duration
from sdx.process.disk import disk_full
from sdx.process.failure import Failure, watchdog
from sdx.process.ranks import is_main
from sdx.process.secret import scrub_all
from sdx.store.files import read_json, write_json

log = getLogger("sdx")

STATE = "state.json"
HEARTBEAT_S = 10.0
PROGRESS_S = 2.0


class RunState(str, Enum):
    """Ordered by how urgently a user wants to see it."""

    failed = "failed"
    lost = "lost"
    """The file says that the run is running, but its process is gone."""
    running = "running"
    queued = "queued"
    """The job of the run waits in SLURM's queue."""
    interrupted = "interrupted"
    """The run was asked to leave; the same command continues it."""
    prepared = "prepared"
    """The data of the run are made, see `Stages`."""
    skipped = "skipped"
    """The run was done before the sweep began."""
    done = "done"

    @staticmethod
    def after(error: BaseException | None) -> "RunState":
        """The state of a run whose process ends with this error."""
        return RunState.done if error is None else RunState.interrupted if _asked_to_leave(error) else RunState.failed


NO_STAGE: dict[str, Any] = dict.fromkeys(("stage", "key", "done", "total", "unit", "rate", "eta_s"))
"""The fields of a `Record` between two steps."""


@dataclass(frozen=True)
class Record:
    """The content of `state.json`."""

    state: RunState
    stage: str | None = None
    """The step and the name of its progress bar: `translate: to pt`."""
    key: str | None = None
    """Key of the step."""
    done: int | None = None
    total: int | None = None
    unit: str | None = None
    """Unit of `done` and `total`."""
    rate: int | float | None = None
    """Units per second."""
    eta_s: int | float | None = None
    """Seconds until this stage is done."""
    steps_done: int = 0
    """Steps published, or found in the cache."""
    steps_total: int = 0
    started: str = ""
    """UTC by the writer's clock, ISO 8601; so is `updated`."""
    updated: str = ""
    beat: int = 0
    """Higher at every write."""
    host: str = ""
    pid: int = 0
    job: str | None = None
    """SLURM's id, `17_3` in an array."""
    restarts: int = 0
    """How often SLURM has restarted the job."""
    error: str | None = None
    """One line."""
    log: str | None = None
    """Path of the log file."""


class StateFile(events.Listener):
    """Keeps `state.json` up to date while a run is running; ranks > 0 only report their errors.

    Subscribes to `sdx.process.events`. A block that ends normally is `done`; SystemExit with `EX_TEMPFAIL` and Ctrl-C
    are `interrupted`; any other exception is `failed`, with its traceback in `error.txt`. If another rank has reported
    an error, the run has failed, however this rank ends. A thread writes the file, so a silent stage is not taken for
    dead, and a slow or full disk does not stop the run.
    """

    def __init__(self, run_dir: Path, failure: Failure | None = None) -> None:
        self._path = run_dir / STATE
        self._failure = failure or Failure(run_dir)
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        restarts = os.environ.get("SLURM_RESTART_COUNT", "")
        logs = [handler.baseFilename for handler in getLogger().handlers if isinstance(handler, FileHandler)]
        self._record = Record(
            RunState.running,
            started=_now(),
            host=platform.node(),
            pid=os.getpid(),
            job=f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID") or None,
            restarts=int(restarts) if restarts.isdecimal() else 0,
            log=next(filter(os.path.isfile, logs), None),
        )
        """Always replaced as a whole, so the thread reads it without a lock."""
        self._end = RunState.done
        self._step = ""
        self._beats = count(1)
        self._urgent = threading.Event()
        self._writing = threading.Lock()
        self._left = self._warned = False
        self._thread: threading.Thread | None = None
        self._contexts = ExitStack()

    def __enter__(self) -> "StateFile":
        self._contexts.enter_context(watchdog(self._failure, self._fail))
        if is_main():
            self._failure.clear()
            with suppress(OSError):
                for torn in self._path.parent.glob(f".{STATE}.*"):  # by a kill
                    torn.unlink(missing_ok=True)
            self._write()
            self._contexts.enter_context(events.subscribed(self))
            self._thread = threading.Thread(target=self._keep_writing, name="sdx state", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._contexts.close()
        if error and not _asked_to_leave(error):
            self._failure.report(error)
        message = self._failure.message() if error else None
        if self._thread is None:
            return
        state = RunState.after(error)
        if error is None:
            self._record = replace(self._record, **NO_STAGE, state=self._end)
        elif message and (state is RunState.interrupted or not self._failure.is_own):
            self._record = replace(self._record, state=RunState.failed, error=message)
        else:
            self._record = replace(self._record, state=state, error=_line(error))
        self._left = True
        self._urgent.set()
        self._thread.join(timeout=10.0)  # the disk may hang

    def _fail(self, error: str) -> None:
        """Writes that another rank has failed, before the watchdog ends this process."""
        if self._thread is not None:
            self._record = replace(self._record, state=RunState.failed, error=error)
            self._write(last=True)

    def set_total(self, steps: int) -> None:
        """How often `step_finished` will be called."""
        self._change(steps_total=steps)

    def prepared(self) -> None:
        """The block will end as `prepared` instead of `done`."""
        self._end = RunState.prepared

    def step_finished(self) -> None:
        """One of the steps is published or was found in the cache."""
        self._change(**NO_STAGE, steps_done=self._record.steps_done + 1)

    def step_awaited(self, name: str, key: str) -> None:
        self._change(**{**NO_STAGE, "stage": f"{name}: another run makes it", "key": key})

    def step_began(self, name: str, key: str, resumed: bool) -> None:
        self._step = name
        self._change(**{**NO_STAGE, "stage": name, "key": key})

    def step_done(self, name: str, key: str, manifest: Mapping[str, Any]) -> None:
        self._step = ""
        self._change(**NO_STAGE)

    def progressed(self, reading: events.Reading) -> None:
        stage = ": ".join(dict.fromkeys(filter(None, (self._step, reading.stage))))
        self._record = replace(self._record, **{**asdict(reading), "stage": stage})

    def _change(self, **changes: Any) -> None:
        """Written at once; progress waits for the next write."""
        self._record = replace(self._record, **changes)
        self._urgent.set()

    def _keep_writing(self) -> None:
        written, written_s, left = self._record, time.monotonic(), False
        while not left:
            self._urgent.wait(PROGRESS_S)
            self._urgent.clear()
            left = self._left  # read first, so the last write has the last record
            if left or self._record is not written or time.monotonic() - written_s >= HEARTBEAT_S:
                written, written_s = self._record, time.monotonic()
                self._write(last=left)

    def _write(self, last: bool = False) -> None:
        with self._writing:
            content = scrub_all(asdict(replace(self._record, beat=next(self._beats), updated=_now())))
            try:
                write_json(self._path, content)
            except Exception as error:  # whatever it is, the run goes on
                if not self._warned:
                    log.warning("%-12s %s cannot be written: %s", "state", self._path, _line(error))
                self._warned = True
                if last and disk_full(error):  # the block of the old file is free for the last state
                    with suppress(OSError), self._path.open("r+", encoding="utf-8") as file:
                        json.dump(content, file, ensure_ascii=False)
                        file.truncate()


def read_state(run_dir: Path) -> dict[str, Any] | None:
    """The fields of `Record`; none without a valid file. Fields that an older sdx did not write have their defaults."""
    try:
        found = read_json(run_dir / STATE)
        read = {field.name: found.get(field.name, field.default) for field in fields(Record)}
        read["state"] = RunState(read["state"])
        finite = all(math.isfinite(value) for value in read.values() if isinstance(value, (int, float)))
    except (OSError, ValueError, TypeError, OverflowError):
        return None
    typed = all(isinstance(read[field.name], field.type) for field in fields(Record))  # type: ignore[arg-type]
    return read if finite and typed else None


def describe(state: Mapping[str, Any], age_s: float | None = None) -> dict[str, str]:
    """The fields of `read_state` as texts for the columns of a table.

    `age_s` is the time since the last heartbeat, none if unknown and negative if a clock jumped.
    """
    done, total, unit, rate, eta_s = (state[name] for name in ("done", "total", "unit", "rate", "eta_s"))
    return {
        "stage": state["stage"] or "",
        "steps": f"{state['steps_done']}/{state['steps_total']}",
        "progress": f"{done:,}/{total:,} {unit or ''}".rstrip() if done is not None and total is not None else "",
        "rate": f"{rate:,.{0 if rate >= 100 else 1 if rate >= 1 else 3}f}/s" if rate is not None else "",
        "ETA": duration(eta_s / 3600) if eta_s is not None else "",
        "updated": "?" if age_s is None or age_s < 0 else duration(max(age_s, 1) / 3600),
    }


def _asked_to_leave(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == os.EX_TEMPFAIL)


def _line(error: BaseException) -> str:
    """The error in one line. Messages of sdx are sentences; other errors need the name of their class."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return text or "Ctrl-C"
    if isinstance(error, InputError) or (text and _asked_to_leave(error)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
