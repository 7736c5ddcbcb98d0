"""`hydra/sweeper=optuna`: the space, the order of trials, and that a killed search loses nothing."""

import copy
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sdx import InputError
from sdx.cli import main
from sdx.store.files import read_json, read_rows, write_json
from sdx.sweeps import objective as objectives
from sdx.sweeps import space as spaces
from sdx.sweeps.runs import SweepRun, returned
from sdx.sweeps.study import Search, opened
from sdx.sweeps.sweeper import OptunaConfig, OptunaSweeper
from sdx.tracking.state import RunState
from tests.kit.configs import composed
from tests.kit.forks import ROOT
from tests.kit.workplace import SMALL, Workplace

RATE = "train.learning_rate=tag(log,interval(1e-5,1e-3))"
EPOCHS = "scale.epochs=choice(1,2)"
FIXED = ("method=sft", "lang=pt", "scale.validation_rows=4", "task=mmlu_human")
"""The fixed overrides of searches whose runs are faked."""
Judge = Callable[[dict[str, str]], float | None]


def space(*overrides: str) -> dict[str, Any]:
    return spaces.split(OverridesParser.create().parse_overrides(list(overrides)))[1]


def near_1e_4(run: dict[str, str]) -> float | None:
    """Higher if the learning rate is nearer to 1e-4."""
    return -abs(math.log10(float(run["train.learning_rate"])) + 4)


class FakeLauncher:
    """Writes results.json instead of running a run, or nothing if `judge` lets it fail."""

    def __init__(self, path: Path, judge: Judge = near_1e_4) -> None:
        self.path, self.judge = path, judge
        self.batches: list[list[tuple[str, ...]]] = []
        self.dies_in: int | None = None
        """The batch after whose first run the process is stopped."""
        self.interrupts: set[str] = set()
        """Overrides whose runs are asked to leave."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        self.batches.append([tuple(overrides) for overrides in job_overrides])
        assert initial_job_idx == sum(len(batch) for batch in self.batches[:-1])
        runs = []
        for overrides in job_overrides:
            runs.append(self._run(list(overrides)))
            if self.dies_in == len(self.batches) - 1:
                raise KeyboardInterrupt
        return [returned(run) for run in runs]

    def _run(self, overrides: list[str]) -> SweepRun:
        directory = self.path / "runs" / str(abs(hash(tuple(overrides))))
        directory.mkdir(parents=True, exist_ok=True)
        value = self.judge(dict(one.split("=", 1) for one in overrides))
        run = SweepRun(0, overrides, overrides, OmegaConf.create(), directory, RunState.failed)
        if self.interrupts & set(overrides):
            run.state = RunState.interrupted
        elif value is not None:
            run.state = RunState.done
            write_json(directory / "results.json", {"training": {"validation": value}, "scores": []})
        return run

    @property
    def points(self) -> list[tuple[str, ...]]:
        """What was launched, without the fixed overrides."""
        return [tuple(one for one in run if one not in FIXED) for batch in self.batches for run in batch]


@cache
def base() -> DictConfig:
    main.register()
    with initialize_config_dir(str(main.CONF), version_base="1.3"):
        return compose("config", overrides=["hydra/sweeper=optuna", *FIXED], return_hydra_config=True)


class Loader:
    """Hydra's, but the fixed overrides are composed once, which takes a third of a second."""

    repository = SimpleNamespace(group_exists=lambda key: key in ("method", "task", "tracking"))

    def load_sweep_config(self, _: DictConfig, overrides: Sequence[str]) -> DictConfig:
        cfg = copy.deepcopy(base())
        for override in OverridesParser.create().parse_overrides([one for one in overrides if one not in FIXED]):
            if override.key_or_group != "tracking":
                OmegaConf.update(cfg, override.key_or_group, override.value())
        return cfg


