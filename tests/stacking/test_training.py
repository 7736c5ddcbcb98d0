"""The trainings of a stack: what each changes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMultipleChoice, AutoModelForSequenceClassification

from sdx.config import Config, EngineConfig, MethodConfig, Precision, TrackingConfig, TrainConfig
from sdx.languages import language
from sdx.models import residency
from sdx.stacking.bridge import StackStep
from sdx.stacking.encoder import load_encoder
from sdx.stacking.generation import label_ids
from sdx.stacking.inference import load_for_inference
from sdx.stacking.parts import ObjectiveKind, Parts
from sdx.stacking.trainable import TrainableStack
from sdx.stacking.training import AlignmentStep, TaskStep, TrainingSettings
from sdx.store.files import read_json, read_rows
from sdx.store.step import Step
from sdx.store.store import Store
from tests.kit.stack_steps import (
    STEADY,
    answers_step,
    labelled,
    parts_of,
    rows_step,
    texts_step,
    tokens_step,
    vectors_step,
)
from tests.kit.tiny_stack import tiny_stack

EN = language("en")
LABELS = ("no", "perhaps", "yes")
SAVED = "model/model.safetensors"
Weights = dict[str, torch.Tensor]


class Study:
    """The steps of MT-encoder stacking on eight sentences and eight questions, two optimizer steps in each."""

    head_bias, quantised = True, False

    def __init__(self, folder: Path, encoder_dir: Path, llm_dir: Path, choices: int = 0) -> None:
        self.store, self.llm_dir = Store(folder / "cache"), llm_dir
        self.parts = parts_of(encoder_dir, llm_dir)
        self.llm, self.encoder = replace(self.parts, encoder=None), replace(self.parts, backbone=None)
        engine = EngineConfig("given", 0, False, Precision.fp32, 64, False, False)
        tracking = TrackingConfig()
        self.train = TrainConfig(batch_size=4, learning_rate=1e-2, lora_rank=4, lora_dropout=0.0, validations=1)
        self.config = Config(method=MethodConfig("x", "x"), engine=engine, tracking=tracking, train=self.train)
        rows = labelled(choices)
        self.questions = rows_step(train=rows, validation=rows[:3])
        self.labels = () if choices else LABELS
        self.first = self.untrained(self.parts)

    def untrained(self, parts: Parts) -> Step:
        return StackStep(texts_step(), STEADY, False, self.quantised, 64, 0, parts=parts, languages=[EN])

    def aligned(self, words: bool = True) -> Step:
        tokens = tokens_step(self.parts, texts_step(), 64)
        given = self.first, self.recipe(), ObjectiveKind.alignment, tokens, words
        return AlignmentStep(*given, parts=self.parts, run_config=self.config)

    def trained(
        self, start: Step, parts: Parts, goal: ObjectiveKind, trains_bridge: bool = False, **more: Step
    ) -> Step:
        given = start, self.recipe(trains_bridge), goal, self.questions, self.labels, EN
        return TaskStep(*given, **more, parts=parts, run_config=self.config)

    def teacher(self) -> Step:
        return self.trained(self.untrained(self.llm), self.llm, ObjectiveKind.classification)

    def distilled(self, start: Step, trains_bridge: bool = False) -> Step:
        teacher = self.teacher()
        more = {"teacher": teacher, "vectors": self.vectors(teacher, self.llm)}
        return self.trained(start, self.parts, ObjectiveKind.distillation, trains_bridge, **more)

    def vectors(self, model: Step, parts: Parts) -> Step:
        return vectors_step(model, parts, self.questions, EN, 64)

    def recipe(self, trains_bridge: bool = True) -> TrainingSettings:
        more = {"trains_bridge": trains_bridge, "head_bias": self.head_bias}
        return TrainingSettings(self.train, epochs=1, max_steps=0, max_tokens=64, **more)

    def weights(self, step: Step) -> Weights:
        return load_file(self.store.realise(step) / SAVED)


def kinds(names: set[str]) -> set[str]:
    """`bridge.up_proj`, `classifier`, `lora_A`, `lora_B`."""
    return {
        next((part for part in name.split(".") if part.startswith("lora_")), name.removesuffix(".weight"))
        for name in names
    }


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> dict[str, Weights]:
    """All weights of the last training's model before and after it, and the trained ones."""
    found: dict[str, Weights] = {}
    load, export = TrainableStack.load, TrainableStack.export

    def copied(model: Any) -> Weights:
        return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def noted_load(trainable: TrainableStack, *arguments: Any) -> Any:
        model = load(trainable, *arguments)
        found["before"] = copied(model)
        found["learning"] = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        return model

    def noted_export(trainable: TrainableStack, engine: Any, out: Path) -> None:
        found["after"] = copied(engine.module.model)
        export(trainable, engine, out)

    monkeypatch.setattr(TrainableStack, "load", noted_load)
    monkeypatch.setattr(TrainableStack, "export", noted_export)
    return found


