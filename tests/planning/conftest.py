import pytest

from sdx.config import (
    BackboneConfig,
    Config,
    CorpusConfig,
    DictionaryConfig,
    EngineConfig,
    GeneratorConfig,
    LangConfig,
    MethodConfig,
    ParallelConfig,
    Precision,
    ScaleConfig,
    ShapeConfig,
    TrainConfig,
    TranslatorConfig,
)
from sdx.store.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


@pytest.fixture
def config(tmp_path):
    """A run English to Thai with LLaMA-2-7B, of which nothing is there."""
    return Config(
        method=MethodConfig(_target_="", name="sdrrl"),
        backbone=BackboneConfig(
            name="llama2",
            hub_id="meta-llama/Llama-2-7b-hf",
            revision="0" * 40,
            shape=ShapeConfig(6_738_415_616, 32, 4096, 11008, 4096, 32000),
        ),
        lang=LangConfig(targets={"th": "tha_Thai"}),
        translator=TranslatorConfig(_target_="", name="nllb_600m"),
        generator=GeneratorConfig(_target_="", batch_size=10, precision=Precision.bf16),
        corpus=CorpusConfig(name="alpaca", hub_id="tatsu-lab/alpaca", revision="0" * 40, file="a.parquet", rows=1100),
        parallel=ParallelConfig(name="pairs", hub_id="someone/pairs", revision="0" * 40, file="b.tsv"),
        dictionary=DictionaryConfig(name="none"),
        engine=EngineConfig(name="zero3", zero_stage=3, precision=Precision.bf16),
        scale=ScaleConfig(name="s", heldout_rows=100, max_new_tokens=200, max_length_tokens=10_000, epochs=2),
        train=TrainConfig(batch_size=100, learning_rate=1e-5),
        cache_dir=str(tmp_path / "cache"),
    )


@pytest.fixture
def no_hub(monkeypatch):
    """Nothing asks the hub, which would have everything."""
    monkeypatch.setattr("sdx.planning.show.find_unavailable", lambda wanted: [])
    monkeypatch.setattr("sdx.models.hub.HubModel.cached", lambda self: False)
