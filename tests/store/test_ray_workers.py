"""`workers=ray` on a local cluster of two actors: the bytes of one process, also if an actor is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.kit.sleepy import make

pytest.importorskip("ray")
ROOT = Path(__file__).parents[2]
ACTORS = """
import sys
from pathlib import Path
import ray
from sdx.store.store import Store
from tests.kit.sleepy import Sleepy

ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
Store(Path(sys.argv[1]), by_ray=True).realise(Sleepy(60, batch_rows=1, seconds=0.2))
"""


def kill_an_actor(journal: Path) -> None:
    """The first that has finished three batches."""
    done: list[str] = []
    while not any(done.count(one) >= 3 for one in done):
        time.sleep(0.05)
        done = journal.read_text().split() if journal.exists() else []
    os.kill(int(next(one for one in done if done.count(one) >= 3)), signal.SIGKILL)


@pytest.mark.long
def test_two_actors_of_which_one_is_killed(tmp_path: Path):
    journal = tmp_path / "journal"
    threading.Thread(target=kill_an_actor, args=(journal,), daemon=True).start()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SLEEPY_JOURNAL": str(journal)}
    done = subprocess.run(
        [sys.executable, "-c", ACTORS, str(tmp_path / "ray")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert len(set(journal.read_text().split())) == 3  # two, and the one that replaces the killed
    [ours] = (tmp_path / "ray/artifacts/sleepy").glob("*/rows.jsonl")
    assert ours.read_bytes() == (make(tmp_path / "one", 60, 1, 0.0) / "rows.jsonl").read_bytes()
