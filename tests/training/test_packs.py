"""Which models train on packs, and that the others train right without."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    MambaConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from sdx.process.ranks import rank
from sdx.training import attention, engine
from sdx.training.attention import packed_attention
from tests.kit.processes import Processes
from tests.kit.tiny import VOCABULARY, tiny_tokenizer
from tests.kit.training import examples, fit, losses, rows_of

SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.2}
HEADS = {"intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}


@pytest.mark.parametrize(("config", "words"), [
    (Qwen3Config(**SHAPE, **HEADS), "attention by example"),
    (GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2), "attention by example"),
    (Gemma2Config(**SHAPE, **HEADS), "padded rows: the model does not support packs: masks, soft-capped"),
    (BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.2), "padded rows"),
    (MambaConfig(**SHAPE, state_size=4), "padded rows"),
], ids=["qwen3", "gpt2", "gemma2", "bloom", "mamba"])  # fmt: skip
def test_trains_as_with_one_example_at_a_time(
    config: PreTrainedConfig, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    torch.manual_seed(0)
    config.eos_token_id = config.bos_token_id = config.pad_token_id = 3
    config.dtype = "float32"
    for rate in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        if hasattr(config, rate):
            setattr(config, rate, 0.0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    caplog.set_level(logging.INFO, "sdx")
    together, _ = fit(tmp_path / "model", tmp_path / "together", micro_batch_tokens=80, epochs=1)
    assert words in next(line for line in caplog.messages if line.startswith("packing"))
    alone, _ = fit(tmp_path / "model", tmp_path / "alone", micro_batch_tokens=1, epochs=1)
    assert len(examples()) > 8  # two steps
    for name, weight in together.items():
        torch.testing.assert_close(weight, alone[name], rtol=0, atol=5e-5, msg=lambda m, n=name: f"{n}: {m}")


class FailsOnce:
    """Variable-length attention that the device has, but that does not run."""

    def __init__(self) -> None:
        self.ways: list[bool] = []

    def prepare(self, device: torch.device, varlen: bool = True) -> bool:
        self.ways.append(varlen)
        return varlen

    def packed_attention(self, *given: Any, **more: Any) -> Any:
        if self.ways[-1]:
            raise RuntimeError("no kernel image is available")
        return packed_attention(*given, **more)


def test_where_variable_length_attention_does_not_run_packs_go_example_by_example(
    model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    device = FailsOnce()
    monkeypatch.setattr(attention, "prepare", device.prepare)
    AttentionInterface.register(attention.PACKED, device.packed_attention)
    try:
        caplog.set_level(logging.INFO, "sdx")
        fit(model_dir, tmp_path, epochs=1)
    finally:
        AttentionInterface.register(attention.PACKED, packed_attention)
    assert device.ways == [True, False]
    said = [line for line in caplog.messages if line.startswith("packing")]
    assert "no variable-length attention: the model does not support packs: no kernel image" in said[0]
    assert said[1].endswith("attention by example")


def on_two_ranks(model_dir: Path, out: Path) -> None:
    """Rank 1 cannot take packs."""
    if rank() == 1:
        engine._obstacle = lambda *_: "no reason"
    fit(model_dir, out, epochs=1, zero_stage=1)


def test_ranks_agree_on_packs(model_dir: Path, tmp_path: Path):
    processes = Processes(tmp_path / "log", on_two_ranks, model_dir, tmp_path / "run", ranks=2)
    assert processes.end() == [0, 0], processes.log.read_text()
    fit(model_dir, tmp_path / "plain", epochs=1)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    assert rows_of(tmp_path / "run")[0]["padding_share"] > 0
