"""Stored vectors: found by the texts' ids, and identical after a kill."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdx import InputError
from sdx.config import Precision
from sdx.languages import language
from sdx.models.residency import release
from sdx.stacking import inference
from sdx.stacking.inference import example_id, load_for_inference
from sdx.stacking.model import StackForMultipleChoice, StackForSequenceClassification
from sdx.stacking.vectors import SPLITS, Vectors, VectorsStep
from sdx.store.batch_log import Row
from sdx.store.store import Store
from tests.kit.stack_steps import labelled, model_step, parts_of, rows_step, vectors_step
from tests.kit.tiny_stack import tiny_stack

pytestmark = pytest.mark.whole

EN = language("en")


@pytest.fixture(autouse=True)
def batches_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "BATCH_ROWS", 3)


def classes(llm_dir: Path) -> Any:
    return tiny_stack(None, llm_dir, StackForSequenceClassification)


def test_each_text_has_its_own(tmp_path: Path, llm_dir: Path):
    model, rows = classes(llm_dir), labelled()
    training = rows_step(train=rows[:6], validation=rows[6:])
    out = Store(tmp_path).realise(vectors_step(model_step(model), parts_of(None, llm_dir), training, EN, 64))
    expected = model.encode([row["segments"] for row in rows], "en")
    for name, some in (("train", range(6)), ("validation", range(6, 8))):
        found = Vectors(out)
        assert [of for of in found if of.startswith(name)] == [example_id(name, rows[place]["id"]) for place in some]
        assert len(found) == 8
        for place in some:
            torch.testing.assert_close(
                found[example_id(name, rows[place]["id"])], expected[place][None], atol=2e-5, rtol=1e-4
            )
    stored = torch.stack([vectors[0] for of, vectors in Vectors(out).items() if of.startswith("train")])
    assert Vectors(out).variance == pytest.approx(float(stored.var(0, correction=0).mean()), rel=1e-5)
    with pytest.raises(KeyError):
        Vectors(out)[example_id("train", "q7")]


@pytest.mark.parametrize(("precision", "dtype"), [(Precision.bf16, torch.bfloat16), (Precision.fp32, torch.float32)])
def test_parts_are_read_in_the_precision_they_are_given(
    tmp_path: Path, encoder_dir: Path, llm_dir: Path, precision: Precision, dtype: torch.dtype
):
    """Whatever the precision of the files; both precisions may be loaded one after the other."""
    directory, where = tmp_path / "model", {"encoder": encoder_dir, "llm": llm_dir}
    tiny_stack(encoder_dir, llm_dir, StackForSequenceClassification).save_pretrained(directory)
    for taken, found in ((precision, dtype), (Precision.fp32, torch.float32)):
        model = load_for_inference(directory, where, taken)
        assert {weight.dtype for weight in model.parameters()} == {found}
    release()


def test_one_for_each_choice(tmp_path: Path, encoder_dir: Path, llm_dir: Path):
    model, rows = tiny_stack(encoder_dir, llm_dir, StackForMultipleChoice), labelled(choices=3)
    training = rows_step(train=rows[:6], validation=rows[6:])
    step = vectors_step(model_step(model), parts_of(encoder_dir, llm_dir), training, EN, 64)
    out = Store(tmp_path).realise(step)
    assert np.load(out / "train.npy").shape == (6, 3, 64)
    for row in rows[:6]:
        [encoded] = model.sequence_tokenizer("en").encode([row["segments"]], 64)
        with torch.no_grad():
            states = model.hidden_states(torch.tensor([encoded.ids]))[0]
        expected = torch.stack([states[first:last].mean(0) for first, last in encoded.spans[1:]])
        torch.testing.assert_close(Vectors(out)[example_id("train", row["id"])], expected, atol=2e-5, rtol=1e-4)


class Killed(Exception):
    pass


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_killed_and_resumed(tmp_path: Path, llm_dir: Path, monkeypatch: pytest.MonkeyPatch, batches: int):
    rows = labelled()
    model, training = model_step(classes(llm_dir)), rows_step(train=rows[:7], validation=rows[7:])
    step = vectors_step(model, parts_of(None, llm_dir), training, EN, 64)
    calm, store = Store(tmp_path / "calm").realise(step), Store(tmp_path / "rough")
    process, seen = VectorsStep.process, list[str]()

    def noted(step: VectorsStep, batch: Sequence[Row], loaded: Any) -> list[Row]:
        if len(seen) >= 3 * batches:
            raise Killed
        seen.extend(row["id"] for row in batch)
        return process(step, batch, loaded)

    monkeypatch.setattr(VectorsStep, "process", noted)
    with pytest.raises(Killed) if batches < 3 else nullcontext():
        store.realise(step)
    batches = 3
    rough = store.realise(step)
    ids = [example_id("train", f"q{number}") for number in range(7)]
    assert sorted(seen) == [*ids, example_id("validation", "q7")]  # none twice
    for name in (*(f"{name}.npy" for name in SPLITS), "ids.json"):
        assert (rough / name).read_bytes() == (calm / name).read_bytes()
    assert {path.name for path in rough.iterdir()} == {path.name for path in calm.iterdir()}


def test_texts_that_lose_their_ends_are_told_once(tmp_path: Path, llm_dir: Path, caplog: pytest.LogCaptureFixture):
    training = rows_step(train=labelled()[:7], validation=labelled()[7:])
    Store(tmp_path).realise(vectors_step(model_step(classes(llm_dir)), parts_of(None, llm_dir), training, EN, 8))
    told = [record.getMessage() for record in caplog.records if "lose their ends" in record.getMessage()]
    assert told == ["texts        4 of 8 are longer than scale.max_length_tokens=8 and lose their ends; raise it"]


def test_no_validation(tmp_path: Path, llm_dir: Path):
    training = rows_step(train=labelled(), validation=[])
    out = Store(tmp_path).realise(vectors_step(model_step(classes(llm_dir)), parts_of(None, llm_dir), training, EN, 64))
    assert [np.load(out / f"{split}.npy").shape for split in SPLITS] == [(8, 1, 64), (0, 1, 64)]
    assert len(Vectors(out)) == 8


def test_questions_with_unlike_numbers_of_answers(tmp_path: Path, llm_dir: Path):
    """Their vectors would be mixed up."""
    rows = [labelled(choices=2)[0], labelled(choices=4)[1]]
    training = rows_step(train=rows, validation=rows[:1])
    model = model_step(tiny_stack(None, llm_dir, StackForMultipleChoice))
    with pytest.raises(InputError, match="2 and 4 answers"):
        Store(tmp_path).realise(vectors_step(model, parts_of(None, llm_dir), training, EN, 64))
