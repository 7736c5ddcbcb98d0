"""`python -m sdx.status`: what it shows for files of runs, jobs in the queue, and a killed run."""

import codecs
import json
import os
import platform
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sdx.process.failure import ERROR
from sdx.store.files import read_json, write_json
from sdx.sweeps import watch
from sdx.sweeps.watch import Watch, job_states
from sdx.tracking.state import STATE, Record, RunState, StateFile, read_state
from tests.kit import forks
from tests.kit.forks import ROOT
from tests.kit.workplace import SMALL, Workplace

HOUR_S = 3600
NOBODY = 2**22 + 1
"""No process has this number: it is above the maximum of Linux."""


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of a squeue that fails, as if SLURM does not answer."""
    place = tmp_path / "bin"
    answers(place, "", code=1, error="slurm_load_jobs error: Unable to contact slurm controller")
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return place


def answers(place: Path, text: str, code: int = 0, error: str = "", sleep_s: float = 0) -> None:
    """Makes a squeue that records its arguments and prints this text."""
    place.mkdir(exist_ok=True)
    (place / "said").write_text(text)
    (place / "squeue").write_text(
        f"#!/bin/sh\necho \"$@\" >> {place}/asked\nsleep {sleep_s}\ncat {place}/said\necho '{error}' >&2\nexit {code}\n"
    )
    (place / "squeue").chmod(0o755)


def run(directory: Path, state: RunState, age_s: float = 0, **fields: Any) -> Path:
    """A directory with a state that was written `age_s` ago."""
    directory.mkdir(parents=True)
    fields = {"host": "elsewhere", "pid": 1, "steps_total": 11, **fields}
    write_json(directory / STATE, asdict(Record(state, **fields)))
    os.utime(directory / STATE, (time.time() - age_s,) * 2)
    return directory


def launched(directory: Path, job: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / watch.JOB, {"job": job, "log": f"/logs/{job}.out"})
    return directory


def seen(runs: Path) -> dict[str, tuple[RunState, str]]:
    return {one.directory.name: (one.state, one.note) for one in Watch(runs).look()}


def status(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdx.status", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


def test_each_run_is_shown_with_what_it_does(tmp_path: Path):
    runs = tmp_path / "runs"
    run(
        runs / "sdrrl-th", RunState.running, stage="translate: to th", done=1204, total=5000, unit="rows", rate=3.14,
        eta_s=1209.0, steps_done=4, job="17_3",
    )  # fmt: skip
    run(runs / "sft-th", RunState.done, HOUR_S, steps_done=11)
    failed = run(
        runs / "sft-sw", RunState.failed, stage="train", error=f"[red] no\x1b[2J {'memory ' * 40}", steps_done=6
    )
    (failed / ERROR).write_text("Traceback")
    run(runs / "sft-hi", RunState.interrupted, error="stopped by SIGUSR2")
    (runs / "old").mkdir()
    (runs / "old/results.json").write_text("{}")  # from an sdx without state.json
    launched(runs / "waits", "17_4")
    (runs / ".submitit/log").mkdir(parents=True)
    (runs / ".submitit/log/job.json").write_text("{}")
    done = status(str(runs))
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert [line.split()[1] for line in lines] == ["sft-sw", "sdrrl-th", "waits", "sft-hi", "old", "sft-th"]
    for word in ("running", "translate: to th", "4/11", "1,204/5,000 rows", "3.1/s", "20 min", "17_3"):
        assert word in lines[1]
    assert "[red] no" in lines[0]
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines()[: len(lines) + 4])) <= 160
    assert "60 min" in lines[5]
    assert "1 failed, 1 running, 1 queued, 1 interrupted, 2 done" in done.stdout
    assert done.stdout.splitlines()[-1] == f"failed   {failed / ERROR}"
    assert "runs " in status(str(tmp_path)).stdout or "runs/sft-th" in status(str(tmp_path)).stdout


def test_one_run_can_be_shown_from_inside(tmp_path: Path):
    place = run(tmp_path / "sdrrl-th", RunState.done)
    assert "sdrrl-th" in status(".", "--once", cwd=place).stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere"], "sdx: nowhere is not a directory; give the runs_dir of your runs"),
        (["."], "sdx: no run in . or below; give the runs_dir of your runs"),
        ([], "sdx: the following arguments are required: RUNS_DIR; python -m sdx.status --help explains"),
        (
            [".", "--interval", "0"],
            "sdx: --interval 0 is out of range; give seconds, above 0 and up to a day; "
            "python -m sdx.status --help explains",
        ),
        (
            [".", "--interval", "soon"],
            "sdx: argument --interval: invalid float value: 'soon'; python -m sdx.status --help explains",
        ),
    ],
)
def test_a_bad_command_is_one_line(tmp_path: Path, arguments: Sequence[str], line: str):
    (tmp_path / "empty").mkdir()
    done = status(*arguments, cwd=tmp_path / "empty")
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (2, "", [line])


def test_it_loads_nothing_heavy(tmp_path: Path):
    run(tmp_path / "runs/one", RunState.done)
    program = "import sys; sys.argv = ['x', 'runs']; import sdx.status; sdx.status.main(); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "1 done" in done.stdout, done.stderr
    heavy = {"torch", "transformers", "deepspeed", "wandb", "lm_eval", "scipy", "numpy", "hydra", "datasets"}
    assert not set(done.stdout.split()) & heavy


def test_slurm_is_asked_once_for_a_hundred_runs(tmp_path: Path, no_slurm: Path):
    runs = tmp_path / "runs"
    for number in range(100):
        run(runs / f"run-{number}", RunState.running, job=f"17_{number}")
    answers(no_slurm, "".join(f"17_{number}|RUNNING|None\n" for number in range(100)))
    began = time.monotonic()
    done = status(str(runs))
    assert time.monotonic() - began < 20  # 0.4 s on an idle core
    assert "100 running" in done.stdout
    [asked] = (no_slurm / "asked").read_text().splitlines()
    assert "17_0,17_1,17_10," in asked


def test_an_old_file_alone_is_no_sign_of_death(tmp_path: Path):
    here = platform.node()
    run(tmp_path / "fresh", RunState.running, host=here, pid=NOBODY)  # a container may hide the process
    run(tmp_path / "gone", RunState.running, HOUR_S, host=here, pid=NOBODY)
    run(tmp_path / "there", RunState.running, HOUR_S, host=here, pid=os.getpid())
    run(tmp_path / "elsewhere", RunState.running, HOUR_S, pid=NOBODY, updated="2026-01-02T03:04:05+00:00")
    found = seen(tmp_path)
    assert found["fresh"] == (RunState.running, "")
    assert found["gone"] == (RunState.lost, f"process {NOBODY} on {here} is gone")
    assert found["there"][0] is RunState.running
    assert found["elsewhere"] == (RunState.running, "no sign of life since 2026-01-02T03:04:05+00:00")


def test_a_clock_that_jumped_gives_no_negative_age_and_hides_no_death(tmp_path: Path):
    here, future = platform.node(), "2199-01-01T00:00:00+00:00"
    run(tmp_path / "gone", RunState.running, -1000 * HOUR_S, host=here, pid=NOBODY, started=future, updated=future)
    run(
        tmp_path / "there", RunState.running, -1000 * HOUR_S, host=here, pid=os.getpid(), started=future, updated=future
    )
    found = {one.directory.name: one for one in Watch(tmp_path).look()}
    assert (found["gone"].state, found["there"].state) == (RunState.lost, RunState.running)
    printed = status(str(tmp_path)).stdout
    rows = [line for line in printed.splitlines() if line.startswith("│")]
    assert all("│" in row and " ? │" in row for row in rows)
    assert " -" not in printed


def test_a_beat_that_is_watched_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not the clocks: one run beats with an old file time, the other has a fresh file and does not beat."""
    clock = [1000.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock[0])
    for name in ("beats", "hangs"):
        run(tmp_path / name, RunState.running, 9000 * HOUR_S, host=platform.node(), pid=os.getpid())
    watched = Watch(tmp_path)

    def look(beat: int) -> dict[str, RunState]:
        write_json(tmp_path / "beats" / STATE, {**read_json(tmp_path / "beats" / STATE), "beat": beat, "pid": NOBODY})
        os.utime(tmp_path / "beats" / STATE, (0, 0))
        os.utime(tmp_path / "hangs" / STATE)
        return {one.directory.name: one.state for one in watched.look()}

    look(1)
    assert look(2)["beats"] is RunState.running
    clock[0] += 59
    assert look(3) == {"beats": RunState.running, "hangs": RunState.running}
    clock[0] += 1
    assert look(4) == {"beats": RunState.running, "hangs": RunState.lost}
    clock[0] += 61
    assert look(4)["beats"] is RunState.lost
    assert look(5)["beats"] is RunState.running  # it was only asleep


