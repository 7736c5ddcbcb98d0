"""Whether sources are available, before anything is fetched, and why not. The hub is a mock; the client is real."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdx import InputError
from sdx.config import ParallelConfig, TextConfig
from sdx.data.parallel import parallel_step
from sdx.languages import language
from sdx.models.hub import SAFETENSORS, HubModel, model_step
from sdx.options.source import FileSource, Source
from sdx.sources import hub as hub_source
from sdx.sources.files import file_step
from sdx.sources.hub import Cause, HubFile, check_available, find_unavailable
from sdx.stacking.english_texts import HubTexts, texts_step
from sdx.store.hub_source import HubSource
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
    monkeypatch.setattr(hub_source, "RETRY_PAUSES_S", (0.0, 0.0))
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
def test_what_the_hub_has_is_asked_for_and_not_fetched(hub: MockHub, source: HubSource):
    assert find_unavailable([source]) == []
    assert hub.requests
    assert not hub.fetched()


@pytest.mark.parametrize(
    ("source", "cause", "parts"),
    [
        (data("some/set", "data/de.jsonl"), Cause.missing, ["there are data/", "data/th.jsonl", "corpus.file=..."]),
        (data("some/set", "data/de.jsonl"), Cause.missing, ["corpus.revision=...", "offline, give a copy"]),
        (data("some/set", "x/y/z.jsonl"), Cause.missing, ["there are ", "README.md", "data"]),
        (data("some/set", "data/th.jsonl", OTHER), Cause.missing, ["no such commit", "corpus.revision=..."]),
        (data("some/none"), Cause.missing, ["no dataset some/none", "private", "corpus.hub_id"]),
        (data("some/gated"), Cause.gated, ["accept its licence at", "/datasets/some/gated", "HF_TOKEN"]),
        (data("some/forbidden"), Cause.gated, ["may not be read", "HF_TOKEN"]),
        (data("some/busy"), Cause.busy, ["the hub is busy (status 503)"]),
        (data("some/gone"), Cause.failed, ["cannot be fetched", "410"]),
        (model("some/gated"), Cause.gated, ["accept its licence at", "/some/gated", "HF_TOKEN"]),
        (model("some/gguf"), Cause.missing, ["no safetensors", "backbone.path"]),
        (model("some/files"), Cause.missing, ["no config.json", "backbone.path"]),
        (model("some/none"), Cause.missing, ["no model some/none", "backbone.hub_id"]),
        (model("some/model", OTHER), Cause.missing, ["no such commit", "backbone.revision=..."]),
        (texts("some/gated"), Cause.gated, ["accept its licence at", "/datasets/some/gated"]),
        (texts("some/none"), Cause.missing, ["no dataset some/none", "text.hub_id"]),
        (texts("some/set", OTHER), Cause.missing, ["no such commit", "text.revision=..."]),
    ],
)
def test_an_error_says_what_the_hub_answered(hub: MockHub, source: HubSource, cause: Cause, parts: list[str]):
    [error] = find_unavailable([source])
    assert error.cause is cause, error
    message = str(error)
    for part in (f"{source.group}.hub_id={source.hub_id}", source.revision, *parts):
        assert part in message
    assert ("licence" in message) == ("licence" in " ".join(parts)), "mentioned only if the hub refuses access"
    assert ("does not answer" in message) == (cause is Cause.unreachable)
    assert "\n" not in message
    assert len(message) < 900
    assert not hub.fetched()


def test_a_pair_that_a_corpus_lacks_names_those_that_it_has(hub: MockHub, tmp_path: Path):
    config = ParallelConfig("opus", hub_id="some/pairs", revision=REVISION, file="{pair}/train-00000-of-00001.parquet")
    step = parallel_step(config, language("fr"), language("th"), 10)
    with pytest.raises(InputError, match=r"parallel\.file=fr-th/train.* is not there; there are (.*); give") as error:
        Store(tmp_path / "cache").realise(step)
    assert all(pair in str(error.value) for pair in PAIRS)


def test_of_many_other_files_a_message_names_as_many_as_a_line_holds(hub: MockHub):
    hub.repositories["datasets/some/set"].files |= {f"data/{n:04}.jsonl": b"" for n in range(1500)}
    [error] = find_unavailable([data("some/set", "data/0777.json")])
    assert "there are data/0777.jsonl, " in str(error)
    assert " more; " in str(error)
    assert len(str(error)) < 900


def test_one_message_names_all_that_are_unavailable(hub: MockHub):
    sources = [data("some/set", "data/th.jsonl"), *(data("some/gated", f"{n}.jsonl") for n in range(20)), model("a/b")]
    found = find_unavailable([*sources, *sources])
    assert [error.source for error in found] == sources[1:]
    with pytest.raises(InputError) as raised:
        check_available([*sources, *sources])
    message = str(raised.value)
    assert message.startswith(str(found[0]))
    assert "1.jsonl (gated)" in message
    assert ", 20 in all" in message
    assert len(message) < 900


def hangs(self: HubSource) -> None:
    time.sleep(30)


@pytest.mark.parametrize("how", ["nobody listens", "no answer", "offline", "no such name"])
def test_an_unreachable_hub_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]
):
    address = "http://hub.invalid" if how == "no such name" else "http://127.0.0.1:9"
    point_at(monkeypatch, address, tmp_path / "empty")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", how == "offline")
    monkeypatch.setattr(hub_source, "PATIENCE_S", 0.2 if how == "no answer" else 20)
    if how == "no answer":
        monkeypatch.setattr(HubFile, "probe", hangs)
    began = time.monotonic()
    found = find_unavailable([data("some/set", f"{n}.jsonl") for n in range(100)])
    assert time.monotonic() - began < 5
    assert [error.cause for error in found] == [Cause.unreachable] * 100
    assert len({error.detail for error in found}) == 1
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
    assert find_unavailable([data("some/busy")]) == []


@pytest.mark.parametrize("name", ["a/b/c", "a b/c", "https://hub/a/b", "../a", "a/", ""])
def test_values_that_name_no_repository_are_refused(name: str):
    with pytest.raises(InputError, match=r"names no repository|exactly one of"):
        Source(hub_id=name, revision=REVISION).check("corpus")


def test_steps_know_what_they_fetch():
    source = FileSource(hub_id="some/set", revision=REVISION, file="{language}.jsonl")
    file = file_step("corpus", source, {"language": "th"})
    assert file.hub == HubFile("corpus", "some/set", REVISION, file.hub.alternative if file.hub else "", "th.jsonl")
    assert isinstance(texts_step(TextConfig("x", hub_id="a/b", revision=REVISION), 9).hub, HubTexts)
    assert isinstance(model_step(Source(hub_id="a/b", revision=REVISION), "encoder", (SAFETENSORS,), "").hub, HubModel)
