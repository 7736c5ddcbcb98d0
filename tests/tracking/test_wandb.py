"""wandb runs, read back from the disk: one run through requeues and kills, without secrets."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import wandb

from sdx.process.events import Reading
from sdx.store.files import read_json
from sdx.tracking import Tracker
from tests.kit.tracked import beginning, config, files, history, records, results, row, summary, whole_history
from tests.kit.wandb_server import KEY, Server, serving

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[2]
OFFLINE = ("tracking=wandb", "tracking.mode=offline")
CHILD = """
import os, signal, sys, time
from pathlib import Path
from sdx.tracking import Tracker
from tests.kit.tracked import beginning, config, files, history, records, results, row, summary, whole_history
tmp_path, first, last, sign, wait_s = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), 1.5
tracker = Tracker(config(tmp_path, "tracking=wandb", "tracking.mode=offline"), tmp_path)
for step in range(first, last + 1):
    tracker.trained(row(step))
time.sleep(wait_s)
os.killpg(0, sign)
time.sleep(30)
"""


@pytest.fixture(autouse=True)
def _no_wandb(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    wandb.teardown()  # wandb reads the environment once
    yield
    with contextlib.suppress(ConnectionError):  # of a process that was killed
        wandb.teardown()


def steps(run_dir: Path) -> list[int]:
    """Training steps, in the order of wandb's own steps, which are checked to rise."""
    rows = whole_history(run_dir)
    own = [one["_step"] for one in rows]
    assert own == sorted(set(own))
    return [one["train/step"] for one in rows if "train/step" in one]


def work(tmp_path: Path, first: int, last: int, *overrides: str, error: BaseException | None = None) -> None:
    """A process that trains these steps."""
    given = overrides or OFFLINE
    try:
        with Tracker(config(tmp_path, *given), tmp_path) as tracker:
            for step in range(first, last + 1):
                tracker.trained(row(step))
            if error:
                raise error
            tracker.finished(results(tmp_path))
    except (SystemExit, ValueError):
        assert error


def test_a_requeued_run_is_one_run_and_every_step_is_there_once(tmp_path: Path):
    exits, ids, groups, options = [], set(), set(), []
    for first, last, error in ((1, 5, SystemExit(os.EX_TEMPFAIL)), (4, 8, ValueError()), (8, 9, None)):
        work(tmp_path, first, last, error=error)  # the checkpoint of the second was that of step 3
        [path] = files(tmp_path)  # with the rows of the earlier files
        run = beginning(path)
        assert steps(tmp_path) == list(range(1, last + 1))
        exits += [record.exit.exit_code for record in records(path) if record.HasField("exit")]
        ids.add(run.run_id)
        groups.add((run.project, run.run_group, run.job_type))
        assert list(run.tags) == ["sft", "smollm2_135m", "pt", "sw", "seed-3", "auto"]
        options.append({update.key: json.loads(update.value_json) for update in run.config.update})
    assert ids == {read_json(tmp_path / "tracking.json")["id"]}
    assert groups == {("sdx", "sft-pt+sw", "run")}
    assert exits == [1, 1, 0]
    assert summary(path)["score/t/pt/accuracy/before"] == 40.0
    assert summary(path)["filter/all/kept_rows"] == 6
    assert options[0]["seed"] == 3
    assert options[0]["lang"]["targets"] == {"pt": "por_Latn", "sw": "swh_Latn"}


def test_rows_keep_the_time_at_which_they_were_logged(tmp_path: Path):
    work(tmp_path, 1, 2, error=ValueError())
    before = [one["_timestamp"] for one in whole_history(tmp_path)]
    work(tmp_path, 3, 3, error=ValueError())
    assert [one["_timestamp"] for one in whole_history(tmp_path)][:2] == before


def test_sync_makes_one_run_of_all_processes(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    work(tmp_path, 1, 5, error=SystemExit(os.EX_TEMPFAIL))
    with caplog.at_level(logging.INFO, "sdx"):
        work(tmp_path, 5, 7)
    [said] = [record.message for record in caplog.records if "wandb sync" in record.message]
    command = said.partition("offline; ")[2].partition(" uploads")[0].split()
    assert command == ["wandb", "sync", str(tmp_path / "wandb")]
    with serving() as server:
        sync(server, *command[2:])
        [(run, rows)] = server.runs.items()
    assert run == read_json(tmp_path / "tracking.json")["id"]
    assert [one["_step"] for one in rows] == list(range(len(rows)))
    assert [one["train/step"] for one in rows if "train/step" in one] == list(range(1, 8))
    assert server.began[run]["groupName"] == "sft-pt+sw"


@pytest.mark.parametrize("then", ["offline", "online"])
def test_what_was_uploaded_meanwhile_is_not_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str):
    with serving() as server:
        work(tmp_path, 1, 3, error=ValueError())
        sync(server, str(tmp_path / "wandb"))
        if then == "online":
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            wandb.teardown()
        work(tmp_path, 2, 5, "tracking=wandb", f"tracking.mode={then}")
        assert len(files(tmp_path)) == 2
        assert steps(tmp_path) == [1, 2, 3, 4, 5]
        if then == "offline":
            sync(server, str(tmp_path / "wandb"))
        [rows] = server.runs.values()
    assert [one["_step"] for one in rows] == list(range(len(rows)))
    assert [one["train/step"] for one in rows if "train/step" in one] == [1, 2, 3, 4, 5]


