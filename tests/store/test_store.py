"""Steps: content-addressed, published atomically, locked, resumable."""

import json
import multiprocessing
import time
from pathlib import Path

import pytest

from sdx.process.devices import device_name
from sdx.store.batch_log import BatchLog
from sdx.store.files import read_json, write_json
from sdx.store.shared_log import SharedLog
from sdx.store.step import Workspace
from sdx.store.store import Store
from tests.kit.plain_step import PlainStep


def writes(text: str):
    def run(workspace: Workspace) -> None:
        (workspace.dir / "out.txt").write_text(text)
        workspace.counts["letters"] = len(text)

    return run


def test_key_depends_on_config_inputs_and_version_only():
    base = PlainStep("a", writes("x"), config={"n": 1, "m": 2})
    assert base.key == PlainStep("a", writes("y"), config={"m": 2, "n": 1}).key
    others = [
        PlainStep("b", writes("x"), config={"n": 1, "m": 2}),
        PlainStep("a", writes("x"), config={"n": 2, "m": 2}),
        PlainStep("a", writes("x"), config={"n": 1, "m": 2}, version=2),
        PlainStep("a", writes("x"), config={"n": 1, "m": 2}, inputs={"i": base}),
    ]
    assert len({base.key, *(step.key for step in others)}) == 5
    changed_input = PlainStep("a", writes("x"), config={"n": 9, "m": 2})
    assert (
        PlainStep("c", writes(""), inputs={"i": base}).key
        != PlainStep("c", writes(""), inputs={"i": changed_input}).key
    )


def test_realised_once_then_cached_with_a_manifest(tmp_path: Path):
    store, calls = Store(tmp_path), []

    def run(workspace: Workspace) -> None:
        calls.append(1)
        writes("hello")(workspace)

    step = PlainStep("a", run, config={"n": 1})
    path = store.realise(step)
    assert store.realise(PlainStep("a", run, config={"n": 1})) == path
    assert calls == [1]
    manifest = read_json(path / "manifest.json")
    assert manifest["counts"] == {"letters": 5}
    assert manifest["config"] == {"n": 1}
    assert manifest["provenance"]["packages"]["torch"]
    assert manifest["provenance"]["device"] == device_name()
    assert manifest["workers"] == 1


def test_a_failed_step_is_not_published_and_continues_where_it_stopped(tmp_path: Path):
    store = Store(tmp_path)

    def fails(workspace: Workspace) -> None:
        (workspace.dir / "half.txt").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        store.realise(PlainStep("a", fails))
    assert not store.cached(PlainStep("a", fails))

    def continues(workspace: Workspace) -> None:
        assert (workspace.dir / "half.txt").read_text() == "half"

    store.realise(PlainStep("a", continues))
    assert store.manifest(PlainStep("a", continues))["resumed"] is True


def test_what_a_kill_left_half_written_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path)

    def run(workspace: Workspace) -> None:
        write_json(workspace.dir / "out.json", {})

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", cut)
        with pytest.raises(KeyboardInterrupt):
            store.realise(PlainStep("a", run))
    (partial,) = (tmp_path / "artifacts/a").glob("*.partial")
    assert len(list(partial.iterdir())) == 1
    path = store.realise(PlainStep("a", run))
    assert {file.name for file in path.iterdir()} == {"out.json", "manifest.json"}


def test_inputs_of_a_cached_step_are_not_made_again(tmp_path: Path):
    store = Store(tmp_path)
    needed = PlainStep("needed", writes("x"))
    final = PlainStep("final", writes("y"), inputs={"needed": needed})
    store.realise(final)
    for file in store.path(needed).iterdir():
        file.unlink()
    store.path(needed).rmdir()
    store.realise(final)
    assert not store.cached(needed)


def _slow(workspace: Workspace) -> None:
    with (workspace.dir.parent / "calls").open("a") as calls:
        calls.write("call\n")
    time.sleep(0.5)


def _realise(cache: Path) -> None:
    Store(cache).realise(PlainStep("slow", _slow))


def test_two_processes_make_a_step_once(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_realise, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert (tmp_path / "artifacts/slow/calls").read_text() == "call\n"


def test_a_log_drops_a_torn_batch_and_repeats_no_finished_row(tmp_path: Path):
    path = tmp_path / "rows.log"
    record = BatchLog(path)
    record.append([{"id": "a", "text": "é\n"}, {"id": "b", "text": "2"}])
    record.close()
    with path.open("a") as file:
        file.write(json.dumps({"id": "c", "text": "3"}) + "\n" + '{"id": "d", "te')

    resumed = SharedLog(tmp_path, ["e", "d", "c", "b", "a"])
    taken = []
    for rows in resumed.pending([[4, 3], [2, 1], [0]]):
        taken.append(rows)
        resumed.append([{"id": "edcba"[number], "text": str(5 - number)} for number in rows])
    assert taken == [[2, 1], [0]]
    assert [row["text"] for row in resumed.rows()] == ["5", "4", "3", "2", "é\n"]


def test_a_kill_between_the_manifest_and_the_rename_repeats_nothing(tmp_path: Path):
    store = Store(tmp_path)

    def run(workspace: Workspace) -> None:
        BatchLog(workspace.dir / "rows.log").append([{"id": "a"}])
        writes("hello")(workspace)

    path = store.realise(PlainStep("a", run))
    assert not list(path.glob("*.log"))
    path.rename(f"{path}.partial")

    def must_not_run(workspace: Workspace) -> None:
        raise AssertionError("ran again")

    assert (store.realise(PlainStep("a", must_not_run)) / "out.txt").read_text() == "hello"
