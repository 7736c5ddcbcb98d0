"""An array of four tasks makes a run's data on a real SLURM: any may die or never start, the bytes are a process's."""

import subprocess
import time
from pathlib import Path

import pytest

from sdx.store.files import read_json
from tests.kit import forks
from tests.kit.kills import published
from tests.kit.slurm import Cluster, why_unsupported
from tests.kit.slurm_site import RUNS, Site, twice
from tests.kit.workplace import Workplace

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(why_unsupported()), reason=why_unsupported())]
OVERRIDES = ("method=sdrrl", "task=mmlu_human", "scale.corpus_rows=32", "scale.max_steps=2", "generator.batch_size=1")


def writers(journal: Path, step: str) -> set[str]:
    """Logs of the processes that have finished rows of a step."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return {line.split(" ", 2)[1] for line in lines if f"/{step}/" in line}


def wait_for(site: Site, process: "subprocess.Popen[str]", name: str, count: int) -> None:
    end = time.monotonic() + 100
    while len(writers(site.place.path / f"{name}.journal", "generate")) < count:
        assert process.poll() is None, site.explain(name)
        assert time.monotonic() < end, site.explain(name)
        time.sleep(0.05)


def test_one_task_is_killed_and_one_held_back(tmp_path: Path):
    place = Workplace(tmp_path / "site")
    with Cluster(tmp_path / "cluster", nodes=2, array=5) as cluster:
        site = Site(cluster, place)
        given = {"prepare": "{array:4,array_parallelism:3}", "tasks_per_node": "1"}
        process = site.start("array", *OVERRIDES, **given)
        wait_for(site, process, "array", 1)
        [run] = site.runs("array")
        array = read_json(run / "job.json")["prepare"]
        cluster.run("scontrol", "hold", f"{array}_3")
        wait_for(site, process, "array", 3)
        cluster.run("scancel", f"{array}_0")
        assert process.wait(timeout=200) == 0, site.explain("array")
        log = Path(read_json(run / "job.json")["log"]).read_text()
        assert "generate     starts" not in log
        assert "train        starts" in log
        assert twice(site, "array") == []
    given = (*RUNS, *OVERRIDES, f"backbone.path={place.model}", "runs_dir=alone")
    done = forks.sdx(*given, cwd=place.path, environment={"SDX_CACHE": str(place.path / "alone-cache")})
    assert done.returncode == 0, done.stderr
    ours, theirs = (published(place.path / f"{name}-cache") for name in ("array", "alone"))
    assert ours == theirs
