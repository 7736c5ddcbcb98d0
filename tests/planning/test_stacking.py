"""MT-encoder stacking in a plan: rows, tokens, work of several models in one step."""

from dataclasses import replace
from functools import partial

import pytest

from sdx.config import EncoderConfig, MethodConfig, ShapeConfig, TextConfig
from sdx.methods.mt_stack import MTStackConfig
from sdx.planning.estimate import Estimator
from sdx.planning.graph import walk
from sdx.planning.hardware import Device, Machine
from sdx.planning.show import show
from sdx.planning.stacking import cut, encoder_shape, longest_tokens, stacked
from sdx.planning.times import Work, seconds
from sdx.training.memory import Layout
from tests.kit.plan_steps import backbone, step

ENCODER = ShapeConfig(300_000_000, 12, 1024, 4096, 1024, 200_000)
BODY = 300_000_000 - 200_000 * 1024
OPTIONS = {"epochs": 2, "max_steps": 0, "max_tokens": 100, "train": {"batch_size": 50, "validations": 4}}


@pytest.fixture
def config(config):
    config.encoder = EncoderConfig(name="mine", parameters=300_000_000)
    config.text = TextConfig(name="fineweb", hub_id="a/b", revision="0" * 40)
    return config


@pytest.fixture
def estimates(config, store):
    def run(*steps):
        estimator = Estimator(config, store, config.backbone.shape, ENCODER)
        for node in walk(store, steps):
            estimator.add(node)
        return estimator.found

    return run


def encoder():
    return step("encoder", {"hub_id": "facebook/nllb-200-distilled-600M", "revision": "0" * 40})


def training(task="xnli", rows=1000, **more):
    fields = ["premise", "hypothesis", "answer"]
    given = {"task": task, "language": "eng_Latn", "rows": rows, "fields": fields, "labels": ["a", "b"]}
    return step("training", {**given, "validation_rows": 100, **more})


def learn(goal, start, rows, parts, **more):
    config = {"goal": goal, "language": "eng_Latn", "labels": ["a", "b"], **OPTIONS}
    return step("train", config, {"stack": start, "training": rows, **parts, **more})


def parts(*names):
    return {name: {"encoder": encoder, "backbone": backbone}[name]() for name in names}


def first(*names):
    texts = step("texts", {"rows": 10_000, "hub_id": "a/b", "revision": "0" * 40})
    return step(
        "stack",
        {"max_tokens": 512} if "encoder" in names else {},
        {**parts(*names), **({"texts": texts} if "encoder" in names else {})},
    )


def test_an_alignment_trains_on_the_encoders_tokens_and_its_teacher_reads_as_many(config, estimates):
    start = first("encoder", "backbone")
    texts = start.inputs["texts"]
    tokens = step("tokens", {"max_tokens": 100}, {"texts": texts, **parts("encoder", "backbone")})
    given = {"goal": "alignment", **OPTIONS, "epochs": 1}
    aligned = step("train", given, {"stack": start, "tokens": tokens, **parts("encoder", "backbone")})
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
    teacher = learn("classification", first("backbone"), rows, parts("backbone"))
    stack = first("encoder", "backbone")
    vectors = step(
        "vectors",
        {"language": "eng_Latn", "max_tokens": 100},
        {"model": teacher, "training": rows, **parts("backbone")},
    )
    taught = learn("distillation", stack, rows, parts("encoder", "backbone"), teacher=teacher, vectors=vectors)
    alone = first("encoder")
    probe = learn("probe", alone, rows, parts("encoder"), vectors=vectors)
    found = estimates(taught, probe)
    each = cut(40, 100)
    for one in (teacher, taught):
        assert found[one.key].tokens == pytest.approx(2 * 1000 * each)
        assert found[one.key].units == 40
        assert found[one.key].work.shape == config.backbone.shape
    assert [one.shape.parameters for one in found[teacher.key].work.also] == [config.backbone.shape.parameters]
    assert BODY in [one.shape.parameters for one in found[taught.key].work.also]
    assert found[vectors.key].work.read == pytest.approx(1100 * each)
    adapted = learn("classification", alone, rows, parts("encoder"))
    work = estimates(adapted)[adapted.key].work
    assert (work.shape.parameters, work.trained) == (BODY, pytest.approx(2 * 1000 * cut(40, 100)))
    assert [one.shape.parameters for one in work.also] == [BODY]  # the validation
    assert found[probe.key].work.trained == 0
    assert 0 < found[probe.key].work.seconds < 1


def test_test_items_have_the_tokens_of_what_reads_them(config, estimates):
    model = learn("classification", first("backbone"), training(), parts("backbone"))
    items = step("read", {"task": "xnli", "language": "tha_Thai", "limit": 0})
    given = {"language": "tha_Thai", "max_tokens": 10_000}
    own = step("classify", given, {"model": model, "items": items, **parts("backbone")})
    encoded = step("classify", given, {"model": model, "items": items, **parts("encoder", "backbone")})
    found = estimates(own, encoded)
    assert found[own.key].rows == 5010
    assert found[own.key].tokens == pytest.approx(5010 * 5.5 * 45, rel=1e-6)
    assert found[encoded.key].tokens == pytest.approx(5010 * 1.3 * 45, rel=1e-6)


def test_choices_are_read_too(estimates):
    fields = ["passage", "question", "answer"]
    rows = training("belebele_mc", fields=fields, labels=[])
    model = learn("classification", first("backbone"), rows, parts("backbone"))
    model.config["max_tokens"] = 10_000
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
    also = Work(ENCODER, read=1000)
    forward = 2e12 / (2 * 3e8)  # tokens a second
    train, layout = config.train, Layout(micro_batch_tokens=10)
    for ranks in (1, 4):
        took = partial(seconds, machine=Machine(device, ranks), train=train, layout=layout)
        for work, share in ((Work(llm, trained=500), ranks), (Work(llm, read=500), 1)):
            more = took(replace(work, also=(also, also))) - took(work)
            assert more == pytest.approx(2 * 1000 / forward / share, rel=1e-3)
    assert took(Work(llm, read=1, also=(Work(ShapeConfig(), read=1),))) is None


def test_a_plan_counts_the_memory_of_both_models_and_names_what_is_streamed(config, store, monkeypatch, capsys):
    monkeypatch.setattr("sdx.planning.show.visible_gpu", lambda: None)
    config.method = MTStackConfig(_target_="", name="mt_stack")
    config.scale.max_length_tokens = 128
    assert longest_tokens(config) == 512
    assert longest_tokens(replace(config, method=MethodConfig(_target_="", name="sft"))) == 128
    found = show(
        config, store, [learn("distillation", first("encoder", "backbone"), training(), parts("encoder", "backbone"))]
    )
    weights = found["memory"][0, False, 1][0].weights
    assert weights == 2 * (config.backbone.shape.parameters + 300_000_000)
    printed = capsys.readouterr().out
    assert "hub a/b @ 00000000" in printed
    assert "to stream" in printed
    assert [source.download_bytes for source in found["sources"] if source.name == "encoder"] == [2.5e9]
