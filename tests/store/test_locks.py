"""Locks on a shared disk: tested, held with a note, waited for. Notes stand in for other nodes."""

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import platform
import threading
import time
from pathlib import Path

import pytest

from sdx import InputError
from sdx.store import locks
from sdx.store.step import Workspace
from sdx.store.store import Store
from tests.kit.plain_step import PlainStep

NOTHING = PlainStep("nothing", lambda workspace: None)


def note(path: Path, host: str, beat: float) -> None:
    Path(f"{path}.holder").write_text(json.dumps({"host": host, "pid": 17, "beat": beat}))


class Clock:
    """Time passes only in `time.sleep`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        self.pauses: list[float] = []
        self.then = lambda: None
        for name in ("time", "monotonic"):
            monkeypatch.setattr(time, name, lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)
        self.then()


@pytest.mark.parametrize("collective", [False, True])
def test_ranks_wait_for_hours_without_asking_the_disk_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collective: bool
):
    store, clock = Store(tmp_path), Clock(monkeypatch)
    step = PlainStep("nothing", NOTHING.run, collective=collective)
    began = clock.now

    def publish() -> None:
        if clock.now - began > 3600:
            monkeypatch.setenv("RANK", "0")
            store.path(step).mkdir(parents=True, exist_ok=True)
            (store.path(step) / "manifest.json").touch()

    clock.then = publish
    monkeypatch.setenv("RANK", "1")
    store.realise(step)
    assert len(clock.pauses) < 800
    assert clock.pauses[0] <= 0.2
    assert max(clock.pauses) <= 5


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def _realise(cache: Path) -> None:
    Store(cache).realise(PlainStep("nothing", lambda workspace: _wait_for(cache / "go")))


def test_the_log_says_who_holds_a_lock(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = Store(tmp_path).path(NOTHING)
    holder = multiprocessing.get_context("fork").Process(target=_realise, args=(tmp_path,))
    holder.start()
    _wait_for(Path(f"{path}.holder"))
    timer = threading.Timer(0.3, (tmp_path / "go").touch)
    timer.start()
    with caplog.at_level(logging.INFO, "sdx"):
        Store(tmp_path).realise(NOTHING)
    holder.join()
    [said] = [record.getMessage() for record in caplog.records if "waiting for" in record.getMessage()]
    assert said == (
        f"nothing      waiting for process {holder.pid} on {platform.node()}, heard of 1 s ago, which has {path}.lock"
    )
    assert {file.suffix for file in path.parent.iterdir() if file.is_file()} == {".lock"}


def test_a_holder_that_is_silent_for_long_is_reported_with_what_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A node died, and its lock stays."""
    store, clock = Store(tmp_path), Clock(monkeypatch)
    path = store.path(NOTHING)
    path.parent.mkdir(parents=True)
    note(path, "node7", clock.now - 300)
    began = clock.now
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def release() -> None:
            if clock.now - began > 1300:
                Path(f"{path}.lock").unlink(missing_ok=True)

        clock.then = release
        with caplog.at_level(logging.INFO, "sdx"):
            store.realise(NOTHING)
    assert f"waiting for process 17 on node7, heard of 5 min ago, which has {path}.lock" in caplog.text
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2  # after 10 and 20 minutes of waiting: an older note may be of somebody else
    assert warnings[0] == (
        "nothing      process 17 on node7, which has the lock, has not been heard of for 10 min; if it is dead, "
        f"delete {path}.lock"
    )
    assert store.cached(NOTHING)


def test_a_lock_that_two_nodes_hold_at_once_stops_the_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store, clock = Store(tmp_path), Clock(monkeypatch)
    path = store.path(NOTHING)
    path.parent.mkdir(parents=True)
    note(path, "node7", clock.now)
    clock.then = lambda: note(path, "node7", clock.now)
    with pytest.raises(InputError, match=f"process 17 on node7 and .* at once.*file system of cache_dir={tmp_path};"):
        store.realise(NOTHING)
    assert not store.cached(NOTHING)
    clock.then = lambda: None  # killed
    store.realise(NOTHING)


def test_a_holder_is_heard_of_while_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.01)

    def run(workspace: Workspace) -> None:
        place = Path(str(workspace.dir).removesuffix(".partial") + ".holder")
        first = json.loads(place.read_text())
        assert (first["host"], first["pid"]) == (platform.node(), os.getpid())
        deadline = time.monotonic() + 10
        while (locks._read(place) or locks.Holder(**first)).beat == first["beat"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    path = Store(tmp_path).realise(PlainStep("works", run))
    assert not Path(f"{path}.holder").exists()


@pytest.mark.parametrize(
    ("says", "broken"),
    [
        ("flock: Function not implemented", OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))),
        ("flock: No locks available", OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))),
        ("flock gives the same lock to two at once", None),
    ],
)
def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, broken: OSError | None
):
    """Played by a broken flock: no such file system can be mounted here."""

    def flock(*_: object) -> None:
        if broken:
            raise broken

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InputError) as error:
        Store(tmp_path).realise(NOTHING)
    assert str(error.value).startswith(f"cache_dir={tmp_path} has no file locks ({says}); give a directory")
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == []


@pytest.mark.parametrize(
    ("kind", "options", "warns"),
    [
        ("nfs", "rw,vers=3,nolock,addr=10.0.0.1", "nolock"),
        ("nfs4", "rw,vers=4.2,local_lock=none", None),
        ("lustre", "rw,localflock,lazystatfs", "localflock"),
        ("lustre", "rw,flock,lazystatfs", None),
    ],
)
def test_a_mount_whose_locks_hold_within_a_node_is_warned_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    options: str,
    warns: str | None,
):
    place = tmp_path / "a disk"
    place.mkdir()
    mounts = tmp_path / "mounts"
    point = str(place).replace(" ", "\\040")
    mounts.write_text(
        f"none / ext4 rw,nolock 0 0\nautofs {point} autofs rw 0 0\nserver:/x {point} {kind} {options} 0 0\n"
    )
    monkeypatch.setattr(locks, "MOUNTS", mounts)
    Store(place / "cache").realise(NOTHING)
    Store(place / "cache").realise(PlainStep("more", NOTHING.run))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (1 if warns else 0)
    if warns:
        assert f"cache_dir={place / 'cache'} is mounted with {warns}: its locks hold within a node only" in said[0]
