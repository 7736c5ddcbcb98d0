"""Encoders: what is refused before anything loads, what decides the key, that an encoder equals the whole model's."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sdx import InputError
from sdx.config import EncoderConfig
from sdx.stacking.encoder import (
    check,
    context_tokens,
    encoder_step,
    has_character_offsets,
    hidden_size,
    load_encoder,
    load_tokenizer,
)
from sdx.store.files import read_json, write_json
from sdx.store.store import Store
from tests.kit.tiny import ENCODER_TEMPLATES, LINES, tiny_encoder, tiny_nllb

REVISION = "0123456789abcdef" * 2 + "01234567"
HUB = EncoderConfig(name="hub", hub_id="someone/model", revision=REVISION)
ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf" / "encoder"
KINDS = ("nllb", *ENCODER_TEMPLATES)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return {"nllb": tiny_nllb(folder / "nllb")} | {kind: tiny_encoder(folder / kind, kind) for kind in KINDS[1:]}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EncoderConfig(name="x"), "exactly one of .*not none of them; .*encoder=path encoder.path=/its/directory"),
        (replace(HUB, asset="e5_small"), r"encoder\.asset=e5_small and encoder\.hub_id=someone/model"),
        (EncoderConfig(name="x", asset="e5_large"), r"encoder\.asset=e5_large is unknown; choose one of e5_small"),
        (EncoderConfig(name="x", asset="smollm2_135m"), "smollm2_135m is unknown"),
        (replace(HUB, revision="main"), r"encoder\.revision=main .*40 hexadecimal"),
        (EncoderConfig(name="x", asset="e5_small", revision=REVISION), "belongs to encoder.hub_id"),
        (EncoderConfig(name="x", path="/no/such/model"), r"encoder\.path=/no/such/model has no config\.json"),
    ],
)
def test_check_names_key_value_and_fix(config: EncoderConfig, message: str):
    for refuses in (check, encoder_step):
        with pytest.raises(InputError, match=message):
            refuses(config)


def test_check_looks_into_the_directory(tmp_path: Path):
    path = tiny_encoder(tmp_path / "model", "bert")
    config = EncoderConfig(name="mine", path=str(path))
    check(config)
    (path / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=rf"encoder\.path={path} has no tokenizer"):
        check(config)
    (tmp_path / "tokenizer.json").rename(path / "tokenizer.json")
    (path / "config.json").write_text('{"model_type": "pegasus", "is_encoder_decoder": true}')
    with pytest.raises(InputError, match=r"encoder\.path=.* type pegasus; .*m2m_100"):
        check(config)
    (path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"encoder\.path=.* has no weights"):
        check(config)


def test_nothing_heavy_is_imported():
    code = "import sys, sdx.stacking.encoder, sdx.stacking.encoder_languages, sdx.offline.e5"
    code += "; print({'torch', 'transformers', 'tokenizers', 'numpy', 'huggingface_hub'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_encoder_in_conf_can_be_planned(models: dict[str, Path]):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from sdx.cli.main import register

    register()
    names = sorted(path.stem for path in CONF.glob("*.yaml"))
    assert names == ["e5_small", "nllb_1b", "nllb_3b", "nllb_600m", "opus_mt", "path"]
    with initialize_config_dir(str(CONF.parent), version_base="1.3"):
        for name in names:
            path = [f"encoder.path={models['bert']}"] if name == "path" else []
            config = OmegaConf.to_object(compose("config", [f"encoder={name}", "method=sft", *path]).encoder)
            assert config.name == name
            step = encoder_step(config)
            assert step.name == "encoder"


def test_the_pinned_nllb_are_those_of_the_translators():
    from omegaconf import OmegaConf

    for name in ("nllb_600m", "nllb_1b", "nllb_3b"):
        encoder, translator = (OmegaConf.load(folder / f"{name}.yaml") for folder in (CONF, CONF.parent / "translator"))
        assert (encoder.hub_id, encoder.revision) == (translator.hub_id, translator.revision)


def test_an_unknown_encoder_is_one_line(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "sdx", "encoder=nonsense", f"runs_dir={tmp_path}", f"cache_dir={tmp_path}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("sdx: encoder=nonsense is unknown")
    assert "e5_small" in line


def test_path_is_linked_and_keyed_by_its_files(tmp_path: Path):
    path = tiny_encoder(tmp_path / "mine", "bert")
    config = EncoderConfig(name="mine", path=str(path))
    step = encoder_step(config)
    out = Store(tmp_path / "cache").realise(step)
    assert (out / "model").resolve() == path.resolve()
    assert read_json(out / "source.json") == {"path": str(path)}
    assert encoder_step(replace(config, name="other", prefix="query: ")).key == step.key
    os.utime(path / "model.safetensors", ns=(0, 1))
    assert encoder_step(config).key != step.key


def test_hub_takes_safetensors_else_pytorch(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def snapshot_download(repo: str, **options: object) -> str:
        asked.append(options.get("allow_patterns"))
        return str(models["marian"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    out = Store(tmp_path).realise(encoder_step(replace(HUB, hub_id="someone/marian")))
    assert (out / "model" / "model.safetensors").is_file()
    assert read_json(out / "source.json") == {"hub_id": "someone/marian", "revision": REVISION}
    patterns = asked[-1]
    assert "*.safetensors" in patterns
    assert "*.spm" in patterns  # Marian's vocabulary


def test_an_unreachable_hub_is_one_error_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    with pytest.raises(InputError, match=r"encoder\.hub_id=someone/gone .*encoder=path encoder\.path=/its/directory"):
        Store(tmp_path).realise(encoder_step(replace(HUB, hub_id="someone/gone")))


@pytest.mark.parametrize("weights", ["safetensors", "bin"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_gives_the_states_of_the_whole_model(
    models: dict[str, Path], tmp_path: Path, kind: str, weights: str
):
    """Also from an old checkpoint, which repeats shared weights and carries Marian's table of positions."""
    import torch
    from transformers import AutoModel

    whole = AutoModel.from_pretrained(models[kind])
    path = models[kind]
    if weights == "bin":
        path = tmp_path
        whole.config.save_pretrained(path)
        torch.save(
            {f"model.{name}" if kind == "marian" else name: v for name, v in whole.state_dict().items()},
            path / "pytorch_model.bin",
        )
    encoder = load_encoder(path, torch.float32)
    assert not encoder.training
    assert encoder.dtype is torch.float32
    assert not any(part in name for name, _ in encoder.named_modules() for part in ("decoder", "pooler"))
    ids = torch.tensor([[0, 20, 30, 40, 2], [0, 35, 2, 1, 1]])  # [batch, seq]
    mask = (ids != 1).long()
    reference = whole.get_encoder() if whole.config.is_encoder_decoder else whole
    with torch.no_grad():
        states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state
        alone = encoder(input_ids=ids[1:, :3], attention_mask=mask[1:, :3]).last_hidden_state
    assert torch.equal(states, expected)
    assert states.shape[-1] == hidden_size(path)
    torch.testing.assert_close(states[1:, :3], alone, atol=1e-5, rtol=1e-5)  # padding changes nothing
    assert load_encoder(path, torch.bfloat16).dtype is torch.bfloat16


