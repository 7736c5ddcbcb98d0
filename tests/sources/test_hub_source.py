"""What the hub is asked before anything is fetched, and what is said of it. The hub is a mock; the client is real."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdx import InputError
from sdx.config import ParallelConfig, TextConfig
from sdx.data.parallel import parallel_step
from sdx.languages import language
from sdx.models.hub import SAFETENSORS, HubModel, model_step
from sdx.options.source import Source
from sdx.sources import hub as hub_source
from sdx.sources.files import file_step
from sdx.sources.hub import HubFile, HubSource, State, refusals, refused
from sdx.stacking.texts import HubTexts, texts_step
from sdx.store.store import Store
from tests.kit.mock_hub import REVISION, MockHub, Repository, point_at, serving

pytestmark = pytest.mark.whole

PAIRS = ("af-en", "en-fr", "en-th", "en-zu")
OTHER = "f" * 40


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MockHub]:
    weights = {"config.json": b"{}", "model.safetensors": b""}
    repositories = {
        "datasets/some/set": Repository({"data/th.jsonl": b'{"a": 1}\n', "data/sw.jsonl": b"", "README.md": b""}),
        "datasets/some/pairs": Repository({f"{pair}/train-00000-of-00001.parquet": b"" for pair in PAIRS}),
        "datasets/some/gated": Repository({"a.jsonl": b""}, gated=True),
        "datasets/some/forbidden": Repository({"a.jsonl": b""}, status=403),
        "datasets/some/busy": Repository({"a.jsonl": b""}, status=503),
        "datasets/some/gone": Repository({"a.jsonl": b""}, status=410),
        "models/some/model": Repository(weights),
        "models/some/gated": Repository(weights, gated=True),
        "models/some/gguf": Repository({"config.json": b"{}", "model.gguf": b""}),
        "models/some/files": Repository({"data.bin": b""}),
    }
    monkeypatch.setattr(hub_source, "AGAIN_S", (0.0, 0.0))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with serving(MockHub(repositories)) as mock:
        point_at(monkeypatch, mock.address, tmp_path / "hub")
        yield mock


def data(name: str, file: str = "a.jsonl", revision: str = REVISION) -> HubFile:
    return HubFile("corpus", name, revision, "offline, give a copy", file)


def model(name: str, revision: str = REVISION) -> HubModel:
    return HubModel("backbone", name, revision, "offline, give a copy", (SAFETENSORS,))


def texts(name: str, revision: str = REVISION) -> HubTexts:
    return HubTexts("text", name, revision, "offline, take text=offline")


@pytest.mark.parametrize("source", [data("some/set", "data/th.jsonl"), model("some/model"), texts("some/set")])
def test_what_is_there_is_asked_for_and_not_fetched(hub: MockHub, source: HubSource):
    assert refusals([source]) == []
    assert hub.requests
    assert not hub.fetched()


@pytest.mark.parametrize(
    ("source", "state", "parts"),
    [
        (data("some/set", "data/de.jsonl"), State.missing, ["there are data/", "data/th.jsonl", "corpus.file=..."]),
        (data("some/set", "data/de.jsonl"), State.missing, ["corpus.revision=...", "offline, give a copy"]),
        (data("some/set", "x/y/z.jsonl"), State.missing, ["there are ", "README.md", "data"]),
        (data("some/set", "data/th.jsonl", OTHER), State.missing, ["no such commit", "corpus.revision=..."]),
        (data("some/none"), State.missing, ["no dataset some/none", "private", "corpus.hub_id"]),
        (data("some/gated"), State.gated, ["accept its licence at", "/datasets/some/gated", "HF_TOKEN"]),
        (data("some/forbidden"), State.gated, ["may not be read", "HF_TOKEN"]),
        (data("some/busy"), State.silent, ["the hub does not answer (status 503)"]),
        (data("some/gone"), State.broken, ["cannot be fetched", "410"]),
        (model("some/gated"), State.gated, ["accept its licence at", "/some/gated", "HF_TOKEN"]),
        (model("some/gguf"), State.missing, ["no safetensors", "backbone.path"]),
        (model("some/files"), State.missing, ["no config.json", "backbone.path"]),
        (model("some/none"), State.missing, ["no model some/none", "backbone.hub_id"]),
        (model("some/model", OTHER), State.missing, ["no such commit", "backbone.revision=..."]),
        (texts("some/gated"), State.gated, ["accept its licence at", "/datasets/some/gated"]),
        (texts("some/none"), State.missing, ["no dataset some/none", "text.hub_id"]),
        (texts("some/set", OTHER), State.missing, ["no such commit", "text.revision=..."]),
    ],
)
def test_a_refusal_says_what_the_hub_said(hub: MockHub, source: HubSource, state: State, parts: list[str]):
    [refusal] = refusals([source])
    assert refusal.state is state, refusal
    message = refusal.message
    for part in (f"{source.group}.hub_id={source.hub_id}", source.revision, *parts):
        assert part in message
    assert ("licence" in message) == ("licence" in " ".join(parts)), "asked for where the hub refuses access only"
    assert ("does not answer" in message) == (state is State.silent)
    assert "\n" not in message
    assert len(message) < 900
    assert not hub.fetched()


def test_a_pair_that_a_corpus_lacks_names_those_that_it_has(hub: MockHub, tmp_path: Path):
    config = ParallelConfig("opus", hub_id="some/pairs", revision=REVISION, file="{pair}/train-00000-of-00001.parquet")
    step = parallel_step(config, language("fr"), language("th"), 10)
    with pytest.raises(InputError, match=r"parallel\.file=fr-th/train.* is not there; there are (.*); give") as error:
        Store(tmp_path / "cache").realise(step)
    assert all(pair in str(error.value) for pair in PAIRS)


def test_of_many_files_that_are_there_as_many_are_named_as_a_line_holds(hub: MockHub):
    hub.repositories["datasets/some/set"].files |= {f"data/{n:04}.jsonl": b"" for n in range(1500)}
    [refusal] = refusals([data("some/set", "data/0777.json")])
    assert "there are data/0777.jsonl, " in refusal.message
    assert " more; " in refusal.message
    assert len(refusal.message) < 900


def test_all_are_asked_for_and_told_of_together(hub: MockHub):
    sources = [data("some/set", "data/th.jsonl"), *(data("some/gated", f"{n}.jsonl") for n in range(20)), model("a/b")]
    found = refusals([*sources, *sources])
    assert [refusal.source for refusal in found] == sources[1:]
    message = str(refused(found))
    assert message.startswith(found[0].message)
    assert "1.jsonl (gated)" in message
    assert ": 20 in all" in message
    assert len(message) < 900


def hangs(self: HubSource) -> None:
    time.sleep(30)


@pytest.mark.parametrize("how", ["nobody listens", "no answer", "offline", "no such name"])
def test_a_hub_out_of_reach_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]
):
    address = "http://hub.invalid" if how == "no such name" else "http://127.0.0.1:9"
    point_at(monkeypatch, address, tmp_path / "empty")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", how == "offline")
    monkeypatch.setattr(hub_source, "PATIENCE_S", 0.2 if how == "no answer" else 20)
    if how == "no answer":
        monkeypatch.setattr(HubFile, "ask", hangs)
    began = time.monotonic()
    found = refusals([data("some/set", f"{n}.jsonl") for n in range(100)])
    assert time.monotonic() - began < 5
    assert [refusal.state for refusal in found] == [State.silent] * 100
    assert len({refusal.said for refusal in found}) == 1
    with pytest.raises(InputError, match="hub does not answer"):
        Store(tmp_path / "cache").realise(
            model_step(Source(hub_id="some/model", revision=REVISION), "backbone", (SAFETENSORS,), "take another")
        )
    assert capfd.readouterr() == ("", "")


def test_a_busy_hub_is_asked_again(hub: MockHub, monkeypatch: pytest.MonkeyPatch):
    repository = hub.repositories["datasets/some/busy"]

    def pause(_: float) -> None:
        repository.status = 0

    monkeypatch.setattr("sdx.sources.hub.time.sleep", pause)
    assert refusals([data("some/busy")]) == []


@pytest.mark.parametrize("name", ["a/b/c", "a b/c", "https://hub/a/b", "../a", "a/", ""])
def test_what_names_no_repository(name: str):
    with pytest.raises(InputError, match=r"names no repository|exactly one of"):
        Source(hub_id=name, revision=REVISION).check("corpus")


def test_steps_know_what_they_fetch():
    file = file_step("corpus", None, "some/set", REVISION, "{language}.jsonl", {"language": "th"})
    assert file.hub == HubFile("corpus", "some/set", REVISION, file.hub.instead if file.hub else "", "th.jsonl")
    assert isinstance(texts_step(TextConfig("x", hub_id="a/b", revision=REVISION), 9).hub, HubTexts)
    assert isinstance(model_step(Source(hub_id="a/b", revision=REVISION), "encoder", (SAFETENSORS,), "").hub, HubModel)