def search(launcher: FakeLauncher, *overrides: str, **options: Any) -> dict[str, Any]:
    """Runs a search and reads its table."""
    given = {"trials": 5, "jobs": 2, "storage": str(launcher.path / "optuna"), **options}
    config = OptunaConfig(**given)
    sweeper = OptunaSweeper(**{name: value for name, value in vars(config).items() if name != "_target_"})
    sweeper.config = base()
    sweeper.hydra_context = HydraContext(config_loader=Loader(), callbacks=None)  # type: ignore[arg-type]
    sweeper.launcher = launcher  # type: ignore[assignment]
    sweeper.sweep([*FIXED, *(overrides or (RATE, EPOCHS))])
    table: dict[str, Any] = read_json(launcher.path / "optuna" / f"{sweeper.name}.json")
    return table


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=choice(1,x)", CategoricalDistribution(["1", "x"])),
        ("a=1,x", CategoricalDistribution(["1", "x"])),
        ("lang=[th,sw],[pt]", CategoricalDistribution(["[th,sw]", "[pt]"])),
        ("a=range(1,10,4)", IntDistribution(1, 9, step=4)),
        ("a=range(10,1,-4)", IntDistribution(2, 10, step=4)),
        ("a=tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("a=range(0.0,0.35,0.1)", FloatDistribution(0.0, 0.3, step=0.1)),
        ("a=interval(0,1)", FloatDistribution(0.0, 1.0)),
        ("a=int(interval(8,64))", IntDistribution(8, 64)),
        ("a=tag(log,interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("a=tag(log,int(interval(8,64)))", IntDistribution(8, 64, log=True)),
    ],
)
def test_sweeps_are_distributions(override: str, expected: Any):
    assert list(space(override).values()) == [expected]


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("a=1", "nothing to search"),
        ("a=tag(log,interval(0,1))", "low"),
        ("a=interval(1,0)", "first end"),
        ("a=range(5,1)", "no value"),
        ("a=tag(log,choice(1,2))", "interval() and range()"),
        ("a=tag(log,range(1,9,2))", "step"),
        ("a=tag(log,range(0.1,0.9,0.2))", "interval()"),
        ("a=tag(logarithm,interval(1,2))", "logarithm"),
    ],
)
def test_what_cannot_be_searched_is_refused(override: str, part: str):
    with pytest.raises(InputError) as caught:
        space(override)
    assert part in str(caught.value)
    assert override in str(caught.value) or part == "nothing to search"


def test_a_point_is_written_as_on_the_command_line():
    searched = space("a=range(0.0,0.4,0.1)", "b=interval(0.0,1.0)", "+c=int(interval(1,9))", "d=th,sw")
    point = {"a": 0.1 + 0.2, "b": 0.12345678, "+c": 3, "d": "th"}
    assert spaces.to_overrides(searched, point) == ("a=0.3", "b=0.123457", "+c=3", "d=th")


def test_a_search_ends_with_its_best_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    launcher = FakeLauncher(tmp_path)
    table = search(launcher)
    assert [len(batch) for batch in launcher.batches] == [2, 2, 1]
    assert [row["number"] for row in table["trials"]] == [0, 1, 2, 3, 4]
    assert {row["state"] for row in table["trials"]} == {"COMPLETE"}
    assert table["best"]["value"] == max(row["value"] for row in table["trials"])
    assert all(row["run"].startswith("sft-smollm2_135m-pt-s1-") for row in table["trials"])
    assert len({row["run"] for row in table["trials"]}) == 5
    printed = capsys.readouterr().out
    command = next(line for line in printed.splitlines() if line.startswith("command  "))
    assert shlex.split(command)[1:5] == ["python", "-m", "sdx", "method=sft"]
    assert shlex.split(command)[4:] == table["best"]["overrides"]
    assert f"best     trial {table['best']['number']}: validation {table['best']['value']:.6g}" in printed


def test_the_same_command_again_has_nothing_to_do_and_more_trials_go_on(tmp_path: Path):
    search(FakeLauncher(tmp_path))
    again, more = FakeLauncher(tmp_path), FakeLauncher(tmp_path)
    table = search(again)
    assert again.batches == []
    assert len(table["trials"]) == 5
    assert len(search(more, trials=8)["trials"]) == 8
    assert [len(batch) for batch in more.batches] == [2, 1]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_search_is_the_undisturbed_one(tmp_path: Path, jobs: int):
    """It repeats the draws, although the sampler of the first process is gone."""
    calm, rough, resumed = (FakeLauncher(tmp_path / name) for name in ("calm", "rough", "rough"))
    expected = search(calm, trials=14, jobs=jobs)
    rough.dies_in = 11 // jobs
    with pytest.raises(KeyboardInterrupt):
        search(rough, trials=14, jobs=jobs)
    table = search(resumed, trials=14, jobs=jobs)
    assert resumed.batches[0] == rough.batches[-1]
    assert table == expected
    assert rough.points[:-jobs] + resumed.points == calm.points
    assert len(set(calm.points)) == 14


def test_a_trial_that_was_not_drawn_whole_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(objectives, "check", dies)
        with pytest.raises(KeyboardInterrupt):
            search(FakeLauncher(tmp_path), study="s")
    with monkeypatch.context() as patched:
        patched.setattr("optuna.trial.Trial.set_user_attr", dies)
        with pytest.raises(KeyboardInterrupt):
            search(FakeLauncher(tmp_path), study="s")
    table = search(FakeLauncher(tmp_path), study="s")
    assert [row["number"] for row in table["trials"]] == [1, 2, 3, 4, 5]


