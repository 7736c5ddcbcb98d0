"""The first stack: what its bridge is fitted to, and what cannot be fitted."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, LlamaModel

from sdx import InputError
from sdx.models.loading import padded
from sdx.stacking import encoder_languages
from sdx.stacking.bridge import FIT, BridgeConfig, Projection, StackStep
from sdx.stacking.model import StackModel
from sdx.stacking.sequences import llm_tokenizer
from sdx.store.files import read_json
from sdx.store.store import Store
from tests.kit.plain_step import PlainStep
from tests.kit.stack_steps import RANDOM, SENTENCES, STEADY, parts_of, texts_step
from tests.kit.tiny import tiny_encoder, tiny_model


def made(tmp_path: Path, encoder: Path | None, llm: Path | None, bridge: BridgeConfig, **options: Any) -> Path:
    step = StackStep(
        texts_step(), bridge, False, False, 512, options.get("seed", 0), parts=parts_of(encoder, llm), languages=[]
    )
    return Store(tmp_path / "cache").realise(step)


def fit_of(out: Path) -> dict[str, Any]:
    return read_json(out / FIT)


def load(out: Path, encoder: Path | None, llm: Path | None) -> Any:
    parts = {name: path for name, path in (("encoder", encoder), ("llm", llm)) if path}
    return StackModel.from_pretrained(out / "model", parts=parts, dtype=torch.float32)


def states_of(model: Any) -> torch.Tensor:
    """Every token's state from the encoder, `[tokens, d]`."""
    encoded = model.sequence_tokenizer("en").encode([(text,) for text in SENTENCES], 64)
    ids, mask = padded([one.ids for one in encoded], model.pad_id).values()
    with torch.no_grad():
        states = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return states[mask.bool()]


def own_rows(llm_dir: Path) -> list[list[int]]:
    segments = llm_tokenizer(AutoTokenizer.from_pretrained(llm_dir))
    return [one.ids for one in segments.encode([(text,) for text in SENTENCES], 512)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("projection", list(Projection))
def test_the_bridge_speaks_in_the_llms_range(
    tmp_path: Path, encoder_dir: Path, llm_dir: Path, projection: Projection, bias: bool
):
    out = made(tmp_path, encoder_dir, llm_dir, replace(STEADY, projection=projection, bias=bias))
    model = load(out, encoder_dir, llm_dir)
    states = states_of(model)
    torch.testing.assert_close(model.bridge.mean, states.mean(0), atol=0.03, rtol=0.02)  # stored in bf16
    torch.testing.assert_close(model.bridge.std, states.std(0), atol=0.03, rtol=0.02)
    with torch.no_grad():
        outputs = model.bridge(states)
    embeddings = AutoModel.from_pretrained(llm_dir).get_input_embeddings().weight.detach()
    read = embeddings[torch.tensor([id_ for row in own_rows(llm_dir) for id_ in row])]
    shift = model.bridge.up_proj.bias * model.bridge.gain if bias else 0.0
    assert float((outputs - shift).std()) == pytest.approx(float(read.std()), rel=0.5)
    assert (model.bridge.up_proj.bias is not None) is bias
    assert float(((outputs - shift) / model.bridge.gain).std()) == pytest.approx(1, rel=0.05)
    figures = fit_of(out)
    assert (figures["r2"] > 0) is (projection is Projection.least_squares)
    assert model.trained_weights().keys() == load_file(out / "model/model.safetensors").keys()
    assert model.config.lora is None


def test_the_variances_are_those_of_the_plain_llm(tmp_path: Path, encoder_dir: Path, llm_dir: Path):
    figures = fit_of(made(tmp_path, encoder_dir, llm_dir, RANDOM))
    plain = AutoModel.from_pretrained(llm_dir)
    with torch.no_grad():
        states = [plain(torch.tensor([row])).last_hidden_state[0] for row in own_rows(llm_dir)]
    vectors = torch.stack([its.mean(0) for its in states])
    assert figures["variance_sequences"] == pytest.approx(float(vectors.var(0).mean()), rel=0.1)  # read in bf16
    assert figures["variance_words"] > figures["variance_sequences"]


def test_least_squares_finds_a_linear_map(tmp_path: Path):
    """The encoder ignores context; the LLM has the same tokens, and its embeddings are a linear map of the states."""
    encoder_dir, llm_dir = tiny_encoder(tmp_path / "encoder", "bert"), tmp_path / "llm"
    config = BertConfig.from_pretrained(encoder_dir, num_hidden_layers=0, hidden_dropout_prob=0.0)
    encoder = BertModel(config, add_pooling_layer=False).eval()
    encoder.embeddings.position_embeddings.weight.data.zero_()
    encoder.save_pretrained(encoder_dir)
    tiny_model(llm_dir)
    llm = LlamaModel.from_pretrained(llm_dir)
    llm.resize_token_embeddings(config.vocab_size)
    with torch.no_grad():
        states = encoder(torch.arange(config.vocab_size)[:, None]).last_hidden_state[:, 0]
        llm.embed_tokens.weight.copy_(states @ torch.randn(32, 64, generator=torch.Generator().manual_seed(0)))
    llm.save_pretrained(llm_dir)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(encoder_dir / name, llm_dir / name)
    found = fit_of(made(tmp_path, encoder_dir, llm_dir, STEADY))
    assert found["r2"] > 0.95
    other = fit_of(made(tmp_path, encoder_dir, tiny_model(tmp_path / "other"), STEADY))
    assert other["r2"] < 0.9 < found["r2"]
    assert fit_of(made(tmp_path, encoder_dir, llm_dir, RANDOM))["r2"] == 0


def test_states_as_they_are(tmp_path: Path, encoder_dir: Path, llm_dir: Path):
    out = made(tmp_path, encoder_dir, llm_dir, replace(RANDOM, standardise=False))
    model = load(out, encoder_dir, llm_dir)
    assert model.bridge.mean.abs().max() == 0
    assert torch.equal(model.bridge.std, torch.ones(32))
    with torch.no_grad():
        outputs = model.bridge(states_of(model))
    read = AutoModel.from_pretrained(llm_dir).get_input_embeddings().weight.std()
    assert float(outputs.std()) == pytest.approx(float(read), rel=0.3)


def test_the_start_token(tmp_path: Path, encoder_dir: Path, llm_dir: Path):
    """The LLM's own, if the encoder has a start token that it can replace."""
    own = AutoTokenizer.from_pretrained(llm_dir)
    assert own.bos_token_id is None
    for encoder, bridge, expected in (
        (encoder_dir, RANDOM, own.eos_token_id),
        (encoder_dir, replace(RANDOM, start_token=False), None),
        (tiny_encoder(tmp_path / "mt5", "mt5"), RANDOM, None),
    ):
        assert load(made(tmp_path, encoder, llm_dir, bridge), encoder, llm_dir).config.start_token == expected
    other = shutil.copytree(llm_dir, tmp_path / "other")
    settings = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**settings, "bos_token": "<s>"}))
    bos = AutoTokenizer.from_pretrained(other).bos_token_id
    assert load(made(tmp_path, encoder_dir, other, RANDOM), encoder_dir, other).config.start_token == bos
    assert bos not in (None, own.eos_token_id)


