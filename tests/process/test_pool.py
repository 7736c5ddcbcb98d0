"""Work on several cores: the same results in the same order, and processes that do not outlive who started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdx.process import pool
from sdx.process.pool import Pool
from tests.kit.pooled import numbered, refused


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "cores", lambda: 2)


def test_a_long_list_is_done_in_other_processes_and_a_short_one_here() -> None:
    made = Pool(numbered)
    try:
        assert made.map(range(300)) == [(2 * number, os.getpid()) for number in range(300)]
        found = made.map(range(pool.FEWEST))
        assert [number for number, _ in found] == [2 * number for number in range(pool.FEWEST)]
        assert os.getpid() not in {process for _, process in found}
    finally:
        made.close()


def test_an_error_in_another_process_is_raised_here() -> None:
    made = Pool(refused)
    try:
        with pytest.raises(ValueError, match="no 0"):
            made.map(range(pool.FEWEST))
    finally:
        made.close()


def test_the_processes_end_when_the_one_that_started_them_is_killed() -> None:
    started = subprocess.Popen([sys.executable, "-m", "tests.kit.pooled"], stdout=subprocess.PIPE, text=True)
    assert started.stdout
    workers = [int(number) for number in started.stdout.readline().split()]
    assert workers
    started.send_signal(signal.SIGKILL)
    started.wait()
    late_s = time.monotonic() + 30
    while any(Path(f"/proc/{number}/cmdline").exists() for number in workers):
        assert time.monotonic() < late_s, workers
        time.sleep(0.1)