def test_the_queue_tells_waiting_from_dead(tmp_path: Path, no_slurm: Path):
    launched(tmp_path / "waits", "17_0")
    launched(tmp_path / "starts", "17_1")
    launched(tmp_path / "cancelled", "17_2")
    run(tmp_path / "runs", RunState.running, HOUR_S, job="17_3")
    run(tmp_path / "dead", RunState.running, HOUR_S, job="17_4")
    run(tmp_path / "requeued", RunState.running, job="17_5")  # its node died a moment ago
    run(tmp_path / "preempted", RunState.interrupted, job="17_6", error="stopped by SIGTERM")
    run(tmp_path / "again", RunState.failed, job="16_0", error="ValueError: bad")
    launched(tmp_path / "again", "17_7")
    run(tmp_path / "failed", RunState.failed, job="17_8", error="ValueError: bad")
    launched(run(tmp_path / "done", RunState.done, job="16_1"), "17_9")
    launched(run(tmp_path / "prepares", RunState.running, job="17_10"), "18_0")
    rows = ["17_10|RUNNING|None", "18_0|PENDING|Dependency"]
    rows += ["17_0|PENDING|Resources", "17_1|CONFIGURING|None", "17_3|RUNNING|None", "17_5|PENDING|BeginTime"]
    rows += ["17_6|PENDING|None", "17_7|RUNNING|None", "17_8|COMPLETING|None", "17_9|PENDING|None"]
    answers(no_slurm, "\n".join(["a line of another kind", *rows]) + "\n")
    assert seen(tmp_path / ".") == {
        "waits": (RunState.queued, "Resources"),
        "starts": (RunState.queued, ""),
        "cancelled": (RunState.lost, "job 17_2 left the queue before the run began"),
        "runs": (RunState.running, "no sign of life since "),
        "dead": (RunState.lost, "job 17_4 is no longer in the queue"),
        "requeued": (RunState.queued, "BeginTime"),
        "preempted": (RunState.queued, ""),
        "again": (RunState.running, "starts"),
        "failed": (RunState.failed, "ValueError: bad"),
        "done": (RunState.done, ""),
        "prepares": (RunState.running, ""),
    }
    jobs = {one.directory.name: (one.job, one.log) for one in Watch(tmp_path).look()}
    assert jobs["again"] == ("17_7", "/logs/17_7.out")
    assert jobs["cancelled"] == ("17_2", "/logs/17_2.out")
    assert jobs["prepares"][0] == "17_10"