def test_the_seed_decides_a_random_bridge(tmp_path: Path, encoder_dir: Path, llm_dir: Path):
    weights = [
        load_file(made(tmp_path / str(n), encoder_dir, llm_dir, RANDOM, seed=seed) / "model/model.safetensors")
        for n, seed in enumerate((1, 1, 2))
    ]
    name = "bridge.up_proj.weight"
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])


def test_an_encoder_alone(tmp_path: Path, encoder_dir: Path):
    out = made(tmp_path, encoder_dir, None, STEADY)
    model = load(out, encoder_dir, None)
    assert fit_of(out) == {}
    states = states_of(model)
    assert float(model.bridge(states).mean(0).abs().max()) < 0.05
    torch.testing.assert_close(model.bridge(states).std(0), torch.ones(32), atol=0.05, rtol=0)


def test_an_llm_alone_reads_no_texts(tmp_path: Path, llm_dir: Path):
    def never(_work: Any) -> None:
        raise AssertionError

    step = StackStep(
        PlainStep("texts", never), STEADY, True, False, 512, 0, parts=parts_of(None, llm_dir), languages=[]
    )
    out = Store(tmp_path / "cache").realise(step)
    assert not (out / "fit.json").exists()
    assert read_json(out / "model/config.json")["bidirectional"] is True
    assert load(out, None, llm_dir).encode(["a"], "en").shape == (1, 64)


def test_a_tokenizer_without_characters(
    tmp_path: Path, encoder_dir: Path, llm_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    class Slow:
        """Has all that is used of such tokenizers."""

        is_fast = False

        def __init__(self, tokenizer: Any) -> None:
            self._tokenizer = tokenizer

        def __call__(self, *texts: Any, return_offsets_mapping: bool = False, **options: Any) -> Any:
            assert not return_offsets_mapping
            return self._tokenizer(*texts, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tokenizer, name)

    load_tokenizer = encoder_languages.load_tokenizer
    monkeypatch.setattr(encoder_languages, "load_tokenizer", lambda path: Slow(load_tokenizer(path)))
    with pytest.raises(InputError, match=r"projection=least_squares needs .* give method\.bridge\.projection=random"):
        made(tmp_path, encoder_dir, llm_dir, STEADY)
    figures = fit_of(made(tmp_path, encoder_dir, llm_dir, RANDOM))
    assert figures["variance_words"] == figures["variance_sequences"] > 0
