"""kill -9 at chosen moments of a run, then the same command: what a test of that starts, waits for and compares."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kit.forks import forks

LONGEST_S = 0.1
"""How long at most after a seam the kill comes. It cannot come too late: the run waits for it at the next seam."""


class Launcher:
    """Starts runs with these arguments.

    Args:
        path: where they start; holds the model, `tiny`.
    """

    def __init__(self, path: Path, arguments: Sequence[str]) -> None:
        self.path, self.arguments = path, arguments

    def start(self, cache: Path, *overrides: str, stop: tuple[str, int] | None = None) -> int:
        """The process' number; it stops at that seam of a step, to be killed."""
        environment = {"SDX_CACHE": str(cache), "JOURNAL": f"{cache}.journal", "SEAMS": f"{cache}.seams"}
        here = (f"backbone.path={self.path / 'tiny'}", f"runs_dir={cache}-runs")
        log = Path(f"{cache}.log")
        return forks().start([*here, *self.arguments, *overrides], self.path, log, log, environment, stop)

    def reach(self) -> None:
        forks().reach()

    def end(self) -> int:
        return forks().end()


@dataclass(frozen=True)
class Calm:
    """An undisturbed run."""

    cache: Path
    seams: list[str]
    """The step, as `<name>/<key>`, of each place where it could have been stopped."""


def undisturbed(launcher: Launcher, cache: Path, *overrides: str) -> Calm:
    launcher.start(cache, *overrides)
    assert launcher.end() == 0, Path(f"{cache}.log").read_text()
    return Calm(cache, Path(f"{cache}.seams").read_text().split())


def killed_often(launcher: Launcher, calm: Calm, cache: Path, kills: Mapping[str, int], *overrides: str) -> None:
    """Runs the same command again and again and kills it in these steps, as often as said; then lets it end."""
    seed = int(os.environ.get("SDX_TEST_SEED", time.time_ns() % 10**6))
    print(f"SDX_TEST_SEED={seed}")
    dice = random.Random(seed)
    for step, seams in moments(calm, kills, dice):
        number = launcher.start(cache, *overrides, stop=(step, seams))
        launcher.reach()
        time.sleep(dice.uniform(0, LONGEST_S))
        os.killpg(number, signal.SIGKILL)
        assert launcher.end() == -signal.SIGKILL
        assert (cache / "artifacts" / f"{step}.partial").is_dir()
        print("killed in", step)
    launcher.start(cache, *overrides)
    assert launcher.end() == 0, Path(f"{cache}.log").read_text()


def moments(calm: Calm, kills: Mapping[str, int], dice: random.Random) -> list[tuple[str, int]]:
    """When to kill, in this order: in a step, after as many more of its seams; each seam is as likely as another."""
    at = {step: [n for n, found in enumerate(calm.seams) if found == step] for step in calm.seams}
    chosen = []
    for name, times in kills.items():
        chosen += dice.sample([n for n, step in enumerate(calm.seams) if step.split("/")[0] == name], times)
    found, before = [], Counter[str]()
    for step, seam in ((calm.seams[n], at[calm.seams[n]].index(n)) for n in sorted(chosen)):
        found.append((step, seam - before[step]))
        before[step] = seam
    return found


def assert_nothing_twice(cache: Path) -> None:
    """No row was put on disk twice."""
    lines = Path(f"{cache}.journal").read_text().splitlines()
    done = [line.split(" ", 2) for line in lines if line.startswith("logged")]
    made = Counter((Path(path).parent, id_) for _, path, ids in done for id_ in json.loads(ids))
    assert set(made.values()) == {1}


def published(cache: Path) -> dict[str, bytes]:
    """Every file of every artifact but those that hold times."""
    root = cache / "artifacts"
    timed = ("manifest.json", "log.jsonl", "summary.json")
    files = (path for path in root.rglob("*") if path.is_file() and path.name not in timed and path.suffix != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}