ZERO3 = """
import sys
from pathlib import Path
import torch, deepspeed
from transformers.integrations import HfDeepSpeedConfig
from sdx.stacking.encoder import load_encoder
deepspeed.init_distributed("gloo")
ids = torch.tensor([[0, 20, 30, 40, 2]])
mask = torch.ones_like(ids)
expected = [load_encoder(Path(path), torch.float32)(ids, mask).last_hidden_state for path in sys.argv[1:]]
alive = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
for path, states in zip(sys.argv[1:], expected):
    encoder = load_encoder(Path(path), torch.float32)
    weights = list(encoder.parameters())
    assert all(weight.numel() == 0 for weight in weights)
    with deepspeed.zero.GatheredParameters(weights):
        assert torch.equal(encoder(ids, mask).last_hidden_state, states)
print("sharded")
"""


@pytest.mark.whole
def test_zero3_shards_while_loading(models: dict[str, Path], tmp_path: Path):
    import torch
    from transformers import AutoModel

    old = AutoModel.from_pretrained(models["marian"])  # transformers fails on its table of positions
    old.config.save_pretrained(tmp_path)
    torch.save(old.state_dict(), tmp_path / "pytorch_model.bin")
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    done = subprocess.run(
        [sys.executable, "-c", ZERO3, *map(str, (*models.values(), tmp_path))],
        env={**os.environ, **here, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip().endswith("sharded"), done.stderr[-2000:]


@pytest.mark.parametrize("kind", ["nllb", "bert", "marian"])
def test_missing_weights_are_an_error(tmp_path: Path, kind: str):
    import torch
    from safetensors.torch import load_file, save_file

    path = tiny_nllb(tmp_path) if kind == "nllb" else tiny_encoder(tmp_path, kind)
    state = load_file(path / "model.safetensors")
    [gone] = [name for name in state if name.endswith("layers.1.fc1.weight") and "encoder" in name] or [
        "encoder.layer.1.output.dense.weight"
    ]
    del state[gone]
    save_file(state, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=rf"{path} lacks 1 weights, such as .*1\."):
        load_encoder(path, torch.float32)
    (path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="get its files again"):
        load_encoder(path, torch.float32)


def test_context(models: dict[str, Path]):
    found = {kind: context_tokens(path) for kind, path in models.items()}
    assert found["xlm-roberta"] == 64  # of 66 positions
    assert (found["bert"], found["marian"], found["mt5"], found["nllb"]) == (64, 64, None, 1024)


@pytest.mark.parametrize(
    ("config", "width"), [({"n_embd": 96}, 96), ({"hidden_size": 8, "text_config": {"hidden_size": 640}}, 640)]
)
def test_widths_by_other_names(tmp_path: Path, config: dict[str, object], width: int):
    """GPT-2's, and a multimodal model's."""
    write_json(tmp_path / "config.json", config)
    assert hidden_size(tmp_path) == width


def test_an_unknown_width_is_one_line(tmp_path: Path):
    write_json(tmp_path / "config.json", {"model_type": "strange"})
    with pytest.raises(InputError, match="none of hidden_size, d_model, n_embd, dim"):
        hidden_size(tmp_path)


def test_which_tokenizers_tell_characters(models: dict[str, Path], tmp_path: Path):
    assert has_character_offsets(HUB)
    assert not has_character_offsets(replace(HUB, characters=False))
    assert all(has_character_offsets(EncoderConfig(name="path", path=str(path))) for path in models.values())
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "MarianTokenizer"})
    assert not has_character_offsets(EncoderConfig(name="path", path=str(tmp_path)))