def test_failed_runs_do_not_end_the_search_and_the_next_start_tries_others(tmp_path: Path):
    def high_ones_fail(run: dict[str, str]) -> float | None:
        return None if float(run["train.learning_rate"]) > 3e-4 else near_1e_4(run)

    first, second = FakeLauncher(tmp_path, high_ones_fail), FakeLauncher(tmp_path)
    table = search(first)
    failed = [row for row in table["trials"] if row["state"] == "FAIL"]
    assert 0 < len(failed) < 5
    assert all(row["value"] is None for row in failed)
    assert sum(row["value"] is not None for row in search(second)["trials"]) == 5
    assert len(second.points) == len(failed)


def test_where_all_runs_fail_there_is_no_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table = search(FakeLauncher(tmp_path, lambda _: None))
    assert {row["state"] for row in table["trials"]} == {"FAIL"}
    assert "best     none" in capsys.readouterr().out


def test_a_value_that_is_no_number_is_a_failure(tmp_path: Path):
    table = search(FakeLauncher(tmp_path, lambda run: math.nan if run["scale.epochs"] == "1" else 1.0))
    assert {row["state"] for row in table["trials"]} == {"COMPLETE", "FAIL"}


def test_a_run_that_was_asked_to_leave_goes_on_in_the_next_start(tmp_path: Path):
    first, second = FakeLauncher(tmp_path), FakeLauncher(tmp_path)
    first.interrupts = {"scale.epochs=1"}
    table = search(first)
    left = {row["number"]: tuple(row["overrides"]) for row in table["trials"] if row["state"] == "RUNNING"}
    assert left
    table = search(second)
    assert [row["state"] for row in table["trials"]] == ["COMPLETE"] * 5
    assert {run for batch in second.batches for run in batch} == set(left.values())


def test_a_point_is_launched_once(tmp_path: Path):
    launcher = FakeLauncher(tmp_path, lambda run: float(run["scale.epochs"]))
    table = search(launcher, EPOCHS, trials=6, jobs=3)
    assert len(launcher.points) == len(set(launcher.points)) == 2
    assert [row["state"] for row in table["trials"]] == ["COMPLETE"] * 6


@pytest.mark.parametrize(
    ("overrides", "objective", "parts"),
    [
        ((RATE, "scale.epochs=choice(1,3)"), "validation", ("choice(1,2)", "choice(1,3)")),
        ((RATE,), "validation", ("space",)),
        ((RATE, EPOCHS, "seed=2"), "validation", ("fixed", "seed=2")),
        ((RATE, EPOCHS), "score/mmlu_human/pt/accuracy/after", ("objective validation",)),
    ],
)
def test_a_study_is_of_one_search(tmp_path: Path, overrides: tuple[str, ...], objective: str, parts: tuple[str, ...]):
    search(FakeLauncher(tmp_path), study="mine", trials=1)
    launcher = FakeLauncher(tmp_path)
    with pytest.raises(InputError, match="another search") as caught:
        search(launcher, *overrides, study="mine", objective=objective)
    assert all(part in str(caught.value) for part in ("hydra.sweeper.study=mine", *parts))
    assert launcher.batches == []


def test_directories_and_tracking_are_not_part_of_a_search(tmp_path: Path):
    table = search(FakeLauncher(tmp_path), RATE, "tracking=none", trials=1)
    again = search(FakeLauncher(tmp_path), RATE, "tracking=wandb", trials=1)
    assert (again["study"], len(again["trials"])) == (table["study"], 1)
    assert search(FakeLauncher(tmp_path), RATE, "seed=2", trials=1)["study"] != table["study"]


def test_one_process_searches_a_study(tmp_path: Path):
    held = opened(tmp_path / "optuna", "mine", Search("validation", {}, []), {}, 1)
    with held, pytest.raises(InputError, match="another process"):
        search(FakeLauncher(tmp_path), study="mine")


def test_a_journal_torn_by_a_kill_is_mended(tmp_path: Path):
    search(FakeLauncher(tmp_path), study="mine", trials=2)
    with (tmp_path / "optuna/mine.journal").open("a") as file:
        file.write('{"op_code": 4, "wor')
    (tmp_path / "optuna/mine.journal.lock").touch()
    began = time.monotonic()
    assert len(search(FakeLauncher(tmp_path), study="mine", trials=4)["trials"]) == 4
    assert len(search(FakeLauncher(tmp_path), study="mine", trials=4)["trials"]) == 4
    assert time.monotonic() - began < 15  # Optuna waits half a minute for a lock that nobody holds


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"objective": "loss"}, "hydra.sweeper.objective=loss"),
        ({"objective": "score/belebele/pt/accuracy/after"}, "no task belebele, but mmlu_human"),
    ],
)
def test_options_that_cannot_work(tmp_path: Path, options: dict[str, Any], part: str):
    launcher = FakeLauncher(tmp_path)
    with pytest.raises(InputError) as caught:
        search(launcher, **options)
    assert part in str(caught.value)
    assert launcher.batches == []


