"""Sweeps of a user on a cluster of tests: a tiny model, jobs that are slowed so that a signal can hit each stage."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from sdx.store.files import read_json
from sdx.tracking.state import read_state
from tests.kit.forks import ROOT
from tests.kit.slurm import Cluster
from tests.kit.workplace import SMALL, Workplace

OPTIONS = {
    "gpus_per_node": "0",
    "tasks_per_node": "2",
    "poll_s": "1",
    "time_min": "10",
    "signal_delay_s": "60",
    "python": f"'{sys.executable} {ROOT}/tests/kit/slow_job.py'",
}
RUNS = (
    *SMALL,
    "lang=pt",
    "engine=zero2",
    "task=[instructions,mmlu_human]",
    "filters.answers=[empty]",
    "filters.translations=[]",
    "scale.corpus_rows=16",
    "generator.batch_size=4",
    "train.batch_size=8",
    "train.save_every_steps=1",
    "tracking=none",
)


class Site:
    """A cluster, and a user's directory on it.

    Args:
        place: with a tiny model and sentence pairs.
    """

    def __init__(self, cluster: Cluster, place: Workplace) -> None:
        self.cluster, self.place = cluster, place

    def start(self, name: str, *overrides: str, **options: str) -> subprocess.Popen[str]:
        """Launches a sweep into `name`, with a cache and a journal of that name."""
        launcher = [f"hydra.launcher.{key}={value}" for key, value in {**OPTIONS, **options}.items()]
        path = self.place.path
        environment = {
            **self.cluster.environment,
            "PYTHONPATH": str(ROOT),
            "SDX_CACHE": str(path / f"{name}-cache"),
            "JOURNAL": str(path / f"{name}.journal"),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "sdx", "-m", "hydra/launcher=slurm", *launcher, *RUNS]
        command += [f"backbone.path={self.place.model}", f"runs_dir={name}", *overrides]
        with (path / f"{name}.out").open("a") as output:
            return subprocess.Popen(command, cwd=path, env=environment, stdout=output, stderr=output, text=True)

    def sweep(self, name: str, *overrides: str, code: int = 0, **options: str) -> str:
        """Launches a sweep and waits; what it printed."""
        process = self.start(name, *overrides, **options)
        assert process.wait(timeout=400) == code, self.explain(name)
        return self.printed(name)

    def printed(self, name: str) -> str:
        return (self.place.path / f"{name}.out").read_text()

    def explain(self, name: str) -> str:
        logs = sorted((self.place.path / name / "slurm").glob("*.out"))
        tails = [f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-30:]) for log in logs]
        return "\n".join([self.printed(name), *tails, self.cluster.said()])

    def runs(self, name: str) -> list[Path]:
        return sorted(path.parent for path in (self.place.path / name).glob("*/job.json"))

    def job(self, run: Path) -> str:
        return str(read_json(run / "job.json")["job"])

    def wait_for_stage(
        self, name: str, stages: set[str], process: subprocess.Popen[str], since: Mapping[str, int] | None = None
    ) -> tuple[Path, str, int]:
        """A run that is in one of the stages, which one, and how often its job has been started again.

        Args:
            since: runs that count only when they have been started more often than this.
        """
        since = since or {}
        end = time.monotonic() + 200
        while time.monotonic() < end:
            assert process.poll() is None, f"ended before {stages}\n{self.explain(name)}"
            for run in self.runs(name):
                found = read_state(run)
                if not found or found["state"] != "running" or found["restarts"] <= since.get(run.name, -1):
                    continue
                stage, _, what = (found["stage"] or "").partition(": ")
                if stage in stages and what != "another run makes it":
                    return run, stage, found["restarts"]
            time.sleep(0.05)
        raise AssertionError(f"no run came to {stages}\n{self.explain(name)}")


def twice(site: Site, name: str) -> list[str]:
    """Rows that were put on disk more than once."""
    lines = (site.place.path / f"{name}.journal").read_text().splitlines()
    logged = [line.split(" ", 2) for line in lines if line.startswith("logged")]
    made = Counter((Path(path).parent, id_) for _, path, ids in logged for id_ in json.loads(ids))
    return [str(row) for row, times in made.items() if times > 1]
