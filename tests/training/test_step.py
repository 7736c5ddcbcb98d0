"""Training as a step: what is held out for validation, and which configuration makes another model."""

from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.run import check
from sdx.store.files import write_rows
from sdx.store.step import Step, Workspace
from sdx.training.step import Train
from tests.kit.configs import composed, resolved
from tests.kit.plain_step import PlainStep

QUESTIONS = 8


def trained(tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> dict[str, Any]:
    """The arguments of the loop and the step's counts, for questions with two versions each."""
    seen: dict[str, Any] = {}

    def train(**given: Any) -> dict[str, Any]:
        seen.update(given)
        return {"steps": 1}

    monkeypatch.setattr("sdx.training.loop.train", train)
    config = resolved(composed("method=sft", *overrides))
    inputs = {name: tmp_path / name for name in ("mix", "backbone", "tokens")}
    for directory in inputs.values():
        directory.mkdir(exist_ok=True)
    if not (inputs["backbone"] / "model").exists():
        (inputs["backbone"] / "model").symlink_to(model_dir)
    rows = [
        {"id": f"{n}/{name}", "source_id": str(n), "subset": name, "prompt": f"What is {n}?", "response": "A number."}
        for name in ("ll", "tt")
        for n in range(QUESTIONS)
    ]
    write_rows(inputs["mix"] / "rows.jsonl", rows)
    work = Workspace(tmp_path, inputs)
    step = Train(PlainStep("mix", lambda _: None), PlainStep("backbone", lambda _: None), settings=config)
    step.tokens.run(Workspace(inputs["tokens"], inputs))
    step.run(work)
    return {**seen, "counts": work.counts}


def test_a_question_is_validated_on_with_all_its_versions_or_trained_on(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = trained(tmp_path, model_dir, monkeypatch, "scale.validation_rows=3")
    learnt, held = ([one.group for one in seen[part]] for part in ("examples", "validation"))
    assert not set(learnt) & set(held)
    assert (len(learnt), len(held), len(set(held))) == (2 * (QUESTIONS - 3), 2 * 3, 3)
    counts = seen["counts"]
    assert (counts["examples"], counts["validation_examples"], counts["too_long"]) == (10, 6, 0)
    assert counts["subsets"] == {"ll": 5, "tt": 5}
    other = trained(tmp_path, model_dir, monkeypatch, "scale.validation_rows=3", "seed=2")
    assert [one.id for one in other["validation"]] == [one.id for one in seen["validation"]]


def test_without_validation_rows_all_is_trained_on(tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch):
    seen = trained(tmp_path, model_dir, monkeypatch)
    assert (len(seen["examples"]), len(seen["validation"])) == (2 * QUESTIONS, 0)
    assert "validation_examples" not in seen["counts"]


def test_validation_rows_that_leave_nothing_to_train_on(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(InputError, match=f"scale.validation_rows={QUESTIONS} leaves nothing .* has {QUESTIONS} quest"):
        trained(tmp_path, model_dir, monkeypatch, f"scale.validation_rows={QUESTIONS}")
    with pytest.raises(InputError, match=r"scale\.corpus_rows=240"):
        check(composed("method=sft", "scale.validation_rows=240"))


@pytest.mark.whole
def test_the_key_of_a_training_without_validation_rows_knows_nothing_of_them():
    """Models trained before there were validation rows are still found."""

    def step(*overrides: str) -> Step:
        config = resolved(composed("method=sft", *overrides))
        made = PlainStep("mix", lambda _: None), PlainStep("backbone", lambda _: None)
        return Train(*made, settings=config)

    plain = step()
    assert "validation_rows" not in plain.config
    assert "validations" not in plain.config["train"]
    assert step("train.validations=9").key == plain.key
    keys = [step("scale.validation_rows=5", *more).key for more in ([], ["train.validations=9"])]
    assert len({plain.key, *keys, step("scale.validation_rows=6").key}) == 4
