"""Where a run stands, kept in `state.json` of its directory for `python -m sdx.status` and for whoever asks later.

Clocks jump and differ between machines, so no reader has to trust one: `beat` counts on while the process lives, and a
reader that sees it stand still for long knows that nobody is there. The times in the file are for people.
"""

import json
import math
import os
import platform
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from enum import Enum
from logging import FileHandler, getLogger
from pathlib import Path
from types import TracebackType
from typing import Any

from sdx import InputError
from sdx.process import events
from sdx.process.console import duration
from sdx.process.disk import disk_full
from sdx.process.failure import Failure, Watchdog
from sdx.process.ranks import is_main
from sdx.process.secret import scrub_all
from sdx.store.files import read_json, write_json

log = getLogger("sdx")

STATE = "state.json"
BEAT_S = 10.0
PROGRESS_S = 2.0
LEAVE_S = 10.0
"""How long the end of a run waits for a disk that hangs."""


class RunState(str, Enum):
    """What has become of a run, in the order in which people want to see them."""

    failed = "failed"
    lost = "lost"
    """It says that it runs, and nobody is there."""
    running = "running"
    queued = "queued"
    """Its job waits in SLURM's queue."""
    interrupted = "interrupted"
    """It was asked to leave, and the same command goes on."""
    prepared = "prepared"
    """Its data are there, see `Stages`."""
    skipped = "skipped"
    """It was done before the sweep began."""
    done = "done"

    @staticmethod
    def after(error: BaseException | None) -> "RunState":
        """How a process leaves its run with that error."""
        return RunState.done if error is None else RunState.interrupted if _asked_to_leave(error) else RunState.failed


TOLD = (RunState.failed, RunState.running, RunState.interrupted, RunState.prepared, RunState.done)
"""By `state.json`. The others are known to who starts a run or looks at it."""
NOTHING: dict[str, Any] = dict.fromkeys(("stage", "key", "done", "total", "unit", "rate", "eta_s"))
"""The fields of a `Record` between two steps."""


@dataclass(frozen=True)
class Record:
    """What `state.json` holds."""

    state: RunState
    stage: str | None = None
    """The step, and what its progress bar is called: `translate: to pt`."""
    key: str | None = None
    """Of the step."""
    done: int | None = None
    total: int | None = None
    unit: str | None = None
    """Of `done` and `total`."""
    rate: int | float | None = None
    """Units a second."""
    eta_s: int | float | None = None
    """Seconds until this stage is done."""
    steps_done: int = 0
    """Published or found in the cache."""
    steps_total: int = 0
    started: str = ""
    """By the writer's clock, UTC, ISO 8601; so is `updated`."""
    updated: str = ""
    beat: int = 0
    """Higher at every write."""
    host: str = ""
    pid: int = 0
    job: str | None = None
    """SLURM's, `17_3` in an array."""
    restarts: int = 0
    """How often SLURM started the job again."""
    error: str | None = None
    """One line."""
    log: str | None = None
    """Path of the log file."""