@pytest.fixture
def opus(tmp_path: Path) -> Path:
    """As OPUS-MT comes: its tokenizer in two SentencePiece files and a vocabulary."""
    import sentencepiece

    path = tiny_encoder(tmp_path / "opus", "marian")
    size = json.loads((path / "config.json").read_text())["vocab_size"]
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (path / name).unlink(missing_ok=True)
    texts, options = iter(LINES * 5), {"vocab_size": 100, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=texts, model_prefix=str(path / "source"), **options)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path / "source.model"))
    tokens = ["</s>", "<unk>", *(pieces.id_to_piece(id_) for id_ in range(3, len(pieces))), "<pad>"]
    write_json(path / "vocab.json", {token: id_ for id_, token in enumerate(tokens)})
    assert len(tokens) <= size
    (path / "source.vocab").unlink()
    (path / "source.model").rename(path / "source.spm")
    shutil.copy(path / "source.spm", path / "target.spm")
    write_json(path / "tokenizer_config.json", {"tokenizer_class": "MarianTokenizer"})
    return path


def test_a_tokenizer_of_sentencepiece(opus: Path):
    encoder_step(EncoderConfig(name="path", path=str(opus))).check()
    tokenizer = load_tokenizer(opus)
    assert tokenizer.convert_ids_to_tokens(tokenizer("dog")["input_ids"])[-1] == "</s>"


def test_a_tokenizer_without_its_package_is_found_first(opus: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sdx.models.directory.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"encoder\.path=.* tokenizer in \w+\.spm; pip install sentencepiece"):
        check(EncoderConfig(name="path", path=str(opus)))