def changed(whole: Mapping[str, Weights]) -> set[str]:
    before, after = whole["before"], whole["after"]
    assert before.keys() == after.keys()
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def assert_changed(study: Study, step: Step, whole: dict[str, Weights], expected: set[str], parts: Any) -> None:
    """Both matrices of each adapter change; the export has the model's weights; the bases are those on disk."""
    study.store.realise(step)
    found = changed(whole)
    assert kinds(found) == expected
    assert found == whole["learning"].keys()
    adapters = {name for name in whole["after"] if ".lora_" in name}
    assert found >= adapters if "lora_B" in expected else not found & adapters
    stored, after = study.weights(step), whole["after"]
    assert stored.keys() >= found
    assert all(torch.equal(tensor, after[name]) for name, tensor in stored.items())
    inputs = {name: study.store.realise(given) / "model" for name, given in parts.inputs.items()}
    bases: dict[str, Any] = {}
    if parts.encoder:
        bases["encoder"] = load_encoder(inputs["encoder"], torch.float32)
    if parts.backbone:
        bases["llm"] = AutoModel.from_pretrained(inputs["backbone"])
    for part, base in bases.items():
        for name, tensor in base.state_dict().items():
            own = f"{part}.{name}"
            layer, _, kind = own.rpartition(".")
            assert torch.equal(after[own if own in after else f"{layer}.base_layer.{kind}"], tensor)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path, llm_dir: Path) -> Study:
    return Study(tmp_path_factory.mktemp("study"), encoder_dir, llm_dir)


@pytest.mark.parametrize("words", [True, False])
def test_alignment_trains_bridge_and_adapters(study: Study, whole: dict[str, Weights], words: bool):
    step = study.aligned(words)
    assert_changed(study, step, whole, {"bridge.up_proj", "lora_A", "lora_B"}, study.parts)
    config = read_json(study.store.realise(step) / "model/config.json")
    assert config["architectures"] == ["StackModel"]
    assert config["lora"] == {"rank": 4, "alpha": 32, "dropout": 0.0}


@pytest.mark.parametrize(("part", "trains_bridge"), [("llm", False), ("parts", False), ("parts", True)])
def test_classification_trains_head_and_adapters(
    study: Study, whole: dict[str, Weights], part: str, trains_bridge: bool
):
    """The teacher is the LLM alone."""
    parts = getattr(study, part)
    step = study.trained(study.untrained(parts), parts, ObjectiveKind.classification, trains_bridge)
    expected = {"classifier", "classifier.bias", "lora_A", "lora_B"} | ({"bridge.up_proj"} if trains_bridge else set())
    assert_changed(study, step, whole, expected, parts)


@pytest.mark.parametrize("start", ["aligned", "first"])
@pytest.mark.parametrize("trains_bridge", [True, False])
def test_distillation_trains_adapters_under_the_teachers_head(
    study: Study, whole: dict[str, Weights], trains_bridge: bool, start: str
):
    teacher = study.teacher()
    first = study.aligned() if start == "aligned" else study.first
    step = study.distilled(first, trains_bridge)
    for needed in step.inputs.values():
        study.store.realise(needed)
    whole.clear()
    expected = {"lora_A", "lora_B"} | ({"bridge.up_proj"} if trains_bridge else set())
    load_for_inference(study.store.realise(teacher) / "model", {"llm": study.llm_dir}, Precision.fp32)
    assert_changed(study, step, whole, expected, study.parts)
    assert not residency._held  # the teacher needs no memory while the stack trains
    ours, theirs, begun = (study.weights(its) for its in (step, teacher, first))
    assert all(torch.equal(ours[name], theirs[name]) for name in ("classifier.weight", "classifier.bias"))
    assert all(torch.equal(whole["before"][name], tensor) for name, tensor in begun.items())
    config = read_json(study.store.realise(step) / "model/config.json")
    assert list(config["id2label"].values()) == list(LABELS)
    assert config["architectures"] == ["StackForSequenceClassification"]


