"""Work on several cores: the same results in the same order, and processes that do not outlive who started them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdx.process import pool
from sdx.process.pool import Pool

START = """
import os, time
from sdx.process import pool
from tests.process.test_pool import numbered
pool.FEWEST, pool.cores = 1, lambda: 2
if __name__ == "__main__":
    made = pool.Pool(numbered)
    print(*{process for _, process in made.map(range(10 * pool.PIECE))}, flush=True)
    time.sleep(60)
"""


def numbered(items: Sequence[int]) -> list[tuple[int, int]]:
    """Each with the process that it was in."""
    return [(2 * item, os.getpid()) for item in items]


def refused(items: Sequence[int]) -> list[int]:
    raise ValueError(f"no {items[0]}")


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


def test_the_processes_end_when_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    script.write_text(START)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    started = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    assert started.stdout
    workers = [int(number) for number in started.stdout.readline().split()]
    assert workers
    started.send_signal(signal.SIGKILL)
    started.wait()
    late_s = time.monotonic() + 30
    while any(Path(f"/proc/{number}/cmdline").exists() for number in workers):
        assert time.monotonic() < late_s, workers
        time.sleep(0.1)
