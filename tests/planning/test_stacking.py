"""MT-encoder stacking in a plan: rows, tokens, work of several models in one step."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

from sdx.config import EncoderConfig, MethodConfig, ShapeConfig, TextConfig, TrainConfig
from sdx.methods.mt_stack import MTStackConfig
from sdx.models.work import ModelWork
from sdx.planning.estimate import RunEstimates
from sdx.planning.graph import walk
from sdx.planning.hardware import Device, Machine
from sdx.planning.shapes import encoder_shape, longest_tokens, stacked
from sdx.planning.show import show
from sdx.planning.times import seconds
from sdx.stacking.answers import ClassifyStep
from sdx.stacking.bridge import BridgeConfig, StackStep
from sdx.stacking.parts import Goal, Parts
from sdx.stacking.texts import TextsStep
from sdx.stacking.tokens import TokensStep
from sdx.stacking.training import AlignmentStep, Recipe, TaskStep
from sdx.stacking.vectors import VectorsStep
from sdx.stacking.work import cut
from sdx.tasks.items import ReadItems
from sdx.tasks.reading import ReadTraining
from sdx.training.memory import Layout
from tests.kit.plan_steps import COMMIT, EN, TH, backbone, model

ENCODER = ShapeConfig(300_000_000, 12, 1024, 4096, 1024, 200_000)
BODY = 300_000_000 - 200_000 * 1024
RECIPE = Recipe(TrainConfig(batch_size=50, learning_rate=1e-5, validations=4), epochs=2, max_steps=0, max_tokens=100)


@pytest.fixture
def config(config):
    config.encoder = EncoderConfig(name="mine", parameters=300_000_000)
    config.text = TextConfig(name="fineweb", hub_id="a/b", revision=COMMIT)
    return config


@pytest.fixture
def estimates(config, store):
    def run(*steps):
        found = RunEstimates(config, store, config.backbone.shape, config, ENCODER)
        for node in walk(store, steps):
            found.add(node)
        return found.found

    return run


def encoder():
    return model("encoder", "facebook/nllb-200-distilled-600M")


def training(name="xnli", rows=1000, fields=("premise", "hypothesis", "answer"), labels=("a", "b")):
    task = SimpleNamespace(name=name, fields=fields, labels=labels, split_description={})
    return ReadTraining(task, EN, rows, {}, 100)


def learn(config, goal, start, rows, recipe=RECIPE, **more):
    task = rows, rows.task.labels, EN
    return TaskStep(start, recipe, Goal(goal), *task, parts=start.parts, run_config=config, **more)


def parts(*names):
    made = {"encoder": encoder, "backbone": backbone}
    return Parts(*(made[name]() if name in names else None for name in made))


def first(config, *names):
    texts = TextsStep(10_000, {}, source=config.text)
    return StackStep(texts, BridgeConfig(), False, False, 512, 1, parts=parts(*names), languages=())


def test_an_alignment_trains_on_the_encoders_tokens_and_its_teacher_reads_as_many(config, estimates):
    start = first(config, "encoder", "backbone")
    tokens = TokensStep(start.texts, 100, parts=start.parts)
    recipe = replace(RECIPE, epochs=1)
    aligned = AlignmentStep(start, recipe, Goal.alignment, tokens, False, parts=start.parts, run_config=config)
    found = estimates(aligned)
    each, trained = cut(670, 100), 10_000 - 256
    work = found[aligned.key].work
    assert found[aligned.key].rows == trained
    assert found[aligned.key].units == work.steps == 195
    assert work.trained == pytest.approx(trained * each)
    read = {}
    for one in work.also:
        for other in (one, *one.also):
            read[other.shape.parameters] = read.get(other.shape.parameters, 0) + other.read
    held_out = 4 * 256
    assert read[BODY] == pytest.approx((trained + held_out) * each)
    assert read[config.backbone.shape.parameters] == pytest.approx((trained + 2 * held_out) * each)
    assert found[tokens.key].work.seconds > 0
    assert found[start.key].work.read == pytest.approx(512 * cut(670, 512))


def test_a_task_is_read_by_the_parts_that_a_step_has(config, estimates):
    rows = training()
    teacher = learn(config, "classification", first(config, "backbone"), rows)
    stack = first(config, "encoder", "backbone")
    vectors = VectorsStep(teacher, 100, EN, rows, parts=parts("backbone"), task="xnli")
    taught = learn(config, "distillation", stack, rows, teacher=teacher, vectors=vectors)
    alone = first(config, "encoder")
    probe = learn(config, "probe", alone, rows, vectors=vectors)
    found = estimates(taught, probe)
    each = cut(40, 100)
    for one in (teacher, taught):
        assert found[one.key].tokens == pytest.approx(2 * 1000 * each)
        assert found[one.key].units == 40
        assert found[one.key].work.shape == config.backbone.shape
    assert [one.shape.parameters for one in found[teacher.key].work.also] == [config.backbone.shape.parameters]
    assert BODY in [one.shape.parameters for one in found[taught.key].work.also]
    assert found[vectors.key].work.read == pytest.approx(1100 * each)
    adapted = learn(config, "classification", alone, rows)
    work = estimates(adapted)[adapted.key].work
    assert (work.shape.parameters, work.trained) == (BODY, pytest.approx(2 * 1000 * cut(40, 100)))
    assert [one.shape.parameters for one in work.also] == [BODY]  # the validation
    assert found[probe.key].counts_as == ""
    assert 0 < found[probe.key].work.seconds < 1


def test_test_items_have_the_tokens_of_what_reads_them(config, estimates):
    model = learn(config, "classification", first(config, "backbone"), training())
    items = ReadItems(SimpleNamespace(name="xnli", description={}), TH, TH)
    own, encoded = (
        ClassifyStep(model, 10_000, TH, items, parts=parts(*names), task="xnli", tested=TH)
        for names in (("backbone",), ("encoder", "backbone"))
    )
    found = estimates(own, encoded)
    assert found[own.key].rows == 5010
    assert found[own.key].tokens == pytest.approx(5010 * 5.5 * 45, rel=1e-6)
    assert found[encoded.key].tokens == pytest.approx(5010 * 1.3 * 45, rel=1e-6)
    assert [found[one.key].work.loads for one in (own, encoded)] == [1, 0]


def test_choices_are_read_too(config, estimates):
    rows = training("belebele_mc", fields=("passage", "question", "answer"), labels=())
    model = learn(config, "classification", first(config, "backbone"), rows, replace(RECIPE, max_tokens=10_000))
    assert estimates(model)[model.key].tokens == pytest.approx(2 * 1000 * (250 + 14 + 4 * 8))


def test_an_encoder_is_known_by_its_files_or_its_name(config, store):
    nodes = partial(walk, store, [encoder()])
    assert encoder_shape(config, store, walk(store, [backbone()])) is None
    assert encoder_shape(config, store, nodes()) == ShapeConfig(300_000_000)
    config.encoder.name = "nllb_600m"
    assert encoder_shape(config, store, nodes()).parameters == 413_511_680
    assert stacked(config.backbone.shape, ENCODER).parameters == config.backbone.shape.parameters + 300_000_000
    assert stacked(config.backbone.shape, None) is config.backbone.shape


def test_other_models_add_their_time_and_in_training_share_the_ranks(config):
    llm = ShapeConfig(10**9, 10, 1000)
    device = Device("d", 1e12, 2e12, 1e12, 1e11, 0, 1e18, 16e9)
    also = ModelWork(shape=ENCODER, read=1000)
    forward = 2e12 / (2 * 3e8)  # tokens a second
    train, layout = config.train, Layout(micro_batch_tokens=10)
    for ranks in (1, 4):
        took = partial(seconds, machine=Machine(device, ranks), train=train, layout=layout)
        for work, share in ((ModelWork(shape=llm, trained=500), ranks), (ModelWork(shape=llm, read=500), 1)):
            more = took(replace(work, also=(also, also))) - took(work)
            assert more == pytest.approx(2 * 1000 / forward / share, rel=1e-3)
    assert took(ModelWork(shape=llm, read=1, also=(ModelWork(shape=ShapeConfig(), read=1),))) is None


def test_a_plan_counts_the_memory_of_both_models_and_names_what_is_streamed(config, store, monkeypatch, no_hub, capsys):
    monkeypatch.setattr("sdx.planning.show.visible_gpu", lambda: None)
    config.method = MTStackConfig(_target_="", name="mt_stack")
    config.scale.max_length_tokens = 128
    assert longest_tokens(config) == 512
    assert longest_tokens(replace(config, method=MethodConfig(_target_="", name="sft"))) == 128
    found = show(config, store, [learn(config, "distillation", first(config, "encoder", "backbone"), training())])
    weights = found["memory"][0, False, 1][0].weights
    assert weights == 2 * (config.backbone.shape.parameters + 300_000_000)
    printed = capsys.readouterr().out
    assert "hub a/b @ 00000000" in printed
    assert "to stream" in printed
    assert [source.download_bytes for source in found["sources"] if source.name == "encoder"] == [2.5e9]