@pytest.mark.parametrize("who", ["stack", "llm"])
def test_generation_trains_adapters_under_the_llms_own_head(study: Study, whole: dict[str, Weights], who: str):
    stacked = who == "stack"
    start, parts = (study.aligned(), study.parts) if stacked else (study.untrained(study.llm), study.llm)
    step = study.trained(start, parts, ObjectiveKind.generation, trains_bridge=stacked)
    for needed in step.inputs.values():
        study.store.realise(needed)
    whole.clear()
    expected = {"lora_A", "lora_B"} | ({"bridge.up_proj"} if stacked else set())
    assert_changed(study, step, whole, expected, parts)
    model = AutoModelForCausalLM.from_pretrained(study.store.realise(step) / "model", dtype=torch.float32)
    assert list(model.config.id2label.values()) == list(LABELS)
    answers = answers_step(step, parts, rows_step(rows=labelled()), EN, 64)
    rows = read_rows(study.store.realise(answers) / "rows.jsonl")
    assert [row["id"] for row in rows] == [item["id"] for item in labelled()]
    assert [row["acc"] for row in rows] == [row["text"] == LABELS[row["gold"]] for row in rows]
    longest = max(len(label_ids(model.tokenizer, label)) for label in LABELS)
    assert [row["text"] for row in rows] == model.generate([item["segments"] for item in labelled()], "en", longest)


