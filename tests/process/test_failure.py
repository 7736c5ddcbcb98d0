"""Of two ranks, one fails: both end soon, and the run names the rank and its error."""

import os
import sys
import time
from pathlib import Path

import pytest
import torch

from sdx.cli.main import main
from sdx.process import failure
from sdx.process.failure import ERROR, Failure
from sdx.tracking.state import RunState, read_state
from sdx.training import checkpoints, export, loop
from sdx.training.quiet import deepspeed
from tests.kit.forks import ENVIRONMENT
from tests.kit.processes import Processes
from tests.kit.workplace import SMALL, UNSEEN, Workplace

FAULT = "no such luck"
SOON_S = 30
"""Far below the ten minutes after which gloo gives up."""


def faulty(*_given, **_more):
    raise RuntimeError(FAULT)


def run(place: Path, arguments: tuple[str, ...], fault: str) -> None:
    """Runs sdx on a rank; rank 1 fails at `fault`."""
    os.chdir(place)
    os.environ.update(ENVIRONMENT, SDX_CACHE=str(place / "cache"))
    sys.argv = ["sdx", *arguments]
    if os.environ["RANK"] == "1":
        if fault == "forward":
            torch.nn.Embedding.forward = faulty
        elif fault == "backward":
            deepspeed.DeepSpeedEngine.backward = faulty
        elif fault == "checkpoint":
            checkpoints._write = faulty
        elif fault == "export":
            export.revert_weight_conversion = faulty
        elif fault == "hang":  # only the watchdog of rank 0 notices
            loop.update = faulty
            failure.abort = lambda _code: time.sleep(SOON_S * 10)
    if os.environ["RANK"] == "0" and fault == "hang":
        failure.GRACE_S = failure.LOOK_S = 0.2
    main()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A place with the data of a run."""
    made = Workplace(tmp_path_factory.mktemp("runs"))
    made.sdx("method=sft", "task=mmlu_human", UNSEEN)
    return made


@pytest.mark.parametrize("fault", ["forward", "backward", "checkpoint", "export", "hang"])
def test_an_error_of_one_rank_ends_both_with_its_message(place: Workplace, tmp_path: Path, fault: str):
    given = ("method=sft", "task=mmlu_human", UNSEEN, "lang=pt", f"backbone.path={place.model}", *SMALL)
    given += (f"runs_dir={tmp_path}", "seed=2", "train.save_every_steps=1", "scale.epochs=2", "engine.zero_stage=2")
    began = time.monotonic()
    processes = Processes(tmp_path / "log", run, place.path, given, fault, ranks=2)
    rank_0 = processes.ranks[0]
    rank_0.join(SOON_S * 4)
    printed = processes.log.read_text()
    assert rank_0.exitcode == 1, printed
    assert time.monotonic() - began < SOON_S * 4
    if fault != "hang":
        assert processes.end(SOON_S) == [1, 1], printed
    else:
        processes.end(0)
    run_dir = next(path.parent for path in tmp_path.glob(f"*/{ERROR}"))
    text = (run_dir / ERROR).read_text()
    assert FAULT in text
    ranks = "01" if fault == "export" else "1"  # which rank 1 reports to rank 0
    assert any(text.splitlines()[-1].startswith(f"rank {rank} on ") for rank in ranks)
    state = read_state(run_dir)
    assert state["state"] is RunState.failed
    assert FAULT in state["error"]
    assert FAULT in printed
    assert not list(run_dir.parent.glob("**/model"))


def test_the_error_of_an_earlier_run_is_ignored(tmp_path: Path):
    (tmp_path / ERROR).write_text("Traceback\nValueError: old\n")
    found = Failure(tmp_path)
    assert found.message() is None
    found.report(ValueError("new"))
    assert found.message() == "ValueError: new"
    found.report(ValueError("later, because of the first"))
    assert found.message() == "ValueError: new"
    found.clear()
    assert found.message() is None


def test_an_error_is_reported_on_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    found = Failure(tmp_path)
    found.report(ValueError("first"))
    assert (found.message(), found.is_own) == ("ValueError: first", True)
    assert [path.name for path in tmp_path.iterdir()] == [ERROR]
