"""One model in memory: who shares it, what makes it go, and that nothing of it stays."""

import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sdx import run
from sdx.config import Precision, TemplateKind
from sdx.evaluation import log_probs
from sdx.generation.hf import HFGenerator
from sdx.languages import language
from sdx.models import loading, residency
from sdx.models.backbone import load_model, loaded
from sdx.stacking import inference
from sdx.store.store import Store
from sdx.translation import transformers_runtime
from sdx.translation.seq2seq import Seq2Seq
from tests.kit.plain_step import PlainStep
from tests.kit.stack_steps import labelled
from tests.kit.tiny import tiny_encoder, tiny_model, tiny_nllb
from tests.kit.tiny_stack import tiny_stack

pytestmark = pytest.mark.whole

EN, TH = "eng_Latn", "tha_Thai"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    places = {"one": tiny_model(folder / "one"), "other": tiny_model(folder / "other", seed=1)}
    places["nllb"] = tiny_nllb(folder / "nllb")
    places["encoder"] = tiny_encoder(folder / "encoder", "xlm-roberta")
    tiny_stack(places["encoder"], places["one"]).save_pretrained(folder / "stack")
    return places | {"stack": folder / "stack"}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Directories of the LLMs that are loaded, as they are."""
    found: list[str] = []
    original = transformers.AutoModelForCausalLM.from_pretrained

    def noted(directory: Path, **options: Any) -> Any:
        found.append(str(directory))
        return original(directory, **options)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", noted)
    return found


def completing(place: Path) -> HFGenerator:
    generator = HFGenerator(4, Precision.fp32)
    generator.load(place, TemplateKind.auto)
    return generator


def score(place: Path) -> None:
    model = loaded(place, Precision.fp32).model
    log_probs.scored(model, [log_probs.question([4, 5, 6], [[7, 8]], 100)], 100)


def test_whoever_comes_next_frees_the_model_before_the_own_one_is_loaded(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    made: list[weakref.ref[Any]] = []
    there: list[int] = []

    def alive() -> int:
        return sum(one() is not None for one in made)

    def noting(load: Any) -> Any:
        def noted(*args: Any) -> Any:
            there.append(alive())
            model = load(*args)
            made.append(weakref.ref(model))
            return model

        return noted

    monkeypatch.setattr("sdx.models.backbone.load_model", noting(load_model))
    monkeypatch.setattr("sdx.translation.transformers_runtime.load_model", noting(transformers_runtime.load_model))
    monkeypatch.setattr("sdx.stacking.inference._load", noting(inference._load))
    translator = Seq2Seq(None, None, str(places["nllb"]), 4, Precision.fp32, 1)
    translator._model_dir = places["nllb"]
    shared = "The fox and the dog " * 20
    completing(places["one"]).complete([f"{shared}{end}" for end in ("a", "b")], 4, shared)  # keeps a prefix
    translator.translate_sentences(["A fox."], EN, TH)
    completing(places["other"]).complete(["A fox."], 4)
    stack = inference.load_for_inference(
        places["stack"], {"encoder": places["encoder"], "llm": places["one"]}, Precision.fp32
    )
    list(inference.pooled_batches(stack, labelled(), inference.encode_rows(stack, labelled(), language("th"), 64)))
    del stack
    score(places["one"])
    assert there == [0] * 5
    assert alive() == 1
    residency.release()
    assert alive() == 0


def test_completing_and_scoring_share_a_model_of_the_same_precision(places: dict[str, Path], loads: list[str]):
    generator = completing(places["one"])
    generator.complete(["A fox."], 4)
    score(places["one"])
    again = completing(places["one"])
    again.complete(["A dog."], 4)
    assert len(loads) == 1
    loaded(places["one"], Precision.bf16)
    assert len(loads) == 2


def test_each_training_of_a_run_finds_no_model_in_memory(places: dict[str, Path], tmp_path: Path):
    """Also one that is a step before the step that the run asks for."""
    seen: list[bool] = []

    def loading_one(_: Any) -> None:
        loaded(places["one"], Precision.fp32)

    def training(_: Any) -> None:
        seen.append(bool(residency._held))
        loading_one(_)

    generated = PlainStep("generate", loading_one)
    first = PlainStep("train", training, inputs={"mix": generated})
    answers = PlainStep("vectors", loading_one, inputs={"model": first})
    second = PlainStep("train", training, {"second": True}, inputs={"vectors": answers})
    run._realise(PlainStep("score", loading_one, inputs={"model": second}), Store(tmp_path), nullcontext)
    assert seen == [False, False]


def test_weights_go_straight_to_the_device(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    """The device without memory stands for a GPU."""
    monkeypatch.setattr(loading, "device", lambda: torch.device("meta"))
    assert load_model(places["one"], Precision.fp32).device.type == "meta"
    assert transformers_runtime.load_model(places["nllb"], Precision.fp32).device.type == "meta"


def test_a_stack_is_made_on_its_device(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    """Each of its parts is loaded while that is the device where tensors are made; nothing is moved afterwards."""
    from sdx.stacking import model as stack

    where: list[torch.device] = []
    parts = {"encoder": places["encoder"], "llm": places["one"]}

    def noted(load: Any) -> Any:
        def note(*args: Any, **named: Any) -> Any:
            where.append(torch.get_default_device())
            with torch.device("cpu"):
                return load(*args, **named)

        return note

    monkeypatch.setattr(stack, "load_encoder", noted(stack.load_encoder))
    monkeypatch.setattr(stack.StackModel, "load_llm", noted(stack.StackModel.load_llm))
    monkeypatch.setattr(loading, "device", lambda: torch.device("meta"))
    made = inference.load_for_inference(places["stack"], parts, Precision.fp32)
    assert where == [torch.device("meta")] * 2
    assert made.bridge.up_proj.weight.device.type == "meta"