def test_without_an_answer_from_slurm_the_files_decide(tmp_path: Path, no_slurm: Path, monkeypatch):
    launched(tmp_path / "waits", "17_0")
    launched(run(tmp_path / "failed", RunState.failed, job="16_0", error="bad"), "17_1")
    run(tmp_path / "runs", RunState.running, HOUR_S, job="17_3")
    expected = {"waits": RunState.queued, "failed": RunState.failed, "runs": RunState.running}
    assert {name: one for name, (one, _) in seen(tmp_path).items()} == expected
    monkeypatch.setattr(watch, "ANSWER_S", 0.2)
    answers(no_slurm, "17_3|PENDING|None", sleep_s=3)
    assert {name: one for name, (one, _) in seen(tmp_path).items()} == expected


def test_what_squeue_is_asked_and_says(no_slurm: Path):
    assert job_states([]) == {}
    assert job_states(["", "17;rm", "$HOME"]) == {}
    assert not (no_slurm / "asked").exists()
    answers(no_slurm, "17_3|RUNNING|None\n18|PENDING|JobHeldUser\n19|COMPLETED|None\n")
    assert job_states(["18", "17_3", "19"]) == {
        "17_3": (RunState.running, ""),
        "18": (RunState.queued, "JobHeldUser"),
    }
    assert (no_slurm / "asked").read_text() == "--noheader --array --format=%i|%T|%r --jobs=17_3,18,19\n"
    answers(no_slurm, "", code=1, error="slurm_load_jobs error: Invalid job id specified")
    assert job_states(["17"]) == {}  # it has forgotten the only one


def test_damaged_files_stop_nothing(tmp_path: Path):
    for name, text in (("torn", '{"state": "run'), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / STATE).write_text(text)
        (tmp_path / name / watch.JOB).write_text(text)
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / watch.JOB).write_text('{"job": 17, "log": null}')
    (tmp_path / "finished").mkdir()
    (tmp_path / "finished" / STATE).write_text("")
    (tmp_path / "finished/results.json").write_text("{}")
    unreadable = (RunState.lost, f"{STATE} cannot be read")
    assert seen(tmp_path) == {
        "torn": unreadable,
        "list": unreadable,
        "job": unreadable,
        "finished": (RunState.done, ""),
    }
    assert status(str(tmp_path)).returncode == 0


