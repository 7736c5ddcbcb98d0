"""Processes that work for one run, killed at random: ranks of a launch, and `workers=4`; the bytes are those of one."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sdx import InputError, workers
from sdx.store.batch_log import BatchLog
from tests.kit import forks
from tests.kit.kills import published
from tests.kit.workplace import SDRRL, SMALL, Workplace

KILLS = 20
SLOW = str(forks.ROOT / "tests/kit/slow_job.py")
RUN = (*SMALL, *SDRRL, "lang=pt", "task=mmlu_human", "tracking=none", "generator.batch_size=1", "train.batch_size=64")


class Team:
    """The processes of one run, of which those in Python started by this test are slowed."""

    def __init__(self, place: Workplace, name: str, *overrides: str) -> None:
        self.given = (*RUN, f"backbone.path={place.model}", f"runs_dir={name}", *overrides)
        self.path, self.cache, self.log = place.path, place.path / f"{name}-cache", place.path / f"{name}.log"
        self.seed = int(os.environ.get("SDX_TEST_SEED", time.time_ns() % 10**6))
        print(f"SDX_TEST_SEED={self.seed}")
        self.dice = random.Random(self.seed)

    def start(self, *launch: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, *launch, SLOW, "-u", "-m", "sdx", *self.given]
        environment = {**os.environ, **forks.ENVIRONMENT, "SDX_CACHE": str(self.cache), "JOURNAL": f"{self.log}.rows"}
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=self.path, env=environment, stdout=log, stderr=log)

    def logs(self) -> list[Path]:
        """Of rows that are not yet published."""
        return [*self.cache.glob("artifacts/*/*.partial/rows*.log")]

    def written(self) -> int:
        """How many processes are at work."""
        return sum(BatchLog.is_written(log) for log in self.logs() if log.exists())

    def no_row_twice(self) -> bool:
        batches = [(log.parent, rows) for log in self.logs() for _, rows in BatchLog.batches(log)]
        return set(Counter((step, id_) for step, rows in batches for id_, *_ in rows).values()) <= {1}

    def alone(self) -> dict[str, bytes]:
        """What an undisturbed process publishes."""
        cache = self.path / f"{self.cache.name}-alone"
        done = forks.sdx(*self.given, "workers=1", cwd=self.path, environment={"SDX_CACHE": str(cache)})
        assert done.returncode == 0, done.stderr
        return published(cache)


def children(process: "subprocess.Popen[bytes]") -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout
    return [*map(int, found.split())]


def wait_for(what: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("place"))


@pytest.mark.long
def test_twenty_kills_among_four_workers(place: Workplace):
    """Workers that nobody kills end with the process that started them."""
    overrides = ("scale.max_steps=1", "scale.corpus_rows=400", "scale.max_new_tokens=24")
    team, kills = Team(place, "four", "workers=4", *overrides), 0
    while kills < KILLS:
        process = team.start()
        wait_for(lambda process=process: team.written() > 2 or process.poll() is not None)
        alive = [process.pid, *children(process)]
        while process.pid in alive and kills < KILLS:
            time.sleep(team.dice.uniform(0, 0.2))
            assert process.poll() is None, team.log.read_text()
            os.kill(victim := team.dice.choice(alive), signal.SIGKILL)
            kills += 1
            alive.remove(victim)
        if process.pid in alive:
            break
        process.wait()
        wait_for(lambda alive=alive: all(map(gone, alive)), 10)
        assert team.no_row_twice()
    process = process if process.poll() is None else team.start()
    assert process.wait() == 0, team.log.read_text()
    assert "and the run goes on without it; see" in team.log.read_text()
    assert published(team.cache) == team.alone()


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, os.EX_TEMPFAIL)])
def test_workers_leave_with_the_run(place: Workplace, number: int, code: int):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored in the background of a shell
    team = Team(place, f"left-{code}", "workers=2", "stages=prepare", "scale.corpus_rows=60")
    try:
        process = team.start()
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(lambda: team.written() == 2 or process.poll() is not None)
    [worker] = children(process)
    process.send_signal(number)
    assert process.wait() == code, team.log.read_text()
    assert gone(worker)
    assert "goes on without it" not in team.log.read_text()


@pytest.mark.long
def test_ranks_of_a_whole_run_are_killed(place: Workplace):
    """First one of two, then the launch; a rank without its launcher ends as soon as it needs the other."""
    team = Team(place, "ranks", "scale.corpus_rows=24", "scale.max_steps=2")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    for kills_all in (False, True):
        process = team.start(*launch)
        wait_for(lambda process=process: team.written() == 2 or process.poll() is not None)
        time.sleep(team.dice.uniform(0, 1))
        assert process.poll() is None, team.log.read_text()
        ranks = children(process)
        for victim in [process.pid, *ranks] if kills_all else [team.dice.choice(ranks)]:
            os.kill(victim, signal.SIGKILL)
        assert process.wait() != 0
        assert team.no_row_twice()
    assert team.start(*launch).wait() == 0, team.log.read_text()
    ours, alone = published(team.cache), team.alone()
    assert ours.keys() == alone.keys()
    trained = ("train/", "generate/", "score/")  # by two ranks, which sum in another order
    assert {name for name in ours if ours[name] != alone[name] and not name.startswith(trained)} == set()


@pytest.mark.parametrize(
    ("given", "ranks", "says"),
    [
        ("0", 1, "workers=0 is neither a number from 1 nor ray"),
        ("many", 1, "workers=many is neither"),
        ("4", 2, "workers=4: the 2 ranks of the launch are workers; leave the option out"),
        ("ray", 2, "workers=ray: the 2 ranks"),
    ],
)
def test_what_workers_cannot_be(monkeypatch: pytest.MonkeyPatch, given: str, ranks: int, says: str):
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    monkeypatch.setattr(workers, "find_spec", lambda name: name)
    with pytest.raises(InputError, match=says):
        workers.check(given)


def test_more_workers_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(workers, "visible_gpus", lambda: ["0", "1"])
    with pytest.raises(InputError, match="workers=3 exceeds the 2 GPUs here"), workers.beside("3", tmp_path):
        pass
