"""What a method may have scored beside its own model, through the real entry point."""

from pathlib import Path
from typing import Any

import pytest

from sdx import run
from sdx.config import BackboneConfig, Config
from sdx.evaluation.suites import Comparison
from sdx.methods.base import Method, Run
from sdx.methods.baselines import Untouched
from sdx.models.backbone import backbone_step
from sdx.store.files import read_json, read_rows
from sdx.store.step import Step
from tests.kit.configs import composed, resolved
from tests.kit.tiny import tiny_model
from tests.kit.workplace import SMALL

ALONE = tuple(one for one in SMALL if not one.startswith("parallel"))


def config_of(tmp_path: Path, *overrides: str) -> Config:
    files = (f"backbone.path={tiny_model(tmp_path / 'tiny')}", f"cache_dir={tmp_path / 'cache'}", "tracking=none")
    return composed(*ALONE, *files, "lang=pt", *overrides)


def prepared(config: Config, tmp_path: Path) -> run.RunPlan:
    return run.prepare(resolved(config), tmp_path)


def test_without_more_a_method_is_compared_with_the_untrained_backbone(tmp_path: Path):
    work = prepared(config_of(tmp_path, "method=sft", "task=mmlu_human", "lang=[pt,nl]"), tmp_path)
    assert [(one.suite.task.name, one.suite.language.code, one.system) for one in work.outcomes] == [  # type: ignore[union-attr]
        ("mmlu_human", "en", ""),
        ("mmlu_human", "pt", ""),
    ]
    for one in work.outcomes:
        assert one.after
        assert one.before.inputs["model"] is work.run.backbone
        assert one.after.inputs["model"] is work.model
    [reason] = work.skipped
    assert reason.startswith("mmlu_human in Dutch: human translations exist for")
    untouched = prepared(config_of(tmp_path, "method=none", "task=mmlu_human"), tmp_path)
    assert [one.after for one in untouched.outcomes] == [None, None]


def test_a_method_names_its_own_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    other = backbone_step(BackboneConfig(name="other", path=str(tiny_model(tmp_path / "other", seed=1))))

    def outcomes(self: Any, of: Run, model: Step) -> tuple[list[Comparison], list[str]]:
        found, skipped = Method.outcomes(self, of, model)
        suites: list[Any] = [one.suite for one in found]
        models = {"as it is": of.backbone, "another": other}
        return [
            Comparison(suite, suite.outcome(before, system), suite.outcome(model, "after"), system)
            for system, before in models.items()
            for suite in suites
        ], [*skipped, "a third one: there is none."]

    monkeypatch.setattr(Untouched, "outcomes", outcomes)
    config = config_of(tmp_path, "method=none", "task=mmlu_human")
    directory = tmp_path / "runs/one"
    directory.mkdir(parents=True)
    run.run(config, directory)
    results = read_json(directory / "results.json")
    assert [(one["system"], one["language"], one["before"]["n"]) for one in results["scores"]] == [
        (system, code, 4) for system in ("as it is", "another") for code in ("en", "pt")
    ]
    assert [one["difference"]["value"] for one in results["scores"]][:2] == [0, 0]
    assert results["skipped"] == ["a third one: there is none."]
    items = read_rows(directory / "items.jsonl")
    assert [one["after"] for one in items[:2]] == [one["after"] for one in items[2:]]
    printed = capsys.readouterr().out
    last = [line.split("│")[1].strip() for line in printed.splitlines() if line.startswith("│")]
    assert last == ["as it is", "another", "none"]
