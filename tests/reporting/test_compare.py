"""The comparison of runs, on results written by hand."""

import csv
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from sdx import InputError
from sdx.cli.report import main
from sdx.reporting.compare import compare
from sdx.reporting.finished import FinishedRun, label, name_parts, read_runs
from sdx.sweeps import summary
from sdx.sweeps.runs import SweepRun
from sdx.tracking.state import RunState
from tests.kit.results import config, run, score


def names(*configs: dict[str, Any]) -> list[str]:
    runs = [FinishedRun(Path(f"runs/{number}"), one, []) for number, one in enumerate(configs)]
    return [label(parts) for parts in name_parts(runs)]


def test_a_run_is_named_by_its_method_and_what_differs():
    assert names(config()) == ["stt"]
    assert names(config(), config(method__mixture="src+tgt", seed=2)) == [
        "stt method.mixture=src seed=1",
        "stt method.mixture=src+tgt seed=2",
    ]
    assert names(config(cache_dir="/other"), config()) == ["stt in=runs/0", "stt in=runs/1"]


def test_a_group_is_named_by_its_option_and_inherited_values_are_left_out():
    large = config(backbone__name="large", backbone__learning_rate=1e-5, train__learning_rate=1e-5)
    assert names(config(), large) == ["stt backbone=tiny", "stt backbone=large"]
    tuned = config(backbone__name="large", backbone__learning_rate=1e-5, train__learning_rate=3e-5)
    assert names(config(), tuned) == [
        "stt backbone=tiny train.learning_rate=2e-05",
        "stt backbone=large train.learning_rate=3e-05",
    ]
    sft = config(method={"_target_": "sdx.methods.x.Y", "name": "sft"})
    assert names(sft, config(), config(method__mixture="src+tgt")) == [
        "sft",
        "stt method.mixture=src",
        "stt method.mixture=src+tgt",
    ]


def test_languages_benchmarks_and_paths_are_written_short():
    thai = config(lang__targets={"th": "tha_Thai", "sw": "swh_Latn"}, backbone__path="/a/b/one")
    more = config(task={"quiz": {"shots": 0}, "exam": {"shots": 2}}, backbone__path="/a/c/two")
    assert names(thai, more) == [
        "stt backbone.path=one lang=[th,sw] task=quiz",
        "stt backbone.path=two lang=pt task=[quiz,exam]",
    ]
    lists = [config(filters={"answers": ["a" * 50, end]}) for end in "xy"]
    assert [len(name) for name in names(*lists)] == [len(f"stt filters.answers=[{'a' * 50},x]")] * 2
    assert names(lists[0], config(filters={"answers": []})) == [
        f"stt filters.answers=[{'a' * 35}..",
        "stt filters.answers=[]",
    ]
    assert names(config(), config(task__quiz__shots=5)) == ["stt task.quiz.shots=0", "stt task.quiz.shots=5"]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    chrf = score(10, 12, "chrF++")
    for seed in (1, 2):
        run(root, f"a-{seed}", config(seed=seed), [score(20, 25 + seed), chrf], 10)
        run(root, f"b-{seed}", config(seed=seed, method__mixture="src+tgt"), [score(20, 60 + 4 * seed)], 24)
    run(root, "none", config(method={"name": "none"}), [score(20, None), score(10, None, "chrF++")], 8)
    return root


def test_the_table(runs: Path, capsys: pytest.CaptureFixture[str]):
    compare([runs], "mixture=src")
    rows = {}
    for line in (runs / "comparison.md").read_text().splitlines():
        if line.startswith("| "):
            name, *values = line.strip("| ").split(" | ")
            rows[name] = values
    assert rows["run"] == ["quiz, pt, accuracy", "quiz, pt, chrF++"]
    assert rows["before"] == ["20.0 ±5.0", "10.0 ±5.0"]
    assert rows["stt method.mixture=src seed=1"] == ["26.0 ±5.0", "12.0 ±5.0"]
    assert rows["stt method.mixture=src+tgt seed=2"] == ["68.0 ±5.0 (+35.0*)", "-"]
    assert rows["none seed=1"] == ["20.0 ±5.0 (-5.0)", "10.0 ±5.0"]
    assert rows["stt method.mixture=src+tgt, mean of 2 seeds"] == ["66.0 ±2.8", "-"]
    printed = capsys.readouterr().out
    assert "68.0 ±5.0 (+35.0*)" in printed
    assert "* its 95 % interval excludes 0" in printed


def test_the_csv_is_long_and_precise(runs: Path):
    compare([runs], "mixture=src")
    with (runs / "comparison.csv").open(newline="") as file:
        found = {(row["run"], row["metric"]): row for row in csv.DictReader(file)}
    assert len(found) == 8
    row = found["stt method.mixture=src+tgt seed=2", "accuracy"]
    values = [float(row[name]) for name in ("before", "after", "after_low", "difference_high")]
    assert values == [20, 68, 63, 53]
    # Of the two runs that the baseline names, the one with the same seed.
    assert row["baseline"] == "stt method.mixture=src seed=2"
    assert float(row["to_baseline"]) == pytest.approx(35)
    assert float(row["to_baseline_low"]) > 0
    assert found["stt method.mixture=src seed=1", "accuracy"]["baseline"] == ""


DAMAGE = [
    None,
    b"",
    b"[]\n3\nnull\n{}\n",
    b'{"task": "quiz", "language": "pt", "metr',
    b"\xff\xfe",
    b'{"task": ["quiz"], "language": "pt", "metric": "accuracy", "origin": "original", "ids": [], "before": []}',
    *(
        b'{"task": "quiz", "language": "pt", "metric": "accuracy", "origin": "original", "after": null, ' + rest + b"}"
        for rest in (b'"ids": ["0"], "before": ["yes"]', b'"ids": ["0", "1"], "before": [true]', b'"before": [true]')
    ),
]


