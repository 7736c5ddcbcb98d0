"""A damaged file of sdx counts as not there, or is named in one line: never a traceback, whichever file it is."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.planning import graph, lengths
from sdx.process.failure import ERROR
from sdx.reporting import compare, paired
from sdx.reporting.finished import read_runs
from sdx.store import inventory, locks
from sdx.store.batch_log import BatchLog
from sdx.store.files import read_intact, read_json, read_rows, write_json, write_rows
from sdx.store.shared_log import SharedLog
from sdx.store.step import Workspace
from sdx.store.store import Store
from sdx.sweeps import objective
from sdx.sweeps.runs import is_done
from sdx.sweeps.watch import JOB, Watch, job_of
from sdx.tracking.state import STATE, StateFile, describe, read_state
from sdx.training.loop import SUMMARY
from sdx.translation import auto
from tests.kit.damage import DAMAGES, EMPTY_FOR_ROWS, put, variants
from tests.kit.plain_step import PlainStep

pytestmark = pytest.mark.whole

ROW = {"id": "a", "text": "é"}
ESTIMATE = {"value": 40.0, "low": 30.0, "high": 50.0, "n": 10, "p": None}
SCORE = {
    **{"task": "t", "benchmark": "", "language": "pt", "metric": "accuracy", "origin": "original", "system": ""},
    **{"before": ESTIMATE, "after": ESTIMATE, "difference": ESTIMATE, "note": ""},
}
RESULTS = {
    "run": "x",
    "config": {
        "method": {"_target_": "a.b", "name": "sft"},
        "backbone": {"name": "tiny"},
        "lang": {"source": "en", "targets": {"pt": "por_Latn"}},
        "task": {"t": {"name": "t"}},
        "seed": 1,
    },
    "scores": [SCORE],
    "training": {"validation": -1.0},
    "steps": [{"name": "train", "key": "k", "what": "x", "language": "pt", "seconds": 1.5, "path": "/x"}],
}
STEP = PlainStep("generate", lambda work: write_rows(work.dir / "rows.jsonl", [ROW]), {"max_new_tokens": 8})


def damaged(path: Path, name: str) -> None:
    path.write_bytes(DAMAGES[name](path.read_bytes()))


def as_before(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Changes a file and hides it, as a disk does that loses what it was told to keep."""
    state = path.stat()
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "another object"])
def test_a_json_file_that_is_damaged_is_named_with_what_to_do(name: str, tmp_path: Path):
    write_json(tmp_path / "x.json", {"a": 1})
    damaged(tmp_path / "x.json", name)
    with pytest.raises(InputError, match=r"x\.json is damaged: .*; mend it or get it again"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("name", [name for name in DAMAGES if name not in ("another object", *EMPTY_FOR_ROWS)])
def test_rows_that_are_damaged_are_named_with_what_to_do(name: str, tmp_path: Path):
    store = Store(tmp_path)
    rows = store.realise(STEP) / "rows.jsonl"
    as_before(rows, DAMAGES[name])
    with pytest.raises(InputError) as told:
        read_rows(rows)
    assert str(told.value).startswith(f"{rows}, line 1 is damaged: ")
    assert str(told.value).endswith(f"; delete {rows.parent}, and it is made again")
    with pytest.raises(InputError, match="line 1"):
        lengths.measure(rows, "eng_Latn", 100)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_manifest_that_is_damaged(name: str, tmp_path: Path):
    path = Store(tmp_path).realise(STEP)
    damaged(path / "manifest.json", name)
    store = Store(tmp_path)
    for read in (store.realise, store.manifest):
        with pytest.raises(InputError, match=rf"manifest\.json is damaged.*delete {path}, and it is made again"):
            read(STEP)
    assert lengths.answers(store) == {}
    [found] = inventory.artifacts(store.root)
    assert found.about == "(damaged)"
    assert inventory.remove(found, set())
    assert store.realise(STEP) == path


def test_a_manifest_with_any_value_of_another_type(tmp_path: Path):
    store = Store(tmp_path)
    path = store.realise(STEP)
    manifest = read_json(path / "manifest.json")
    for place, odd in variants(manifest):
        write_json(path / "manifest.json", put(manifest, place, odd))
        lengths.answers(store)
        inventory.artifacts(store.root)
        with_input_errors(lambda: Store(tmp_path).realise(STEP))


def with_input_errors(action: Callable[[], Any]) -> None:
    """It works, or says what is wrong."""
    with suppress(InputError):
        action()


@pytest.mark.parametrize("name", DAMAGES)
def test_a_batch_log_goes_on_from_what_is_whole(name: str, tmp_path: Path):
    path = tmp_path / "rows.log"
    BatchLog(path).append([ROW])
    whole = path.read_bytes()
    path.write_bytes(whole + DAMAGES[name](whole) + whole.replace(b'"a"', b'"b"'))
    assert graph._rows(path) >= 1
    record = SharedLog(tmp_path, ["a", "b", "c"])
    for rows in record.pending([[0], [1], [2]]):
        record.append([{"id": "abc"[number]} for number in rows])
    assert next(record.rows()) == ROW
    assert SharedLog(tmp_path, ["a", "b", "c"]).complete


def test_a_layout_that_is_damaged(tmp_path: Path):
    store = Store(tmp_path)
    store.realise(STEP)
    for content in (b"\0\0", b"\xff", b"x" * 5000):
        (tmp_path / "layout").write_bytes(content)
        with pytest.raises(InputError, match=r"layout .*is damaged, delete it") as told:
            Store(tmp_path)
        assert len(str(told.value)) < 500
    (tmp_path / "layout").write_bytes(b"")
    assert Store(tmp_path).cached(STEP)


def run_dir(tmp_path: Path) -> Path:
    """What a run leaves, as far as it is read again."""
    directory = tmp_path / "runs/x"
    directory.mkdir(parents=True)
    with StateFile(directory):
        pass
    write_json(directory / "results.json", RESULTS)
    write_json(directory / inventory.STEPS, {"steps": RESULTS["steps"]})
    write_json(directory / JOB, {"job": "1", "log": "/x", "stages": "all"})
    write_json(directory / auto.RECORD, {"a to b": "self"})
    write_rows(directory / paired.ITEMS, [{"task": "t", "language": "pt", "metric": "accuracy", "origin": "original"}])
    return directory


def read_all(directory: Path) -> None:
    """All that reads files of runs."""
    Watch(directory.parent).look()
    read_state(directory)
    job_of(directory)
    is_done(directory, {"k"})
    read_intact(directory / auto.RECORD)
    inventory.uses([directory.parent])
    with_input_errors(lambda: objective.value(directory, objective.VALIDATION))
    with_input_errors(lambda: compare.compare([directory.parent], "sft"))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_file_of_a_run_that_is_damaged(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    directory = run_dir(tmp_path)
    for file in [path for path in directory.iterdir() if path.is_file()]:
        whole = file.read_bytes()
        damaged(file, name)
        read_all(directory)
        file.write_bytes(whole)
    damaged(directory / "results.json", name)
    runs, warnings = read_runs([directory])
    assert not runs
    assert str(directory / "results.json") in warnings[0]


def test_results_with_any_value_of_another_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    directory = run_dir(tmp_path)
    (tmp_path / "runs/y").mkdir()
    write_json(tmp_path / "runs/y/results.json", RESULTS)
    for place, odd in variants(RESULTS):
        (directory / "results.json").write_text(json.dumps(put(RESULTS, place, odd)))
        is_done(directory, {"k"})
        inventory.uses([directory.parent])
        with_input_errors(lambda: objective.value(directory, objective.VALIDATION))
        with_input_errors(lambda: compare.compare([directory.parent], "sft"))


def test_a_state_with_any_value_of_another_type(tmp_path: Path):
    directory = run_dir(tmp_path)
    state = read_json(directory / STATE)
    for place, odd in variants(state):
        (directory / STATE).write_text(json.dumps(put(state, place, odd)))
        if found := read_state(directory):
            describe(found)
        Watch(directory.parent).look()


@pytest.mark.parametrize("name", DAMAGES)
def test_the_note_of_a_lock_that_is_damaged(name: str, tmp_path: Path):
    with locks.held(tmp_path / "x", "cache_dir=x", "x", lambda: None, ["k"]):
        assert [holder.reads for holder in locks.holders(tmp_path)] == [["k"]]
        note = tmp_path / "x.holder"
        damaged(note, name)
        assert not list(locks.holders(tmp_path))


def test_the_note_of_a_lock_with_any_value_of_another_type(tmp_path: Path):
    note = tmp_path / "x.holder"
    locks._write(note, [])
    held = read_json(note)
    for place, odd in variants(held):
        note.write_text(json.dumps(put(held, place, odd)))
        if found := locks._read(note):
            assert str(found)
            assert found.beat - 1.0 < found.beat + 1.0


@pytest.mark.parametrize("name", DAMAGES)
def test_the_log_of_a_training_is_read_as_far_as_it_is_whole(name: str, tmp_path: Path):
    from sdx.training.log import _whole_rows

    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n')
    whole = path.read_bytes()
    path.write_bytes(whole + DAMAGES[name](whole) + b'\n{"step": 2}\n')
    assert {1, 2} <= {row["step"] for row in _whole_rows(path)}


def test_an_error_that_is_not_utf8(tmp_path: Path):
    from omegaconf import OmegaConf

    from sdx.config import Stages
    from sdx.sweeps.runs import SweepRun, set_outcome

    (tmp_path / ERROR).write_bytes(b"\xff\n\xfe bad\n")
    run = SweepRun(0, [], [], OmegaConf.create({"stages": Stages.all}), tmp_path)
    set_outcome(run, 1)
    assert run.error.endswith(" bad")


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "another object"])
def test_the_summary_of_a_training_that_is_damaged_counts_as_none(name: str, tmp_path: Path):
    from sdx.store.files import read_intact

    write_json(tmp_path / SUMMARY, {"steps": 1})
    damaged(tmp_path / SUMMARY, name)
    assert read_intact(tmp_path / SUMMARY) == {}