class StateFile(events.Watcher):
    """Keeps the state of a run on disk while it runs; ranks > 0 only tell their errors.

        with StateFile(run_dir) as state:
            state.expect(len(steps))
            for step in steps:
                store.realise(step)
                state.step_finished()

    It watches `sdx.process.events` by itself. The end of the block is `done`; SystemExit with `EX_TEMPFAIL` and Ctrl-C
    are `interrupted`; any other exception is `failed`, with its traceback in `error.txt`. Where another rank has told
    an error, the run has failed, however this rank ends. A thread of its own writes, so that neither a silent stage
    nor a slow disk says anything wrong, and a disk that takes nothing stops nobody.

    Args:
        run_dir: where the run reports.
        failure: where an error is told; that of `run_dir` where it is not given.
    """

    def __init__(self, run_dir: Path, failure: Failure | None = None) -> None:
        self._path = run_dir / STATE
        self._failure = failure or Failure(run_dir)
        self._watchdog = Watchdog(self._failure, self._other_failed)
        self._record = Record(
            RunState.running,
            started=_now(),
            host=platform.node(),
            pid=os.getpid(),
            job=_job(os.environ),
            restarts=_count(os.environ.get("SLURM_RESTART_COUNT")),
            log=_log_file(),
        )
        """Replaced as a whole, so that the thread needs no lock to read it."""
        self._end = RunState.done
        self._step = ""
        self._beat = 0
        self._news, self._urgent = threading.Event(), threading.Event()
        self._writing = threading.Lock()
        self._left = self._warned = False
        self._thread: threading.Thread | None = None
        self._watching: AbstractContextManager[None] = events.watched(self)

    def __enter__(self) -> "StateFile":
        self._watchdog.start()
        if is_main():
            self._failure.forget()
            with suppress(OSError):
                for torn in self._path.parent.glob(f".{STATE}.*"):  # by a kill
                    torn.unlink(missing_ok=True)
            self._write()
            self._watching.__enter__()
            self._thread = threading.Thread(target=self._keep, name="sdx state", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog.stop()
        if error and not _asked_to_leave(error):
            self._failure.tell(error)
        told = self._failure.told() if error else None
        if self._thread is None:
            return
        self._watching.__exit__(None, None, None)
        state = RunState.after(error)
        if error is None:
            self._record = replace(self._record, **NOTHING, state=self._end)
        elif told and (state is RunState.interrupted or not self._failure.is_own):
            self._record = replace(self._record, state=RunState.failed, error=told)
        else:
            self._record = replace(self._record, state=state, error=_line(error))
        self._left = True
        self._tell(urgent=True)
        self._thread.join(LEAVE_S)

    def _other_failed(self, line: str) -> None:
        if self._thread is not None:
            self._record = replace(self._record, state=RunState.failed, error=line)
            self._write(last=True)

    def expect(self, steps: int) -> None:
        """How often `step_finished` will be told."""
        self._change(steps_total=steps)

    def prepared(self) -> None:
        """The end of the block is not the end of the run."""
        self._end = RunState.prepared

    def step_finished(self) -> None:
        """One of `steps_total` is published or was found in the cache."""
        self._change(**NOTHING, steps_done=self._record.steps_done + 1)

    def step_awaited(self, name: str, key: str) -> None:
        self._change(**{**NOTHING, "stage": f"{name}: another run makes it", "key": key})

    def step_began(self, name: str, key: str, resumed: bool) -> None:
        self._step = name
        self._change(**{**NOTHING, "stage": name, "key": key})

    def step_done(self, name: str, key: str, manifest: Mapping[str, Any]) -> None:
        self._step = ""
        self._change(**NOTHING)

    def progressed(self, reading: events.Reading) -> None:
        stage = ": ".join(dict.fromkeys(filter(None, (self._step, reading.stage))))
        self._change(False, **{**asdict(reading), "stage": stage})

    def _change(self, urgent: bool = True, **changes: Any) -> None:
        self._record = replace(self._record, **changes)
        self._tell(urgent)

    def _tell(self, urgent: bool) -> None:
        if urgent:
            self._urgent.set()
        self._news.set()

    def _keep(self) -> None:
        left = False
        while not left:
            self._news.wait(BEAT_S)
            self._news.clear()
            self._urgent.clear()
            left = self._left  # before the write, which then has all that was known on leaving
            self._write(last=left)
            self._urgent.wait(0 if left else PROGRESS_S)

    def _write(self, last: bool = False) -> None:
        with self._writing:
            self._beat += 1
            content = scrub_all(asdict(replace(self._record, beat=self._beat, updated=_now())))
            try:
                write_json(self._path, content)
            except Exception as error:  # whatever it is, the run goes on
                if not self._warned:
                    log.warning("%-12s %s cannot be written: %s", "state", self._path, _line(error))
                self._warned = True
                if last and disk_full(error):  # a block of the old file is left, so that how it ended can be told
                    with suppress(OSError), self._path.open("r+", encoding="utf-8") as file:
                        json.dump(content, file, ensure_ascii=False)
                        file.truncate()


def read_state(run_dir: Path) -> dict[str, Any] | None:
    """The fields of `Record`, those that an older sdx did not write at their defaults; none without a valid file."""
    try:
        found = read_json(run_dir / STATE)
        read = {field.name: found.get(field.name, field.default) for field in fields(Record)}
        read["state"] = TOLD[TOLD.index(read["state"])]
        finite = all(math.isfinite(value) for value in read.values() if isinstance(value, (int, float)))
    except (OSError, ValueError, TypeError, OverflowError):
        return None
    typed = all(isinstance(read[field.name], field.type) for field in fields(Record))  # type: ignore[arg-type]
    return read if finite and typed else None


def describe(state: Mapping[str, Any], age_s: float | None = None) -> dict[str, str]:
    """The state in words for the columns of a table: stage, steps, progress, rate, ETA, updated.

    Args:
        state: as `read_state` gives it.
        age_s: seconds since the last beat as far as the reader knows; below 0 it shows that a clock jumped.
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
    """What happened, in one line. Ours are sentences; others need the name of their kind."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return text or "Ctrl-C"
    if isinstance(error, InputError) or (text and _asked_to_leave(error)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _job(environment: Mapping[str, str]) -> str | None:
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID") or None


def _log_file() -> str | None:
    """Where Hydra has the log written to."""
    files = [handler.baseFilename for handler in getLogger().handlers if isinstance(handler, FileHandler)]
    return next((file for file in files if os.path.isfile(file)), None)


def _count(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