def test_a_server_gets_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Although the process that should have sent it is gone."""
    with serving() as server:
        for name, value in {**server.environment, "WANDB_FINISH_TIMEOUT": "3"}.items():
            monkeypatch.setenv(name, value)
        online = ("tracking=wandb", "tracking.mode=online")
        work(tmp_path, 1, 3, *online, error=ValueError())
        [rows] = server.runs.values()
        del rows[2:]
        work(tmp_path, 1, 5, *online)
    assert [one["_step"] for one in rows] == list(range(len(rows)))
    assert [one["train/step"] for one in rows if "train/step" in one] == [1, 2, 3, 4, 5]


def sync(server: Server, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", *arguments],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_costs_no_row_and_blocks_no_upload(tmp_path: Path, sign: signal.Signals):
    """The whole process group dies, including wandb's own process; the next process writes the rows again."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD, str(tmp_path), "1", "6", str(int(sign))]
    assert subprocess.run(command, env=environment, start_new_session=True, timeout=60).returncode == -sign
    [path] = files(tmp_path)
    assert [one["train/step"] for one in history(path)] == [1, 2, 3, 4, 5, 6]
    os.truncate(path, path.stat().st_size - 5)  # as if the disk had got only a part
    work(tmp_path, 1, 8)  # the loop reports its earlier rows first
    assert steps(tmp_path) == list(range(1, 9))
    with serving() as server:
        said = sync(server, str(tmp_path / "wandb"))
        [rows] = server.runs.values()
    assert "Failed" not in said
    assert [one["train/step"] for one in rows if "train/step" in one] == list(range(1, 9))


def test_the_same_results_are_logged_once(tmp_path: Path):
    work(tmp_path, 1, 2)
    before = files(tmp_path)
    with Tracker(config(tmp_path, *OFFLINE), tmp_path) as tracker:
        tracker.finished(results(tmp_path))
    assert files(tmp_path) == before
    with Tracker(config(tmp_path, *OFFLINE), tmp_path) as tracker:
        tracker.finished(results(tmp_path, score=41.0))
    assert files(tmp_path) != before
    assert steps(tmp_path) == [1, 2]


