"""Backbones: what is refused before anything loads, what decides the key."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sdx import InputError
from sdx.config import BackboneConfig, Precision, TemplateKind
from sdx.models.backbone import backbone_step, check, load_model, load_tokenizer
from sdx.models.template import encode_example, prompt_text, stop_ids
from sdx.store.files import read_json
from sdx.store.step import Step
from sdx.store.store import Store
from tests.kit.tiny import tiny_model

REVISION = "0123456789abcdef" * 2 + "01234567"
HUB = BackboneConfig(name="hub", hub_id="someone/model", revision=REVISION)
CONF = Path(__file__).parents[2] / "conf" / "backbone"


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "base", chat=False)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BackboneConfig(name="x"), "exactly one of .*not none of them"),
        (replace(HUB, asset="smollm2_135m"), r"backbone\.asset=smollm2_135m and backbone\.hub_id=someone/model"),
        (BackboneConfig(name="x", asset="smollm3"), "smollm3 is unknown; choose one of smollm2_135m"),
        (BackboneConfig(name="x", asset="olmo_eval"), "olmo_eval is unknown"),
        (replace(HUB, revision="main"), r"backbone\.revision=main .*40 hexadecimal"),
        (replace(HUB, revision=None), r"backbone\.revision=None .*40 hexadecimal"),
        (BackboneConfig(name="x", asset="smollm2_135m", revision=REVISION), "belongs to backbone.hub_id"),
        (
            BackboneConfig(name="x", path="/no/such/model"),
            r"backbone\.path=/no/such/model has no config\.json",
        ),
    ],
)
def test_check_names_key_value_and_fix(config: BackboneConfig, message: str):
    with pytest.raises(InputError, match=message):
        check(config)
    with pytest.raises(InputError, match=message):
        backbone_step(config)


def test_nothing_heavy_is_imported():
    modules = ["generation.hf", "generation.step", "models.backbone", "models.template", "offline.assets"]
    code = "import sys, " + ", ".join(f"sdx.{name}" for name in modules)
    code += "; print({'torch', 'transformers', 'tokenizers', 'gguf', 'huggingface_hub'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_backbone_in_conf_can_be_planned(base: Path):
    from omegaconf import OmegaConf

    names = sorted(path.stem for path in CONF.glob("*.yaml"))
    assert {"smollm2_135m", "gemma3_270m", "llama2_7b", "path"} <= set(names)
    for name in names:
        yaml = OmegaConf.load(CONF / f"{name}.yaml")
        assert yaml.pop("defaults") == ["schema", "_self_"]
        assert not OmegaConf.missing_keys(yaml)
        if name == "path":
            yaml["path"] = str(base)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(BackboneConfig), yaml))
        assert config.name == name
        backbone_step(config)


def test_path_is_linked_and_keyed_by_its_files(base: Path, tmp_path: Path):
    store = Store(tmp_path)
    config = BackboneConfig(name="mine", path=str(base))
    step = backbone_step(config)
    out = store.realise(step)
    assert (out / "model" / "config.json").is_file()
    assert (out / "model").resolve() == base.resolve()
    assert read_json(out / "source.json") == {"path": str(base)}
    assert backbone_step(replace(config, name="other", template=TemplateKind.instruction)).key == step.key
    weights = base / "model.safetensors"
    times = weights.stat()
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert backbone_step(config).key != step.key


def test_a_link_into_the_void_says_what_to_remove(tmp_path: Path, base: Path):
    moved = tiny_model(tmp_path / "model")
    out = Store(tmp_path / "cache").realise(backbone_step(BackboneConfig(name="x", path=str(moved))))
    moved.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"is gone; remove {out}"):
        load_tokenizer(out / "model", TemplateKind.auto)
    with pytest.raises(InputError, match=f"is gone; remove {out}"):
        load_model(out / "model", Precision.fp32)


def test_hub_snapshot_is_linked(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = {}

    def snapshot_download(repo: str, **options: object) -> str:
        asked.update(options, repo=repo)
        return str(base)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    out = Store(tmp_path).realise(backbone_step(HUB))
    assert (out / "model" / "model.safetensors").is_file()
    assert (asked["repo"], asked["revision"]) == (HUB.hub_id, HUB.revision)
    assert read_json(out / "source.json") == {"hub_id": HUB.hub_id, "revision": HUB.revision}


def test_hub_without_safetensors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "snapshot").mkdir()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path / "snapshot"))
    monkeypatch.setattr("sdx.models.hub.HubModel.probe", lambda _: None)
    with pytest.raises(InputError, match=r"backbone\.hub_id=someone/model .*no safetensors"):
        Store(tmp_path / "cache").realise(backbone_step(HUB))


def test_an_unreachable_hub_is_one_error_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object, **__: object) -> str:
        raise OSError("no route to host\nand much more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    monkeypatch.setattr("sdx.models.hub.HubModel.probe", lambda _: None)
    with pytest.raises(InputError) as error:
        Store(tmp_path).realise(backbone_step(HUB))
    message = str(error.value)
    for part in (
        "backbone.hub_id=someone/model",
        "no route to host",
        "hub does not answer",
        "backbone.path",
        "smollm2_135m",
    ):
        assert part in message
    assert "\n" not in message


def test_load_model(chat: Path):
    import torch

    model = load_model(chat, Precision.bf16)
    assert model.dtype is torch.bfloat16
    assert not model.training
    assert load_model(chat, Precision.fp32).dtype is torch.float32


def test_load_tokenizer_and_what_it_saves(chat: Path, base: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    assert (
        load_tokenizer(chat, TemplateKind.auto).chat_template == load_tokenizer(chat, TemplateKind.chat).chat_template
    )
    with pytest.raises(InputError, match=r"backbone\.template=chat"):
        load_tokenizer(base, TemplateKind.chat)
    for source, kind in ((chat, TemplateKind.instruction), (base, TemplateKind.auto)):
        tokenizer = load_tokenizer(source, kind)
        assert "### Instruction:\nHow?" in prompt_text(tokenizer, "How?")
        assert tokenizer.pad_token_id not in stop_ids(tokenizer)
        tokenizer.save_pretrained(tmp_path / source.name)
        again = AutoTokenizer.from_pretrained(tmp_path / source.name)
        assert again.pad_token == tokenizer.pad_token
        assert encode_example(again, "How?", "Four.") == encode_example(tokenizer, "How?", "Four.")


def test_tokenizer_without_eos_is_refused(chat: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no EOS token"):
        load_tokenizer(tmp_path, TemplateKind.auto)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bos", "eos", "pad", "vocabulary"),
    [
        ("smollm2_135m", "<|im_start|>", "<|im_end|>", "<|endoftext|>", 49152),
        ("gemma3_270m", "<bos>", "<eos>", "<pad>", 262144),
    ],
)
def test_packaged_backbones(tmp_path: Path, name: str, bos: str, eos: str, pad: str, vocabulary: int):
    import torch
    from transformers import AutoModelForCausalLM

    store = Store(tmp_path)
    step = backbone_step(BackboneConfig(name=name, asset=name))
    out = store.realise(step)
    tokenizer = load_tokenizer(out / "model", TemplateKind.auto)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (bos, eos, pad)
    assert len(tokenizer) == vocabulary
    text = "The 3 cats: três gatos, แมวสามตัว.  \n\n\tEnd"
    ids = tokenizer(text).input_ids
    adds_bos = name == "gemma3_270m"
    assert (ids[0] == tokenizer.bos_token_id) == adds_bos
    assert tokenizer.decode(ids[adds_bos:]) == text
    assert prompt_text(tokenizer, "Hi").count(bos) == (1 if adds_bos else 3)

    model = load_model(out / "model", Precision.bf16)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    asset: Step = step.inputs["asset"]
    [gguf] = store.path(asset).rglob("*.gguf")
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    with torch.inference_mode():
        batch = torch.tensor([ids * 30])  # longer than Gemma's window of 512
        assert torch.equal(model(batch).logits, read.eval()(batch).logits)
    if name == "gemma3_270m":
        assert model.config.sliding_window == 512
        assert model.config.layer_types.count("full_attention") == 3
        assert float(model.get_input_embeddings().embed_scale) == 25.25  # sqrt(640) in bf16
        sentence = torch.tensor([tokenizer("A capital de Portugal é Lisboa, uma cidade antiga.").input_ids])
        with torch.inference_mode():
            with_bos = model(sentence).logits[0, 1:-1]
            without = model(sentence[:, 1:]).logits[0, :-1]
        losses = [torch.nn.functional.cross_entropy(logits.float(), sentence[0, 2:]) for logits in (with_bos, without)]
        assert losses[0] + 2 < losses[1]
