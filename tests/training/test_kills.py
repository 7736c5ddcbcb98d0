"""kill -9 at random moments of a training, then the same command: it ends in the same model."""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sdx.training.checkpoints import latest
from tests.kit.processes import Processes, train

AIMS = {"training": 6, "writing": 9, "exporting": 5}
"""Number of kills during loading and steps, during a checkpoint and during the export."""
assert sum(AIMS.values()) == 20
LONGEST_S = {"training": 0.4, "writing": 0.2, "exporting": 0.1}
STEPS = 6
OPTIONS: dict[str, Any] = {"epochs": 3, "save_every_steps": 1, "zero_stage": 2}


@pytest.mark.long
def test_twenty_kills_change_nothing(model_dir: Path, tmp_path: Path):
    seed = int(os.environ.get("SDX_TEST_SEED", time.time_ns() % 10**6))
    print(f"SDX_TEST_SEED={seed}")
    dice = random.Random(seed)
    calm = tmp_path / "calm"
    finish(model_dir, calm)
    hit = Counter[str]()
    trainings = 1
    for _ in range(5 * sum(AIMS.values())):
        aims = sorted((Counter(AIMS) - hit).elements())
        if not aims:
            break
        rough = tmp_path / f"rough{trainings}"
        kept = kept_step(rough)
        place, status = kill(model_dir, rough, dice.choice(aims), dice)
        assert kept_step(rough) >= kept
        if status:
            hit[place] += 1
        else:
            assert_same(rough, calm)
            trainings += 1
    print("killed while", dict(hit), "in", trainings, "trainings")
    assert not Counter(AIMS) - hit
    finish(model_dir, rough)
    assert_same(rough, calm)


def kill(model_dir: Path, out: Path, aim: str, dice: random.Random) -> tuple[str, int]:
    """Starts or resumes a training and kills it; what it was doing, and the exit status: 0 if it had ended before."""
    busy = out.with_suffix(".busy")
    busy.write_text("")
    processes = Processes(out.with_suffix(".log"), train, model_dir, out, OPTIONS, None, True)
    while processes.running() and busy.read_text() != aim:
        time.sleep(0.002)
    time.sleep(dice.uniform(0, LONGEST_S[aim]))
    processes.signal(signal.SIGKILL)
    (status,) = processes.end()
    assert status in (0, -signal.SIGKILL), processes.log.read_text()
    place = busy.read_text()
    if place == "writing" and not list(out.glob("checkpoints/*.partial")):
        place = "publishing"
    return place, status


def finish(model_dir: Path, out: Path) -> None:
    processes = Processes(out.with_suffix(".log"), train, model_dir, out, OPTIONS)
    assert processes.end() == [0], processes.log.read_text()


def kept_step(out: Path) -> int:
    """The step from which the next run resumes."""
    return STEPS if (out / "summary.json").exists() else latest(out / "checkpoints")


def assert_same(out: Path, calm: Path) -> None:
    """The same bytes in the exported model, each step logged once with the same loss, and no leftovers."""
    ours, theirs = ({path.name: path.read_bytes() for path in (run / "model").iterdir()} for run in (out, calm))
    assert ours == theirs
    logged = [
        [(row["step"], row["loss"], row["grad_norm"]) for row in map(json.loads, (run / "log.jsonl").open())]
        for run in (out, calm)
    ]
    assert logged[0] == logged[1]
    assert len(logged[0]) == STEPS
    ours_left, theirs_left = ({path.name for path in run.iterdir() if path.name[0] != "."} for run in (out, calm))
    assert ours_left == theirs_left