class Terminal:
    """`python -m sdx.status` on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.shown = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end inside a character
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has its background jobs ignore it
            os.environ.update(PYTHONPATH=str(ROOT), TERM="xterm", COLUMNS="120", LINES="20")
            os.execv(sys.executable, [sys.executable, "-m", "sdx.status", *arguments])

    def until(self, text: str) -> None:
        end = time.monotonic() + 30
        while text not in self.shown and time.monotonic() < end:
            self._read()
        assert text in self.shown, self.shown

    def leave(self) -> int:
        os.write(self.fd, b"\x03")
        end = time.monotonic() + 30
        while self._read():
            assert time.monotonic() < end, self.shown
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        if not select.select([self.fd], [], [], 0.2)[0]:
            return True
        try:
            read = os.read(self.fd, 65536)
        except OSError:  # the other end is closed
            return False
        self.shown += self.decoder.decode(read)
        return bool(read)


def test_a_terminal_shows_it_live_until_ctrl_c(tmp_path: Path):
    place = tmp_path / "runs/sdrrl-th"
    place.mkdir(parents=True)
    for number in range(40):
        run(tmp_path / f"runs/z{number}", RunState.done)
    with StateFile(place) as state:
        state.set_total(7)
        terminal = Terminal(str(tmp_path / "runs"), "--interval", "0.2")
        terminal.until("0/7")
        state.step_finished()
        terminal.until("1/7")
    terminal.until("41 done")
    assert terminal.leave() == 0
    assert "Traceback" not in terminal.shown
    assert "more; a taller window shows them" in terminal.shown


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("place"))


RUN = ("method=none", "task=mmlu_human", "tracking=none", "generator.batch_size=1")


def arguments(place: Workplace, *more: str) -> list[str]:
    cache = f"cache_dir={place.path / 'cache'}"
    return ["lang=pt", f"backbone.path={place.model}", cache, *SMALL, *RUN, *more]


def test_runs_that_are_done_failed_and_killed(place: Workplace):
    planned = place.path / "planned"
    plan = forks.sdx(*arguments(place, "plan=true", f"runs_dir={planned}"), cwd=place.path)
    assert plan.returncode == 0, plan.stderr
    assert not list(planned.rglob(STATE))
    killed = place.path / "runs"
    command = [sys.executable, "-m", "sdx", *arguments(place, f"runs_dir={killed}")]
    process = subprocess.Popen(command, cwd=place.path, env={**os.environ, **forks.ENVIRONMENT}, stderr=subprocess.PIPE)
    while process.poll() is None and not list(killed.glob(f"*/{STATE}")):
        time.sleep(0.05)
    [run] = [path.parent for path in killed.glob(f"*/{STATE}")]
    process.send_signal(signal.SIGSTOP)  # so that the test does not depend on its speed
    assert read_state(run)["state"] is RunState.running
    assert read_state(run)["pid"] == process.pid
    assert " running " in status(str(killed)).stdout
    process.kill()
    process.communicate()
    os.utime(run / STATE, (time.time() - HOUR_S,) * 2)
    printed = status(str(killed), "--once").stdout
    assert " lost " in printed
    assert f"process {process.pid} on {platform.node()} is gone" in printed
    assert f"lost     {run / 'sdx.log'}" in printed

    run_again, _ = place.sdx(*RUN)
    assert run_again.resolve() == run.resolve()
    state = read_state(run)
    assert (state["state"], state["stage"], state["error"]) == (RunState.done, None, None)
    assert state["steps_done"] == state["steps_total"] > 0
    assert not list(run.glob(".state*"))
    assert " done " in status(str(killed)).stdout

    (place.path / "blocked/artifacts").mkdir(parents=True)
    (place.path / "blocked/artifacts/score").write_text("a file where a directory belongs")
    blocked = [f"cache_dir={place.path}/blocked", f"runs_dir={place.path}/failing"]
    failing = forks.sdx(*arguments(place, *blocked), cwd=place.path)
    message = failing.stderr.splitlines()[-1]
    assert failing.returncode == 2
    [failed] = (place.path / "failing").iterdir()
    state = read_state(failed)
    assert state["state"] is RunState.failed
    assert message == f"sdx: {state['error']}"
    assert "cannot be written" in state["error"]
    assert 0 < state["steps_done"] < state["steps_total"]
    assert "Traceback" in (failed / ERROR).read_text()
    printed = status(str(place.path / "failing")).stdout
    assert " failed " in printed
    assert f"failed   {failed / ERROR}" in printed
    assert json.loads((failed / STATE).read_text())["log"] == str(failed / "sdx.log")
