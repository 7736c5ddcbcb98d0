"""A whole run with a dashboard through the real entry point: requeued once, then read back from its files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdx.cli.dashboard import main
from sdx.store.files import read_json
from sdx.tracking import dashboard
from tests.kit.forks import ROOT
from tests.kit.tracked import beginning, files, records, summary, whole_history
from tests.kit.wandb_server import KEY
from tests.kit.workplace import SDRRL, SMALL, Workplace, training_log

SECRETS = {
    "WANDB_API_KEY": KEY,
    "HF_TOKEN": "hf_abcdefghijklmnop",
    "GITHUB_PAT": "open-sesame-42",
    "DATABASE_URL": "postgresql://me:hunter2hunter2@db.example.org/x",
}
RUN = (*SDRRL, "task=[instructions,arc_easy]", "tracking.mode=offline", "tracking.group=study")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("tracked"))


@pytest.fixture(scope="module")
def run(place: Workplace) -> Path:
    """A run whose first process is asked to leave while it trains."""
    arguments = ["lang=pt", f"backbone.path={place.model}", *SMALL, *RUN, "train.batch_size=2"]
    environment = {**os.environ, **SECRETS, "PYTHONPATH": str(ROOT), "SDX_CACHE": str(place.path / "cache")}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "sdx", *arguments]
    with (place.path / "first.log").open("w") as log:
        first = subprocess.Popen(command, cwd=place.path, env=environment, stdout=log, stderr=log)
        logs = place.path / "cache/artifacts/train"
        while first.poll() is None and not any(path.stat().st_size for path in logs.glob("*.partial/log.jsonl")):
            time.sleep(0.01)
        first.send_signal(signal.SIGUSR2)
        assert first.wait(timeout=120) == os.EX_TEMPFAIL, (place.path / "first.log").read_text()
    again = subprocess.run(command, cwd=place.path, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    [run] = (place.path / "runs").iterdir()
    assert f"wandb sync {run / 'wandb'} uploads it" in again.stdout + again.stderr
    return run


def test_both_processes_are_one_run_with_every_step_of_the_training_once(run: Path):
    [path] = files(run)  # the second has the rows of the first
    assert beginning(path).run_id == read_json(run / "tracking.json")["id"]
    assert beginning(path).run_group == "study"
    rows = whole_history(run)
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    shown = {row["train/step"]: row["train/loss"] for row in rows if "train/step" in row}
    assert list(shown.items()) == [(row["step"], row["loss"]) for row in training_log(run)]
    assert len(shown) == len([row for row in rows if "train/step" in row])


def test_what_was_measured_is_in_the_summary(run: Path):
    last = summary(files(run)[-1])
    results = read_json(run / "results.json")
    [score] = [one for one in results["scores"] if one["task"] == "arc_easy" and one["language"] == "pt"]
    assert last["score/arc_easy/pt/accuracy/after"] == round(score["after"]["value"], 4)
    assert last["filter/all/kept_rows"] == sum(one["kept"] for one in results["filters"])
    assert "score/arc_easy/pt/accuracy/before" in last


def test_no_secret_of_the_environment_is_in_any_file_of_the_run(run: Path):
    for path in run.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [value for value in (*SECRETS.values(), "hunter2hunter2") if value.encode() in content], path
    for path in files(run):
        decoded = "".join(str(record) for record in records(path))
        assert not [value for value in SECRETS.values() if value in decoded]


def shown_names(run: Path) -> set[str]:
    """The names in the dashboard's panels."""
    bars = dashboard.bars(dashboard.scores_in(run.parent)).values()
    tables = {f"tables/{name}" for name in dashboard.TABLES}
    return tables.union(dashboard.TRAINING.values(), dashboard.FUNNEL, dashboard.TIMES, *bars, ["run/seconds"])


def test_every_metric_of_the_dashboard_is_one_that_a_run_logs(run: Path):
    import re

    names = {name for row in whole_history(run) for name in row}
    names |= {name for path in files(run) for name in summary(path)}
    names |= {name.rpartition(".")[0] for name in names if name.startswith("tables/")}
    shown = shown_names(run)
    assert [name for name in shown if name.startswith("score/arc_easy/pt/")]
    assert {*shown, "train/step"} - names == {"train/mfu"}  # which needs a device with a known peak
    for pattern in dashboard.RATES.values():
        assert [name for name in names if re.fullmatch(pattern, name)], pattern


def test_the_mfu_is_logged_if_the_peak_of_the_device_is_known(monkeypatch: pytest.MonkeyPatch):
    import torch

    from sdx.training.throughput import Cost, Meter

    meter = Meter(torch.device("cpu"), Cost(1.0, 1.0))
    meter.peak = 1e12
    monkeypatch.setattr("torch.distributed.all_reduce", lambda _: None)
    meter.count(3, 2, 3)
    meter.add(torch.tensor(1.0), torch.tensor(2))
    assert [f"train/{name}" for name in meter.read(1.0).row() if name == "mfu"] == ["train/mfu"]


def test_the_dashboard_is_printed_without_a_server(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import json

    pytest.importorskip("wandb_workspaces")
    monkeypatch.setattr(sys, "argv", ["dashboard", str(run.parent), "--group", "study", "--dry-run"])
    main()
    sent = json.loads(capsys.readouterr().out)["section"]
    sections = sent["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["Evaluation", "Training", "Data", "Samples"]
    assert all(section["panels"] for section in sections)
    text = json.dumps(sent)
    for name in shown_names(run):
        assert json.dumps(name) in text, name
    assert "study" in json.dumps(sent["runSets"])


@pytest.mark.parametrize(("missing", "message"), [("package", "pip install 'sdx[dashboard]'"), ("key", "wandb login")])
def test_what_the_dashboard_lacks_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: str,
    message: str,
):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    if missing == "package":
        monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    monkeypatch.setattr(sys, "argv", ["dashboard", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