@pytest.mark.parametrize("left", DAMAGE)
def test_items_that_are_gone_or_damaged_give_no_difference(
    left: bytes | None, runs: Path, capsys: pytest.CaptureFixture[str]
):
    for path in runs.glob("*-2/items.jsonl"):
        path.unlink() if left is None else path.write_bytes(left)
    compare([runs], "mixture=src")
    written = (runs / "comparison.md").read_text()
    assert "| 68.0 ±5.0 |" in written
    assert "64.0 ±5.0 (+35.0*)" in written
    [warning] = capsys.readouterr().err.splitlines()
    assert warning.startswith("sdx: warning: items.jsonl is missing, damaged or of another version")
    assert "stt method.mixture=src+tgt seed=2" in warning


LANGUAGES = {"de": "deu_Latn", "th": "tha_Thai", "zh": "zho_Hans"}


def languages(root: Path, *without: str) -> Path:
    """Runs as of a sweep over languages and mixtures, with scores in the run's own language and in English."""
    for place, (code, flores) in enumerate(LANGUAGES.items()):
        for mixture, right in (("src", 5 + 5 * place), ("src+tgt", 30)):
            if f"{code}-{mixture}" not in without:
                scores = [score(20, 30, language=one, task="mgsm") for one in (code, "en")]
                settings = config(method__mixture=mixture, lang__targets={code: flores})
                run(root, f"{code}-{mixture}", settings, scores, right)
    return root


def to_baseline(root: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """(run, language) -> (baseline, difference to it)."""
    with (root / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (row["run"], row["language"]): (row["baseline"], row["to_baseline"] and f"{float(row['to_baseline']):.1f}")
        for row in rows
    }


def test_each_language_has_its_own_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    languages(tmp_path)
    monkeypatch.setattr("sys.argv", ["sdx.report", str(tmp_path), "--baseline", "src"])
    main()
    found = to_baseline(tmp_path)
    for code, gap in (("de", "62.5"), ("th", "50.0"), ("zh", "37.5")):
        for scored in (code, "en"):
            assert found[f"stt method.mixture=src+tgt lang={code}", scored] == (
                f"stt method.mixture=src lang={code}",
                gap,
            )
            assert found[f"stt method.mixture=src lang={code}", scored] == ("", "")


def test_the_baseline_of_another_language_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    compare([languages(tmp_path, "th-src")], "src")
    found = to_baseline(tmp_path)
    for scored in ("th", "en"):
        assert found["stt method.mixture=src+tgt lang=th", scored] == ("", "")
    assert found["stt method.mixture=src+tgt lang=zh", "en"] == ("stt method.mixture=src lang=zh", "37.5")
    assert capsys.readouterr().err.splitlines() == [
        "sdx: warning: baseline 'src': none with lang=th for stt method.mixture=src+tgt lang=th"
    ]


def test_the_end_of_a_sweep_says_where_a_baseline_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    over = summary.SweepSummary("src")
    over.runs_dir = tmp_path
    found = sorted(path.parent for path in languages(tmp_path, "th-src").glob("*/results.json"))
    over.runs = [SweepRun(n, [], [], OmegaConf.create(), run, RunState.done) for n, run in enumerate(found)]
    monkeypatch.setattr(summary, "_current", over)
    assert summary.print_summary() == 0
    assert to_baseline(tmp_path)["stt method.mixture=src+tgt lang=th", "en"] == ("", "")
    assert "baseline 'src': none with lang=th for" in capsys.readouterr().err


def test_scores_of_other_items_stand_in_another_column(tmp_path: Path):
    for engine in ("nllb", "self"):
        run(tmp_path, engine, config(method__name=engine), [score(20, 30, origin=f"machine-translated ({engine})")])
    compare([tmp_path])
    head = (tmp_path / "comparison.md").read_text().splitlines()[2]
    assert head == (
        "| run | quiz, pt, accuracy, machine-translated (nllb) | quiz, pt, accuracy, machine-translated (self) |"
    )


def test_what_cannot_be_read_is_a_warning(runs: Path, capsys: pytest.CaptureFixture[str]):
    (runs / "begun/.hydra").mkdir(parents=True)
    for name, text in (
        ("torn", '{"run": "torn", '),
        ("older", '{"scores": [{"task": "x"}], "config": {}}'),
        ("list", "[]"),
    ):
        (runs / name).mkdir()
        (runs / name / "results.json").write_text(text)
    compare([runs])
    warnings = capsys.readouterr().err.splitlines()
    assert [line.split("runs/")[1] for line in warnings] == [
        "begun has no results.json: that run has not finished",
        "list/results.json is damaged or of another version; start that run again",
        "older/results.json is damaged or of another version; start that run again",
        "torn/results.json is damaged or of another version; start that run again",
    ]


def test_runs_may_be_given_one_by_one(runs: Path):
    compare([runs / "a-1", runs / "b-1", runs / "a-1"])
    assert [found.directory.name for found in read_runs([runs / "a-1", runs / "a-1"])[0]] == ["a-1"]
    assert "stt method.mixture=src+tgt" in (runs / "comparison.md").read_text()


def test_what_cannot_be_compared_names_the_fix(runs: Path, tmp_path: Path):
    with pytest.raises(InputError, match="no finished run in"):
        compare([tmp_path / "cache"])
    with pytest.raises(
        InputError, match=r"baseline 'xyz' matches no run; give a part of one of these names: stt method\.mixture=src"
    ):
        compare([runs], "xyz")
