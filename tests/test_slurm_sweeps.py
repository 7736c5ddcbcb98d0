"""Sweeps on a real SLURM: two ranks per job, ZeRO-2, a tiny model; results do not change if jobs are disturbed."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdx.store.files import read_json
from sdx.tracking.state import read_state
from tests.kit.kills import published
from tests.kit.slurm import Cluster, why_unsupported
from tests.kit.slurm_site import Site, twice
from tests.kit.workplace import Workplace

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(why_unsupported()), reason=why_unsupported())]

GRID = ("method=sdrrl,translate_sft", "seed=1,2")
STAGES = ("generate", "translate", "train", "score")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = Workplace(tmp_path_factory.mktemp("site"))
    with Cluster(tmp_path_factory.mktemp("cluster"), nodes=2) as cluster:
        yield Site(cluster, place)


@pytest.fixture(scope="module")
def calm(site: Site) -> str:
    """The name of an undisturbed sweep."""
    site.sweep("calm", *GRID)
    return "calm"


def scores(site: Site, name: str) -> dict[str, Any]:
    return {run.name: read_json(run / "results.json")["scores"] for run in site.runs(name)}


def test_a_sweep_ends_with_its_table_and_is_not_run_again(site: Site, calm: str):
    printed = site.printed(calm)
    assert "sweep    4 runs: 4 done" in printed
    assert "sdrrl, mean of 2 seeds" in printed
    assert len(site.runs(calm)) == 4
    assert len({site.job(run).partition("_")[0] for run in site.runs(calm)}) == 2
    for run in site.runs(calm):
        found = read_state(run)
        assert found
        assert (found["state"], found["job"]) == ("done", site.job(run))
        training = read_json(run / "results.json")["training"]
        assert training["steps"] > 1
    log = Path(read_json(site.runs(calm)[0] / "job.json")["log"]).read_text()
    assert "ZeRO-2" in log
    began = time.monotonic()
    again = site.sweep(calm, *GRID).removeprefix(printed)
    assert time.monotonic() - began < 30
    assert "4 runs, 4 of them done before" in again
    assert "sweep    4 runs: 4 skipped" in again
    assert "start " not in again


def test_preempted_in_every_stage_and_the_same_in_the_end(site: Site, calm: str):
    process = site.start("rough", *GRID)
    left = [(stage, way) for stage in STAGES for way in ("requeue", "USR2")]
    disturbed: dict[str, int] = {}
    while left:
        run, stage, restarts = site.wait_for_stage("rough", {stage for stage, _ in left}, process, disturbed)
        way = next(way for its, way in left if its == stage)
        if way == "requeue":
            site.cluster.run("scontrol", "requeue", site.job(run))
        else:
            site.cluster.signal(site.job(run), "USR2")
        left.remove((stage, way))
        print(way, "in", stage, "of", site.job(run), run.name)
        disturbed[run.name] = restarts
    assert process.wait(timeout=300) == 0, site.explain("rough")
    restarts = sum((read_state(run) or {})["restarts"] for run in site.runs("rough"))
    assert restarts == len(STAGES) * 2
    assert scores(site, "rough") == scores(site, calm)
    ours, theirs = (published(site.place.path / f"{name}-cache") for name in ("rough", calm))
    assert ours.keys() == theirs.keys()
    assert [name for name, content in ours.items() if theirs[name] != content] == []
    assert twice(site, "rough") == []


def test_two_nodes_train_together(site: Site, calm: str):
    """The jobs must run a copy of sdx, else they fail."""
    site.sweep("nodes", "method=sft", "scale.max_steps=2", nodes="2", tasks_per_node="1", snapshot="true")
    [run] = site.runs("nodes")
    assert len(list((site.place.path / "nodes/slurm").glob("code-*/sdx/cli/main.py"))) == 1
    assert read_json(run / "results.json")["training"]["steps"] == 2
    logs = sorted((site.place.path / "nodes/slurm").glob("*_log.out"))
    ranks = [re.search(r"node=(\d)\(2\), global_rank=(\d)\(2\)", log.read_text()) for log in logs]
    assert [found and found.groups() for found in ranks] == [("0", "0"), ("1", "1")]


def test_cancelled_and_launched_again(site: Site, calm: str):
    """The launching command is interrupted, too: its jobs go on, and the same command waits for them."""
    process = site.start("cancelled", "method=translate_sft", "seed=1")
    run, *_ = site.wait_for_stage("cancelled", {"translate"}, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130, site.explain("cancelled")
    assert f"scancel {site.job(run)} ends them" in site.printed("cancelled")
    job = site.job(run)
    again = site.start("cancelled", "method=translate_sft", "seed=1")
    site.wait_for_stage("cancelled", {"train"}, again)
    assert site.job(run) == job
    assert f"is in the queue as job {job}" in site.printed("cancelled")
    site.cluster.run("scancel", job)
    assert again.wait(timeout=60) == os.EX_TEMPFAIL, site.explain("cancelled")
    assert "1 runs: 1 interrupted" in site.printed("cancelled")
    site.sweep("cancelled", "method=translate_sft", "seed=1")
    assert site.job(run) != job
    assert scores(site, "cancelled")[run.name] == scores(site, calm)[run.name]
    assert twice(site, "cancelled") == []


def test_a_node_dies(site: Site, calm: str):
    """A node dies with its slurmd and processes; SLURM starts the job on another node."""
    process = site.start("dead", "method=translate_sft", "seed=1")
    run, *_ = site.wait_for_stage("dead", {"translate"}, process)
    node = site.cluster.run("squeue", "-h", "-o", "%N", "-j", site.job(run)).strip()
    site.cluster.lose(node)
    try:
        assert process.wait(timeout=200) == 0, site.explain("dead")
    finally:
        site.cluster.start_node(node)
        site.cluster.wait_until_idle()
    assert scores(site, "dead")[run.name] == scores(site, calm)[run.name]
    assert twice(site, "dead") == []


def test_failed_runs_keep_their_error_and_the_others_finish(site: Site, tmp_path: Path):
    """Only the job can find that no example is as short."""
    printed = site.sweep("failing", "method=translate_sft,sft", "scale.max_length_tokens=2", code=1)
    assert "2 failed" in printed
    assert printed.count("scale.max_length_tokens=2 is shorter than every training example") >= 2
    for run in site.runs("failing"):
        assert "is shorter than" in (run / "error.txt").read_text()
        assert f"log: {read_json(run / 'job.json')['log']}" in printed
    assert "again    python -m sdx -m hydra/launcher=slurm" in printed


def test_data_on_other_nodes_first(site: Site):
    """`hydra.launcher.prepare`: a job with other resources makes the data, and the training finds them."""
    site.sweep("prepared", "method=translate_sft", "seed=1,2", prepare="{tasks_per_node:1}")
    for run in site.runs("prepared"):
        log = Path(read_json(run / "job.json")["log"]).read_text()
        assert not re.search(r"(translate|mix) +(starts|resumes)", log)
        assert re.search(r"train +starts", log)
    assert twice(site, "prepared") == []


def test_what_cannot_be_prepared_shows_the_log_of_that_job(site: Site):
    options = {"prepare": "{tasks_per_node:1}", "setup": "['[ $SLURM_NTASKS = 2 ] || exit 3']"}
    printed = site.sweep("unprepared", "method=translate_sft", "seed=1", code=1, **options)
    [run] = site.runs("unprepared")
    found = read_json(run / "job.json")
    assert f"log: {found['prepare_log']}" in printed
    assert not Path(found["log"]).exists()


def test_a_full_disk_is_named_and_freed(site: Site, calm: str):
    disk = site.place.path / "full-cache"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        printed = site.sweep("full", "method=translate_sft", "seed=1", code=1)
        assert "no space left on the disk of cache_dir=" in printed
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        site.sweep("full", "method=translate_sft", "seed=1")
        [run] = site.runs("full")
        assert scores(site, "full")[run.name] == scores(site, calm)[run.name]
        assert twice(site, "full") == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