@pytest.mark.parametrize("choices", [0, 3])
def test_a_probe_trains_the_head_alone(
    tmp_path: Path, encoder_dir: Path, llm_dir: Path, whole: dict[str, Weights], choices: int
):
    study = Study(tmp_path, encoder_dir, llm_dir, choices)
    plain = study.untrained(study.encoder)
    step = study.trained(plain, study.encoder, ObjectiveKind.probe, vectors=study.vectors(plain, study.encoder))
    assert_changed(study, step, whole, {"classifier", "classifier.bias"}, study.encoder)
    assert study.weights(step).keys() == {"bridge.mean", "bridge.std", "classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("choices", [0, 3])
def test_an_encoder_alone_is_trained_with_adapters(
    tmp_path: Path, encoder_dir: Path, llm_dir: Path, whole: dict[str, Weights], choices: int
):
    study = Study(tmp_path, encoder_dir, llm_dir, choices)
    step = study.trained(study.untrained(study.encoder), study.encoder, ObjectiveKind.classification)
    assert_changed(study, step, whole, {"classifier", "classifier.bias", "lora_A", "lora_B"}, study.encoder)
    adapters = {name for name in study.weights(step) if ".lora_" in name}
    assert adapters
    assert all(name.startswith("encoder.") for name in adapters)
    answers = answers_step(step, study.encoder, rows_step(rows=labelled(choices)), EN, 64)
    log_probs = [row["log_probs"] for row in read_rows(study.store.realise(answers) / "rows.jsonl")]
    kind = AutoModelForMultipleChoice if choices else AutoModelForSequenceClassification
    model = kind.from_pretrained(study.store.realise(step) / "model", parts={"encoder": encoder_dir})
    assert {name: tensor for name, tensor in model.state_dict().items() if name in adapters}.keys() == adapters
    plain = kind.from_pretrained(
        study.store.realise(study.untrained(study.encoder)) / "model", parts={"encoder": encoder_dir}
    )
    text = [row["segments"] for row in labelled()]
    assert not torch.allclose(model.encode(text, "en"), plain.encode(text, "en"), atol=1e-3)
    assert len(log_probs) == 8


def test_heads_without_a_bias(tmp_path: Path, encoder_dir: Path, llm_dir: Path):
    study = Study(tmp_path, encoder_dir, llm_dir)
    with_bias = study.teacher().key
    study.head_bias = False
    teacher = study.teacher()
    assert teacher.key != with_bias
    step = study.distilled(study.first)
    theirs, ours = study.weights(teacher), study.weights(step)
    assert "classifier.bias" not in theirs.keys() | ours.keys()
    assert torch.equal(ours["classifier.weight"], theirs["classifier.weight"])
    parts = {"encoder": encoder_dir, "llm": llm_dir}
    model = AutoModelForSequenceClassification.from_pretrained(study.store.realise(step) / "model", parts=parts)
    assert model.classifier.bias is None


def test_an_llm_in_four_bits(tmp_path: Path, encoder_dir: Path, llm_dir: Path, whole: dict[str, Weights]):
    from bitsandbytes.nn import Linear4bit

    study = Study(tmp_path, encoder_dir, llm_dir)
    plain, alone = study.teacher().key, study.untrained(study.encoder).key
    study.quantised = True
    study.first = study.untrained(study.parts)
    assert study.untrained(study.encoder).key == alone
    assert study.teacher().key != plain
    step = study.distilled(study.aligned())
    study.store.realise(step)
    assert kinds(changed(whole)) == {"lora_A", "lora_B"}
    assert {tensor.dtype for tensor in study.weights(step).values()} == {torch.float32}
    parts = {"encoder": encoder_dir, "llm": llm_dir}
    model = AutoModelForSequenceClassification.from_pretrained(study.store.realise(step) / "model", parts=parts)
    ids = torch.tensor([[5, 6, 7, 8]])
    weight = next(weight for name, weight in model.named_parameters() if "layers.0" in name and "lora_B" in name)
    gradients = []
    for _ in range(2):  # the second time after a pass in eval mode
        model.train().zero_grad()
        weight.requires_grad_()
        model.hidden_states(ids).square().sum().backward()
        gradients.append(weight.grad.clone())
        model.eval()
        with torch.no_grad():
            model.hidden_states(ids)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)
    bases = [module.base_layer for name, module in model.llm.named_modules() if hasattr(module, "base_layer")]
    assert len(bases) == 14
    assert all(isinstance(base, Linear4bit) and base.weight.quant_state.quant_type == "nf4" for base in bases)
    answers = answers_step(step, study.parts, rows_step(rows=labelled()), EN, 64)
    assert len(read_rows(study.store.realise(answers) / "rows.jsonl")) == 8
    trainable = TrainableStack(study.store.realise(step) / "model", parts, ObjectiveKind.classification, LABELS)
    exact = Study(tmp_path, encoder_dir, llm_dir)
    theirs = TrainableStack(exact.store.realise(exact.first) / "model", parts, ObjectiveKind.classification, LABELS)
    rank = TrainConfig(lora_rank=4)
    costs = [its.cost(its.load(torch.float32, rank)) for its in (trainable, theirs)]
    assert costs[0] == costs[1]


def test_a_recipe_without_new_options_has_the_key_of_old_ones(study: Study):
    assert "head_bias" not in study.recipe().decides
    assert replace(study.recipe(), head_bias=False).decides["head_bias"] is False


def test_multiple_choice_is_distilled_by_choice(tmp_path: Path, encoder_dir: Path, llm_dir: Path):
    study = Study(tmp_path, encoder_dir, llm_dir, choices=3)
    step = study.distilled(study.first, trains_bridge=True)
    out = study.store.realise(step)
    assert study.weights(step)["classifier.weight"].shape == (1, 64)
    parts = {"encoder": encoder_dir, "llm": llm_dir}
    model = AutoModelForMultipleChoice.from_pretrained(out / "model", parts=parts)
    assert type(model).__name__ == "StackForMultipleChoice"
    assert study.store.manifest(step)["counts"]["examples"] == 8


def test_the_bridge_has_a_rate_of_its_own(encoder_dir: Path, llm_dir: Path, tmp_path: Path):
    tiny_stack(encoder_dir, llm_dir).save_pretrained(tmp_path)
    parts = {"encoder": encoder_dir, "llm": llm_dir}
    trainable = TrainableStack(tmp_path, parts, ObjectiveKind.classification, LABELS, 4.0)
    model = trainable.load(torch.float32, TrainConfig(lora_rank=4))
    rates = {name: trainable.rate(name) for name, weight in model.named_parameters() if weight.requires_grad}
    assert rates.pop("bridge.up_proj.weight") == 4.0
    assert {"classifier.weight", "classifier.bias"} <= rates.keys()
    assert set(rates.values()) == {1.0}
