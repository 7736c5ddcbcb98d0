"""Adapters merged into a backbone: what comes out, what is refused, and which keys it has."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdx import InputError
from sdx.config import BackboneConfig
from sdx.models.backbone import backbone_step, check
from sdx.stacking import parts
from sdx.store.files import read_json
from sdx.store.store import Store
from tests.kit.tiny import tiny_model

pytestmark = pytest.mark.whole

COMMIT = "0123456789abcdef" * 2 + "01234567"
IDS = torch.tensor([[5, 17, 203, 42, 99]])


def adapter(base: Path, out: Path, seed: int, below_head: bool) -> Path:
    """Random LoRA on the causal LM, or on the model below its head, as LLM2Vec's."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel, AutoModelForCausalLM

    torch.manual_seed(seed)
    model = (AutoModel if below_head else AutoModelForCausalLM).from_pretrained(base)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    base = tiny_model(root / "base")
    one, other = adapter(base, root / "one", 1, True), adapter(base, root / "other", 2, False)
    return {"base": base, "one": one, "other": other}


def config(models: dict[str, Path], *names: str) -> BackboneConfig:
    return BackboneConfig(name="x", path=str(models["base"]), adapters=[str(models[name]) for name in names])


def logits(path: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(path)(IDS).logits


def test_they_are_merged_one_after_the_other(models: dict[str, Path], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    store, step = Store(tmp_path), backbone_step(config(models, "one", "other"))
    made = store.realise(step)
    model = AutoModelForCausalLM.from_pretrained(models["base"])
    PeftModel.from_pretrained(model.model, models["one"]).merge_and_unload()
    wanted = PeftModel.from_pretrained(model, models["other"])
    with torch.no_grad():
        torch.testing.assert_close(logits(made / "model"), wanted(IDS).logits, rtol=1e-4, atol=1e-4)
    assert (logits(made / "model") - logits(models["base"])).abs().max() > 0.1
    for name in ("one", "other"):
        alone = logits(store.realise(backbone_step(config(models, name))) / "model")
        assert (alone - logits(models["base"])).abs().max() > 0.01
        assert (alone - logits(made / "model")).abs().max() > 0.01
    theirs, ours = (AutoTokenizer.from_pretrained(path) for path in (models["base"], made / "model"))
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.chat_template == theirs.chat_template
    assert not list((made / "model").glob("adapter*"))
    source = read_json(made / "source.json")
    assert source == {"path": str(models["base"]), "adapters": [str(models[name]) for name in ("one", "other")]}


def test_a_saved_stack_finds_its_llm_again(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDX_CACHE", str(tmp_path))
    step = backbone_step(config(models, "one"))
    read = json.loads(json.dumps(parts.part_source(Store.shared().realise(step))))
    assert parts.part_directory("llm", read, None) == Store.shared().path(step) / "model"
    plain = parts.part_source(Store.shared().realise(backbone_step(config(models))))
    assert "adapters" not in plain


def test_each_decides_the_key(models: dict[str, Path], tmp_path: Path) -> None:
    plain = backbone_step(config(models))
    orders = [(), ("one",), ("other",), ("one", "other"), ("other", "one")]
    assert len({backbone_step(config(models, *names)).key for names in orders}) == len(orders)
    assert not plain.inputs
    hub = BackboneConfig(name="x", hub_id="a/b", revision=COMMIT, adapters=[f"c/d@{COMMIT}"])
    step = backbone_step(hub)
    assert step.inputs["adapter_1"].config == {"hub_id": "c/d", "revision": COMMIT}
    assert step.inputs["base"].key == backbone_step(replace(hub, adapters=[])).key


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("c/d", r"backbone\.adapters=\[c/d\] is no directory; give one, or owner/name@ and"),
        ("c/d@main", r"backbone\.adapters=\[c/d@main\] is no directory"),
        ("", r"backbone\.adapters=\[\] has no adapter_config\.json"),
        ("{base}", r"base\] has no adapter_config\.json; give a directory that PEFT's"),
        ("{pickled}", r"pickled\] has no adapter_model\.safetensors"),
    ],
)
def test_what_is_no_adapter_is_refused(given: str, message: str, models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["one"], tmp_path / "pickled")
    (tmp_path / "pickled/adapter_model.safetensors").rename(tmp_path / "pickled/adapter_model.bin")
    given = given.format(base=models["base"], pickled=tmp_path / "pickled")
    with pytest.raises(InputError, match=message):
        check(replace(config(models), adapters=[given]))


def test_adapters_of_another_model(models: dict[str, Path], tmp_path: Path) -> None:
    deep = tiny_model(tmp_path / "deep", num_hidden_layers=3)
    models = {**models, "strange": adapter(deep, tmp_path / "strange", 1, True)}
    with pytest.raises(InputError, match=r"has weights for layers\.2\.mlp\.down_proj, which the backbone does not"):
        Store(tmp_path / "cache").realise(backbone_step(config(models, "strange")))
    wide = tiny_model(tmp_path / "wide", hidden_size=32)
    models["wide"] = adapter(wide, tmp_path / "wider", 1, True)
    with pytest.raises(InputError, match=r"backbone\.adapters: .*wider does not fit the backbone"):
        Store(tmp_path / "cache").realise(backbone_step(config(models, "wide")))
    torn = tmp_path / "torn"
    shutil.copytree(models["one"], torn)
    weights = (torn / "adapter_model.safetensors").read_bytes()
    (torn / "adapter_model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match=r"torn does not fit the backbone \(.+\); copy it again"):
        Store(tmp_path / "cache").realise(backbone_step(replace(config(models), adapters=[str(torn)])))
