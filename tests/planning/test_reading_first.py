"""Data are read before anything is computed, by every method; and the hub is asked before anything is fetched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdx import InputError
from sdx.methods.base import RunPlan
from sdx.planning import sources as planned
from sdx.planning.graph import walk
from sdx.planning.reading import first, only_reads
from sdx.planning.show import show
from sdx.run import prepare, run
from sdx.sources import hub as hub_source
from sdx.store.step import Step
from sdx.store.store import Store
from tests.kit.configs import composed, resolved
from tests.kit.mock_hub import REVISION, MockHub, Repository, point_at, serving
from tests.kit.plain_step import PlainStep
from tests.kit.plan_steps import step
from tests.kit.task_files import read_files

METHODS = ("none", "sft", "translate_sft", "sdrrl", "self_translate_train", "mt_stack")
XNLI = (
    "train.path={}/mnli.parquet",
    "validation.path={}/xnli.valid.parquet",
    "test.path='{}/xnli.{{language}}.parquet'",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return read_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(autouse=True)
def no_nllb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdx.translation.auto.available", lambda *_: False)  # whatever this machine has


def work(tmp_path: Path, *overrides: str) -> RunPlan:
    config = composed(*overrides, "plan=true", f"cache_dir={tmp_path / 'cache'}")
    return prepare(resolved(config), tmp_path / "run")


def as_made(store: Store, steps: list[Step]) -> list[Step]:
    """Each once, inputs first."""
    return [node.step for node in walk(store, steps)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", ["packaged", "local", "hub"])
def test_every_method_reads_first(tmp_path: Path, files: Path, method: str, task: str):
    given = {
        "packaged": (),
        "local": ("task=xnli", *(f"task.xnli.{path.format(files)}" for path in XNLI)),
        "hub": ("task=nusax", "parallel=udhr"),
    }[task]
    store, lang = Store(tmp_path / "cache"), "[jv,su]" if task == "hub" else "[th,de]"
    if method == "self_translate_train":
        given = (*given, "translator=self")
    elif method in ("sdrrl", "translate_sft"):
        given = (*given, "translator=self", "translator@mt=nllb_600m")
    ordered = work(tmp_path, f"method={method}", f"lang={lang}", *given).ordered(store)
    made = as_made(store, [*first(store, ordered), *ordered])
    assert {one.key for one in made} == {one.key for one in as_made(store, ordered)}
    reads = [only_reads(one) for one in made]
    assert any(reads)
    computed = [not read and not one.brings_model for one, read in zip(made, reads, strict=True)]
    begins = computed.index(True) if True in computed else len(made)
    assert not any(reads[begins:]), [one.name for one in made[begins:] if only_reads(one)]
    model = next((place for place, one in enumerate(made) if one.brings_model), len(made))
    assert not any(only_reads(one) and one.name != "asset" for one in made[model:])
    local = [one.path is not None for one in made if one.name == "file"]
    assert local == sorted(local, reverse=True), "what is here is read before anything is downloaded"


def test_the_file_of_the_last_language_ends_the_run_before_it_computes(
    tmp_path: Path, files: Path, caplog: pytest.LogCaptureFixture
):
    from tests.kit.task_files import nli_rows, parquet

    for path in files.glob("*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rows = nli_rows(9, "th", train=False)
    rows[7]["premise"] = " "
    parquet(tmp_path / "xnli.th.parquet", rows)
    given = ["method=mt_stack", "lang=[de,th]", "task=xnli", *(f"task.xnli.{path.format(tmp_path)}" for path in XNLI)]
    given += ["method.validation_rows=4", "tracking=none", f"cache_dir={tmp_path / 'cache'}", "text=file"]
    (tmp_path / "texts.jsonl").write_text('{"text": "One."}\n')
    given += [f"text.path={tmp_path / 'texts.jsonl'}"]
    for plan in ("true", "false"):
        config = composed(*given, f"plan={plan}")
        with pytest.raises(InputError, match=rf"{tmp_path}/xnli\.th\.parquet, row 8 has \"\" in `premise`"):
            run(config, tmp_path / "run")
        made = {path.name for path in (tmp_path / "cache/artifacts").glob("*")}
        assert made <= (set() if plan == "true" else {"file", "training", "read", "texts"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MockHub]:
    repositories = {
        "datasets/some/set": Repository({"a.jsonl": b"{}\n"}),
        "datasets/some/gated": Repository({"a.jsonl": b"", "b.jsonl": b""}, gated=True),
        "models/some/gated": Repository({"config.json": b"{}", "model.safetensors": b""}, gated=True),
    }
    monkeypatch.setattr(hub_source, "RETRY_PAUSES_S", ())
    with serving(MockHub(repositories)) as mock:
        point_at(monkeypatch, mock.address, tmp_path / "hub")
        yield mock


def fetching(name: str, file: str) -> Step:
    source = hub_source.HubFile("task.x", name, REVISION, "offline, give a copy", file)
    config = {"hub_id": name, "revision": REVISION, "file": file}
    return PlainStep("file", print, config, hub=source)  # type: ignore[arg-type]


def test_a_plan_says_what_the_hub_does_not_give(hub: MockHub, config, store, capsys: pytest.CaptureFixture[str]):
    files = [("some/set", "a.jsonl"), ("some/set", "b.jsonl"), ("some/gated", "a.jsonl"), ("some/gated", "b.jsonl")]
    found = show(config, store, [fetching(*file) for file in files])["sources"]
    assert [(one.origin, one.state) for one in found] == [
        (f"hub some/set @ {REVISION[:8]} a.jsonl", "to download"),
        (f"hub some/set @ {REVISION[:8]} b.jsonl", "not there"),
        (f"hub some/gated @ {REVISION[:8]}, 2 files", "gated"),
    ]
    printed = " ".join(capsys.readouterr().out.split())
    assert "task.x.file=b.jsonl" in printed
    assert "there are a.jsonl; give one that is as task.x.file=..." in printed
    assert printed.count("accept its licence") == 1
    assert "so with 1 more of its files" in printed
    assert not hub.fetched()


def test_a_plan_without_a_hub_is_one_line(config, store, monkeypatch, tmp_path: Path, capsys):
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub")
    found = show(config, store, [fetching("some/set", f"{n}.jsonl") for n in range(9)])["sources"]
    assert {one.state for one in found} == {"hub does not answer"}
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("hub:")]
    assert len(lines) == 1
    assert "no answer (ConnectError" in lines[0]
    assert "so that 9 of the sources" in " ".join(printed.split())


def test_what_is_there_or_not_needed_is_not_asked_for(hub: MockHub, config, store):
    there = fetching("some/gone", "a.jsonl")
    store.realise(PlainStep("file", lambda _: None, there.config))
    assert planned.wanted(walk(store, [there, step("corpus")])) == []


def test_a_run_asks_for_all_before_it_fetches_any(hub: MockHub, tmp_path: Path):
    given = ["corpus=file", "corpus.path=null", "corpus.hub_id=some/set", f"corpus.revision={REVISION}"]
    given += ["corpus.file=a.jsonl", "backbone=path", "backbone.path=null", "backbone.hub_id=some/gated"]
    given += [f"backbone.revision={REVISION}", "method=sft", "task=instructions", "lang=pt", "tracking=none"]
    given += ["translator=self", "parallel=file", "parallel.path=null", "parallel.hub_id=some/gated"]
    given += ["parallel.file=a.jsonl", f"parallel.revision={REVISION}", f"cache_dir={tmp_path / 'cache'}"]
    with pytest.raises(InputError, match=r"parallel\.hub_id=some/gated .* is gated.*unavailable: backbone.* \(gated\)"):
        run(composed(*given), tmp_path / "run")
    assert not hub.fetched()
    assert not (tmp_path / "cache/artifacts").exists()
