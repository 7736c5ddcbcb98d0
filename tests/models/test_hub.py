"""Models of the hub and of directories: what is fetched, what is refused, what the key depends on."""

import os
import time
from pathlib import Path

import pytest

from sdx import InputError
from sdx.models.hub import PYTORCH, SAFETENSORS, DirectoryStep, available, check_model, has_weights, model_step
from sdx.models.weights import OLD_PICKLE
from sdx.options.source import Source
from sdx.store.files import read_json, write_json
from sdx.store.store import Store

REVISION = "0123456789abcdef" * 2 + "01234567"
SOURCE = Source(hub_id="someone/model", revision=REVISION)
BOTH = (SAFETENSORS, PYTORCH)
CONTENT = {
    "config.json": b'{"model_type": "m2m_100"}',
    "tokenizer.json": b'{"model": {}}',
    "model.safetensors": (2).to_bytes(8, "little") + b"{}",
    "pytorch_model.bin": OLD_PICKLE,
}
"""As much as tells a model from something else."""


class Hub:
    """Stands for `snapshot_download`: lays the matching files of one repository into the cache directory."""

    def __init__(self, cache: Path, *files: str) -> None:
        self.cache, self.files = cache, files
        self.asked: list[list[str]] = []

    def __call__(self, repo: str, revision: str, **options: object) -> str:
        assert (repo, revision) == ("someone/model", REVISION)
        patterns = options["allow_patterns"]
        assert isinstance(patterns, list)
        self.asked.append(patterns)
        self.cache.mkdir(exist_ok=True)
        for name in self.files:
            if any(Path(name).match(pattern) for pattern in patterns):
                (self.cache / name).write_bytes(CONTENT.get(name, b"{}"))
        return str(self.cache)


def realise(cache: Path, weights: tuple[str, ...] = BOTH) -> Path:
    return Store(cache).realise(model_step(SOURCE, "translator", weights, "take another"))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub, which tests do not reach, says that it has the commit."""
    monkeypatch.setattr("sdx.models.hub.HubModel.probe", lambda _: None)


@pytest.mark.usefixtures("answers")
def test_weights_are_fetched_in_one_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    old = Hub(tmp_path / "old", "config.json", "tokenizer.json", "pytorch_model.bin", "optimizer.bin")
    monkeypatch.setattr("huggingface_hub.snapshot_download", old)
    out = realise(tmp_path / "cache")
    assert {path.name for path in (out / "model").iterdir()} == {"config.json", "tokenizer.json", "pytorch_model.bin"}
    assert read_json(out / "source.json") == {"hub_id": "someone/model", "revision": REVISION}

    new = Hub(tmp_path / "new", "config.json", "model.safetensors", "pytorch_model.bin")
    monkeypatch.setattr("huggingface_hub.snapshot_download", new)
    out = realise(tmp_path / "other")
    assert {path.name for path in (out / "model").iterdir()} == {"config.json", "model.safetensors"}
    assert len(new.asked) == 1


@pytest.mark.usefixtures("answers")
def test_a_repository_without_the_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub(tmp_path / "hub", "config.json", "model.gguf"))
    with pytest.raises(InputError, match=r"translator\.hub_id=someone/model .*no safetensors or bin.*translator\.path"):
        realise(tmp_path / "cache")


def test_all_parts_that_the_index_names_must_be_there(tmp_path: Path):
    parts = [f"pytorch_model-0000{part}-of-00002.bin" for part in (1, 2)]
    write_json(tmp_path / "pytorch_model.bin.index.json", {"weight_map": {"a": parts[0], "b": parts[1], "c": parts[0]}})
    assert not has_weights(tmp_path, PYTORCH)
    (tmp_path / parts[0]).touch()
    assert not has_weights(tmp_path, PYTORCH)
    (tmp_path / parts[1]).touch()
    assert has_weights(tmp_path, PYTORCH)
    assert not has_weights(tmp_path, SAFETENSORS)


def test_an_unreachable_hub_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """The real client, asked for something that the cache lacks."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(InputError) as error:
        realise(tmp_path / "cache")
    message = str(error.value)
    for part in ("translator.hub_id=someone/model", REVISION, "HF_HUB_OFFLINE", "take another"):
        assert part in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


def test_the_key_of_a_directory_follows_its_files(tmp_path: Path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    key = DirectoryStep(tmp_path, name="translator").key
    assert DirectoryStep(tmp_path, name="translator").key == key
    assert DirectoryStep(tmp_path, name="encoder").key != key
    later = time.time_ns() + 1
    os.utime(tmp_path / "model.safetensors", ns=(later, later))
    assert DirectoryStep(tmp_path, name="translator").key != key


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"hub_id": "someone/model", "revision": "main"},
            r"revision=main does not pin translator\.hub_id=someone/model",
        ),
        ({"hub_id": "someone/model"}, "40 hexadecimal digits"),
        ({"path": "/no/such/place"}, r"translator\.path=/no/such/place has no config\.json"),
    ],
)
def test_sources_that_cannot_work(source: dict[str, str], message: str):
    with pytest.raises(InputError, match=message):
        check_model(Source(**source), "translator")


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """An empty cache and a hub that never answers; the fixture is a function that replaces its answer."""
    available.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def answer(function: object) -> None:
        monkeypatch.setattr("sdx.models.hub.HubModel.probe", function)

    answer(lambda _: time.sleep(30))
    yield answer
    available.cache_clear()


def test_a_hub_that_hangs_is_not_waited_for(network):
    began = time.monotonic()
    assert not available("someone/model", REVISION, answer_s=0.2)
    assert time.monotonic() - began < 5


def test_a_hub_that_answers_or_fails(network):
    def fails(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    network(fails)
    assert not available("someone/model", REVISION)
    available.cache_clear()
    network(lambda _: None)
    assert available("someone/model", REVISION)


def test_a_cached_snapshot_is_available_without_a_network(network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    snapshot = tmp_path / "hub" / "models--someone--model" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert not available("someone/model", REVISION)
    available.cache_clear()
    (snapshot / "pytorch_model.bin").touch()
    assert available("someone/model", REVISION)


def test_a_torn_snapshot_in_the_cache_is_found_before_the_run(network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub" / "models--someone--model"
    snapshot = folder / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (snapshot / name).write_bytes(CONTENT[name])
    tried: list[Path] = []
    step = model_step(SOURCE, "backbone", (SAFETENSORS,), "", lambda path, *_: tried.append(path))
    step.check()
    assert tried == [snapshot]
    (snapshot / "model.safetensors").write_bytes(CONTENT["model.safetensors"][:-1])
    with pytest.raises(InputError) as error:
        step.check()
    for part in (f"backbone.hub_id=someone/model at {REVISION}: model.safetensors", f"remove {folder} and run again"):
        assert part in str(error.value)
    with pytest.raises(InputError, match="and run again"):
        Store(tmp_path / "cache").realise(step)