class Clock:
    """The module `time` with a clock of its own."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = ahead_s

    def time(self) -> float:
        return time.time() + self.ahead_s

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def test_a_clock_that_was_set_back_does_not_turn_the_processes_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    for module in ("wandb_init", "wandb_run"):
        monkeypatch.setattr(f"wandb.sdk.{module}.time", Clock(86_400))
    work(tmp_path, 1, 3, error=ValueError())
    monkeypatch.undo()
    caplog.clear()
    with caplog.at_level(logging.INFO, "sdx"):
        work(tmp_path, 4, 6)
    [said] = [record.message for record in caplog.records if "wandb sync" in record.message]
    with serving() as server:
        sync(server, *said.partition("offline; ")[2].partition(" uploads")[0].split()[2:])
        [rows] = server.runs.values()
    assert [one["_step"] for one in rows] == list(range(len(rows)))
    assert [one["train/step"] for one in rows if "train/step" in one] == list(range(1, 7))


def test_steps_and_rates_have_axes_of_their_own(tmp_path: Path):
    with Tracker(config(tmp_path, *OFFLINE), tmp_path) as tracker:
        for done in (0, 5, 10, 10):
            tracker.progressed(Reading("answers", done, 10, "rows", 2.5 if done else None, None))
        tracker.progressed(Reading("train", 3, 3, "steps", 2.5, None))
        tracker.step_done("mix", "k", {"seconds": 1.5, "counts": {"rows": 3}, "config": {}})
        counts = {"kept": 4, "empty": 1, "long": 0}
        manifest = {"seconds": 0.5, "counts": counts, "config": {"language": "por_Latn"}}
        tracker.step_done("filter", "k", manifest)
        tracker.trained(row(1), "stack")
    [path] = files(tmp_path)
    shown = [{name: value for name, value in one.items() if name[0] != "_"} for one in history(path)]
    assert shown == [
        {"progress/answers/rows": 5, "progress/answers/rows_per_s": 2.5},
        {"progress/answers/rows": 10, "progress/answers/rows_per_s": 2.5},
        {"steps/number": 0, "steps/mix_seconds": 1.5},
        {"steps/number": 1, "steps/filter_seconds": 0.5},
        {"filter/pt/number": 1, "filter/pt/rows": 5, "filter/pt/kept_rows": 4}
        | {"filter/pt/empty_rows": 1, "filter/pt/long_rows": 0},
        {"train/stack/step": 1, "train/stack/loss": 9.0, "train/stack/useful_tokens_per_s": 100.0},
    ]
    metrics = {
        (record.metric.glob_name or record.metric.name): record.metric.step_metric
        for record in records(path)
        if record.HasField("metric")
    }
    assert metrics["train/stack/*"] == "train/stack/step"
    assert metrics["progress/answers/*"] == "progress/answers/rows"
    assert metrics["filter/pt/*"] == "filter/pt/number"


def test_tables_are_short_and_the_report_is_an_artifact(tmp_path: Path):
    work(tmp_path, 1, 1)
    [path] = files(tmp_path)
    tables = {table.name.split("_")[0]: read_json(table) for table in path.parent.glob("files/media/table/tables/*")}
    assert set(tables) == {"evaluation", "filters", "samples", "steps"}
    assert len(tables["samples"]["data"]) == 200
    [score] = tables["evaluation"]["data"]
    assert score[tables["evaluation"]["columns"].index("before")] == 40.0
    [artifact] = [
        record.artifact for record in records(path) if record.HasField("artifact") and record.artifact.type == "report"
    ]
    [report] = artifact.manifest.contents
    assert (report.path, Path(report.local_path).read_text()) == ("report.md", "# x\n")
    assert Path(report.local_path).is_relative_to(tmp_path)


def test_no_secret_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    secrets = {"WANDB_API_KEY": KEY, "HF_TOKEN": "hf_abcdefghijklmnop", "MY_PASSWORD": "correct horse battery"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    given = config(tmp_path, *OFFLINE, "corpus.path='https://u:hf_abcdefghijklmnop@host/x'")
    found = results(tmp_path, "correct horse battery")
    with Tracker(given, tmp_path) as tracker:
        tracker.trained(row(1))
        tracker.finished(found)
    written = [path for path in (tmp_path / "wandb").rglob("*") if path.is_file()]
    assert len(written) > 5
    for path in written:
        content = path.read_bytes()
        assert not [value for value in secrets.values() if value.encode() in content], path
    [path] = files(tmp_path)
    decoded = "".join(str(record) for record in records(path))
    assert "https://u:[removed]@host/x" in decoded
    assert not [value for value in secrets.values() if value in decoded]


@pytest.mark.parametrize("trouble", ["silent", "refused"])
def test_a_server_that_does_not_answer_makes_the_run_an_offline_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
):
    with serving() as server:
        server.silent = True
        for name, value in {**server.environment, "WANDB_INIT_TIMEOUT": "3"}.items():
            monkeypatch.setenv(name, value)
        if trouble == "refused":
            server.shutdown()
            server.server_close()
        began = time.monotonic()
        with caplog.at_level(logging.INFO, "sdx"):
            work(tmp_path, 1, 3, "tracking=wandb", "tracking.mode=online")
        assert time.monotonic() - began < 30
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    [said] = warnings
    assert "offline for this run, because the server cannot be used" in said
    assert "wandb sync" in caplog.text
    assert steps(tmp_path) == [1, 2, 3]


@pytest.mark.long
def test_a_server_that_falls_silent_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with serving() as server:
        for name, value in {**server.environment, "WANDB_FINISH_TIMEOUT": "3"}.items():
            monkeypatch.setenv(name, value)
        with (
            caplog.at_level(logging.INFO, "sdx"),
            Tracker(config(tmp_path, "tracking=wandb", "tracking.mode=online"), tmp_path) as tracker,
        ):
            tracker.trained(row(1))
            server.silent = True
            tracker.trained(row(2))
            began = time.monotonic()
            tracker.finished(results(tmp_path))
        assert time.monotonic() - began < 30
    assert "wandb sync --include-online" in caplog.text
    assert steps(tmp_path) == [1, 2]


def test_wandb_dying_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with Tracker(config(tmp_path, *OFFLINE), tmp_path) as tracker:
        tracker.trained(row(1))
        service: Any = wandb.setup().ensure_service()
        children = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True)
        assert service
        for child in children.stdout.split():
            os.kill(int(child), signal.SIGKILL)
        for step in range(2, 50):
            tracker.trained(row(step))
            time.sleep(0.02)
        tracker.finished(results(tmp_path))
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert ["the run goes on" in said for said in warnings] == [True, False]
    assert "uploads what is on the disk" in warnings[1]


FULL = """
import resource, sys
from pathlib import Path
from sdx.tracking import Tracker
from tests.kit.tracked import beginning, config, files, history, records, results, row, summary, whole_history
tmp_path = Path(sys.argv[1])
given, found = config(tmp_path, "tracking=wandb", "tracking.mode=offline"), results(tmp_path)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
with Tracker(given, tmp_path) as tracker:
    for step in range(1, 400):
        tracker.trained(row(step))
    tracker.finished(found)
print("went on")
"""


def test_a_full_disk_is_said_and_the_run_goes_on(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "went on\n"
    said = [line for line in done.stderr.splitlines() if line.startswith("wandb        ")]
    assert said, done.stderr
    assert "disk" in said[0]
    assert "results" not in read_json(tmp_path / "tracking.json")  # the same command logs it again
