"""Several processes at one step: each row once, none lost, and the bytes of a single process."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sdx.store import shared_log
from sdx.store.batch_log import BatchLog
from sdx.store.shared_log import SharedLog
from sdx.store.step import Workspace
from sdx.store.store import Store
from tests.kit.sleepy import Sleepy, make

IDS = [f"r{number}" for number in range(12)]
BATCHES = [range(first, first + 3) for first in range(0, 12, 3)]
KILLS = 20


def start(cache: Path, rows: int, batch_rows: int, seconds: float) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.kit.sleepy", cache, rows, batch_rows, seconds]
    return subprocess.Popen([*map(str, command)])


def logged(directory: Path) -> list[str]:
    """Ids of the rows in all logs."""
    return [id_ for log in directory.glob("rows*.log") for _, rows in BatchLog.batches(log) for id_, *_ in rows]


def process(log: SharedLog, number: int) -> None:
    log.append([{"id": IDS[row]} for row in BATCHES[number]])


def test_two_take_different_batches_and_a_dead_one_is_replaced(tmp_path: Path):
    first, second = SharedLog(tmp_path, IDS), SharedLog(tmp_path, IDS)
    one, other = first.pending(BATCHES), second.pending(BATCHES)
    assert next(one) == [0, 1, 2]
    assert next(other) == [3, 4, 5]
    process(second, 1)
    assert next(other) == [6, 7, 8]
    process(second, 2)
    assert next(other) == [9, 10, 11]
    process(second, 3)
    one.close()  # the first dies with its batch
    assert next(other) == [0, 1, 2]
    process(second, 0)
    assert list(other) == []
    assert second.complete
    assert second.workers == 1  # the first has finished nothing


def test_one_that_helps_leaves_when_nothing_is_left_to_take(tmp_path: Path):
    leader, helper = SharedLog(tmp_path, IDS), SharedLog(tmp_path, IDS)
    pending = leader.pending(BATCHES)
    next(pending)
    taken = []
    for rows in helper.pending(BATCHES, leads=False):
        taken += rows
        helper.append([{"id": IDS[row]} for row in rows])
    assert taken == [*range(3, 12)]
    process(leader, 0)
    assert list(pending) == []
    assert [row["id"] for row in leader.rows()] == IDS
    assert leader.workers == 2


def test_nobody_helps_with_other_batches_or_a_finished_step(tmp_path: Path):
    leader = SharedLog(tmp_path, IDS)
    pending = leader.pending(BATCHES)
    next(pending)
    assert list(SharedLog(tmp_path, IDS).pending([range(12)], leads=False)) == []
    (tmp_path / "manifest.json").write_text("{}")
    assert list(SharedLog(tmp_path, IDS).pending(BATCHES, leads=False)) == []


def test_what_is_published_meanwhile_needs_no_help(tmp_path: Path):
    class Late(Sleepy):
        def help(self, work: Workspace) -> None:
            raise FileNotFoundError  # a log that its reader has just seen

    store, step = Store(tmp_path), Late(1, batch_rows=1, seconds=0.0)
    partial = store.path(step).with_name(f"{step.key}.partial")
    partial.mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        store.help(step)
    (partial / "manifest.json").write_text("{}")
    store.help(step)
    partial.rename(store.path(step))
    store.help(step)


def test_torn_claims_and_logs_lose_nothing(tmp_path: Path):
    log = SharedLog(tmp_path, IDS)
    pending = log.pending(BATCHES)
    next(pending)
    process(log, 0)
    pending.close()
    [claims] = tmp_path.glob("claims*")
    claims.write_bytes(claims.read_bytes() + b"\0\0\n7 x\n99 y\n\xff\n2")
    [rows] = tmp_path.glob("rows*")
    rows.write_bytes(rows.read_bytes() + b"\0\0")
    again = SharedLog(tmp_path, IDS)
    taken: list[int] = []
    for numbers in again.pending(BATCHES):
        taken += numbers
        again.append([{"id": IDS[row]} for row in numbers])
    assert sorted(taken) == [*range(3, 12)]


def test_four_processes_share_a_step(tmp_path: Path):
    """Each of four takes its part, and one alone gives the same bytes."""
    processes = [start(tmp_path / "four", 60, 2, 0.1) for _ in range(4)]
    step = Sleepy(60, batch_rows=2, seconds=0.1)
    partial = tmp_path / f"four/artifacts/sleepy/{step.key}.partial"
    most: dict[str, int] = {}
    while any(process.poll() is None for process in processes):
        for log in partial.glob("rows*.log"):
            most[log.name] = max(most.get(log.name, 0), log.stat().st_size)
        time.sleep(0.02)
    assert [process.wait() for process in processes] == [0] * 4
    assert sum(size > 0 for size in most.values()) == 4
    four = tmp_path / "four/artifacts/sleepy" / step.key
    assert (four / "rows.jsonl").read_bytes() == (make(tmp_path / "one", 60, 2, 0.0) / "rows.jsonl").read_bytes()
    assert not [*four.glob("*.log")]


@pytest.mark.long
def test_twenty_kills_among_four(tmp_path: Path):
    cache, rows = tmp_path / "cache", 400
    step = Sleepy(rows, batch_rows=1, seconds=0.05)
    published = cache / "artifacts/sleepy" / step.key
    processes = [start(cache, rows, 1, 0.05) for _ in range(4)]
    draw, kills, seen = random.Random(1), 0, Counter[str]()
    while not (published / "manifest.json").is_file():
        time.sleep(draw.uniform(0.1, 0.4))
        if kills < KILLS:
            victim = draw.randrange(4)
            processes[victim].send_signal(signal.SIGKILL)
            processes[victim].wait()
            kills += 1
            seen = max(seen, Counter(logged(published.with_name(f"{step.key}.partial"))), key=lambda one: one.total())
            assert max(seen.values(), default=1) == 1  # no row twice
            processes[victim] = start(cache, rows, 1, 0.05)
    assert kills == KILLS
    assert [process.wait(30) for process in processes] == [0] * 4
    lines = [json.loads(line) for line in (published / "rows.jsonl").read_text().splitlines()]
    assert lines == [{"id": f"r{number}", "text": f"R{number}"} for number in range(rows)]
    assert not [name for name in os.listdir(published) if name.endswith(".log")]


def test_a_leader_shows_what_others_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared_log, "REFRESH_S", 0.0)
    leader, helper = SharedLog(tmp_path, IDS), SharedLog(tmp_path, IDS)
    seen: list[int] = []
    pending = leader.pending(BATCHES, on_refresh=lambda: seen.append(leader.done))
    next(pending)
    for rows in helper.pending(BATCHES, leads=False):
        helper.append([{"id": IDS[row]} for row in rows])
    process(leader, 0)
    assert list(pending) == []
    assert seen[-1] == 12