def test_a_published_file_that_was_edited_to_the_same_size(tmp_path: Path):
    def makes(work: Workspace) -> None:
        write_rows(work.dir / "rows.jsonl", [ROW])
        (work.dir / "model").mkdir()
        (work.dir / "model/weights").write_bytes(b"1234")

    step = PlainStep("a", makes)
    path = Store(tmp_path).realise(step)
    weights = path / "model/weights"
    weights.write_bytes(b"1235")
    with pytest.raises(InputError, match=rf"{weights} is not as it was made.*delete {path}, and it is made again"):
        Store(tmp_path).realise(step)


def test_a_cache_that_was_copied_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import shutil

    from sdx.store import integrity

    Store(tmp_path / "a").realise(STEP)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    hashed: list[Path] = []
    digest = integrity.sha256_of
    monkeypatch.setattr(integrity, "sha256_of", lambda path: hashed.append(path) or digest(path))
    for _ in range(3):
        Store(tmp_path / "b").realise(STEP)
    assert [path.name for path in hashed] == ["rows.jsonl"]


def test_an_artifact_of_an_sdx_that_wrote_no_hashes(tmp_path: Path):
    path = Store(tmp_path).realise(STEP)
    manifest = read_json(path / "manifest.json")
    manifest["files"] = {name: one["bytes"] for name, one in manifest["files"].items()}
    write_json(path / "manifest.json", manifest)
    assert Store(tmp_path).realise(STEP) == path
    (path / "rows.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match="has 0 bytes instead of"):
        Store(tmp_path).realise(STEP)