def test_an_objective_on_validation_data_needs_validation_data():
    validation = objectives.VALIDATION
    objectives.check(validation, composed("method=mt_stack"))
    objectives.check(validation, composed("scale.validation_rows=5"))
    with pytest.raises(InputError, match=r"scale\.validation_rows=50"):
        objectives.check(validation, composed("method=translate_sft"))
    with pytest.raises(InputError, match="trains nothing"):
        objectives.check(validation, composed("method=none", "scale.validation_rows=5"))


def test_a_score_of_a_test_is_named_as_on_dashboards_and_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    estimate = {"value": 25.0, "low": 1.0, "high": 50.0, "n": 4, "p": None}
    score = {"task": "mmlu_human", "language": "pt", "metric": "accuracy", "origin": "human-translated", "system": ""}
    score |= {"before": estimate, "after": {**estimate, "value": 50.0}, "difference": None, "benchmark": "mmlu_human"}
    write_json(tmp_path / "results.json", {"training": None, "scores": [score]})
    assert objectives.value(tmp_path, "score/mmlu_human/pt/accuracy/after") == 50
    with pytest.raises(InputError, match=r"figures there: score/mmlu_human/pt/accuracy/before, score"):
        objectives.value(tmp_path, "score/mmlu_human/pt/acc/after")
    with pytest.raises(InputError, match=r"without .*results\.json"):
        objectives.value(tmp_path / "elsewhere", "validation")
    with pytest.raises(InputError, match="is not in"):  # the launcher's runs have no scores
        search(FakeLauncher(tmp_path), objective="score/mmlu_human/pt/acc/after")
    assert "is of a test set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["-m", "hydra/sweeper=optuna", RATE], ("pip install 'sdx[optuna]'",)),
        (["hydra/sweeper=optuna", RATE], ("hydra/sweeper=optuna needs -m",)),
        (["-m", "hydra/sweeper=optuna", "hydra.sweeper.trials=many"], ("hydra.sweeper.trials=many",)),
    ],
)
def test_one_line_and_exit_code_2(
    arguments: list[str],
    parts: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["sdx", *arguments, f"runs_dir={tmp_path}", f"cache_dir={tmp_path}"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("sdx: ")
    assert all(part in line for part in parts)


@pytest.mark.long
def test_a_search_that_is_killed_goes_on(tmp_path: Path):
    """A real search, killed while the second trial trains, has the trainings of an undisturbed search."""
    place = Workplace(tmp_path)
    given = ("method=sft", "task=mmlu_human", "tracking=none", "scale.validation_rows=2", "train.save_every_steps=1")
    options = ("hydra/sweeper=optuna", "hydra.sweeper.trials=3", "hydra.sweeper.study=mine", "-m")
    searched = (RATE, "scale.epochs=choice(4,6)")
    command = [sys.executable, "-m", "sdx", "lang=pt", f"backbone.path={place.model}", *SMALL, *given, *searched]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SDX_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *options], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    trainings = tmp_path / "cache/artifacts/train"

    def second_trains() -> bool:
        done = list(trainings.glob("*/manifest.json"))
        return len(done) == 1 and bool(list(trainings.glob("*.partial/checkpoints/step_*")))

    while process.poll() is None and not second_trains():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    runs = {path.parent for path in (tmp_path / "runs").glob("*/sdx.log")}
    assert len(runs) == 2

    _, printed = place.sdx(*given, *searched, *options)
    assert "1 of 3 trials done" in printed
    assert printed.count("train        resumes") == 1
    assert printed.count("train        starts") == 1
    table = read_json(tmp_path / "runs/optuna/mine.json")
    assert [(row["number"], row["state"]) for row in table["trials"]] == [(n, "COMPLETE") for n in range(3)]
    assert {tmp_path / "runs" / row["run"] for row in table["trials"][:2]} == runs
    for row in table["trials"]:
        results = read_json(tmp_path / "runs" / row["run"] / "results.json")
        assert results["training"]["validation"] == row["value"]
        [train] = [step for step in results["steps"] if step["name"] == "train"]
        log = read_rows(Path(train["path"]) / "log.jsonl")
        assert max(one["validation"] for one in log if "validation" in one) == row["value"]
        assert results["training"]["validation_examples"] == 2
        assert results["training"]["examples"] == 4
    assert f"best     trial {table['best']['number']}" in printed
    assert json.dumps(table["best"]["overrides"][-1])[1:-1] in printed


def test_an_experiments_grid_is_searched_too(tmp_path: Path):
    launcher = FakeLauncher(tmp_path)
    search(launcher, RATE, "scale.epochs=2", trials=2, params={"scale.epochs": "1,3", "seed": "4,5"})
    for point in launcher.points:
        assert "scale.epochs=2" in point  # the command line overrides the experiment
        assert {"seed=4", "seed=5"} & set(point)
