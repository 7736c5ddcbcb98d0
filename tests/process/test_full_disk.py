"""The error of a full disk names the disk that is full, by the file that did not fit."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from sdx import InputError
from sdx.process.disk import NO_SPACE, disk_full, full_disk_message, no_space, writing
from sdx.store.files import write_json
from sdx.store.step import Workspace
from sdx.store.store import Store
from tests.kit.plain_step import PlainStep

Usage = namedtuple("Usage", "total used free")


def full(number: int = errno.ENOSPC, *names: str) -> OSError:
    error = OSError(number, os.strerror(number), *names[:1])
    if names[1:]:
        error.filename2 = names[1]
    return error


def wrapped(error: Exception) -> Exception:
    try:
        try:
            raise error
        except Exception as cause:
            raise InputError("the hub's file cannot be fetched") from cause
    except InputError as outer:
        return outer


@pytest.mark.parametrize("number", NO_SPACE)
def test_a_full_disk_is_recognised_in_wrapped_errors(number: int):
    text = f"I/O error: {os.strerror(number)} (os error {number})"
    for error in (full(number), wrapped(full(number)), SafetensorError(text), RuntimeError(f"rank 1: {text}")):
        assert no_space(error) == number
    assert disk_full(RuntimeError("[enforce fail] PytorchStreamWriter failed writing file"))
    assert not disk_full(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped])
@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["/cache/artifacts/x"], "cache_dir=/cache, for /cache/artifacts/x"),
        (["/runs/one/report.md"], "runs_dir=/runs, for /runs/one/report.md"),
        (["/home/me/.cache/huggingface/hub/x"], "/home/me/.cache/huggingface/hub/x"),
        (["/data/from", "/cache/to"], "cache_dir=/cache, for /cache/to"),
    ],
)
def test_the_file_is_named(names: list[str], says: str, wrap: Any):
    message = full_disk_message(wrap(full(errno.ENOSPC, *names)), {"cache_dir": "/cache", "runs_dir": Path("/runs")})
    assert message == f"no space left on the disk of {says}"


@pytest.mark.parametrize(
    ("free", "says"),
    [
        ({"/cache": 0, "/runs": 10**9}, "cache_dir=/cache"),
        ({"/cache": 10**9, "/runs": 0}, "runs_dir=/runs"),
        ({"/cache": 10**9, "/runs": 10**9, "/tmp": 0}, "TMPDIR"),
        ({"/cache": 10**9, "/runs": 10**9, "/tmp": 10**9}, "cache_dir=/cache or runs_dir=/runs"),
    ],
)
def test_without_a_file_the_full_disk_is_named(free: dict[str, int], says: str, monkeypatch: pytest.MonkeyPatch):
    """`free` stands for `shutil.disk_usage`."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    monkeypatch.setattr("sdx.process.disk.free_bytes", lambda place: free.get(str(place), 10**9))
    message = full_disk_message(full(), {"cache_dir": "/cache", "runs_dir": "/runs"})
    assert message == f"no space left on the disk of {says}"


def test_a_file_that_was_open_is_named(tmp_path: Path):
    (tmp_path / "x").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught, writing(tmp_path / "outer"), writing(tmp_path / "x"):
        (tmp_path / "x").write_text("much", encoding="utf-8")
    assert caught.value.filename == str(tmp_path / "x")
    with pytest.raises(PermissionError), writing(tmp_path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_step_of_the_store_is_named_by_its_directory(tmp_path: Path):
    def run(work: Workspace) -> None:
        (work.dir / "rows").symlink_to("/dev/full")
        with (work.dir / "rows").open("a", encoding="utf-8") as rows:
            rows.write("one")

    store, step = Store(tmp_path / "cache"), PlainStep("full", run)
    with pytest.raises(OSError, match="No space left") as caught:
        store.realise(step)
    assert full_disk_message(caught.value, {"cache_dir": tmp_path / "cache"}) == (
        f"no space left on the disk of cache_dir={tmp_path}/cache, for {store.path(step)}.partial"
    )


def test_a_file_that_is_replaced_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(full()))
    with pytest.raises(OSError, match="No space left") as caught:
        write_json(tmp_path / "results.json", {})
    assert caught.value.filename == str(tmp_path / "results.json")


def test_the_space_of_real_disks_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(1, 1, 0 if Path(place) == tmp_path else 10**9))
    assert full_disk_message(full(), {"cache_dir": "/", "runs_dir": tmp_path / "not/there"}).endswith(
        f"runs_dir={tmp_path / 'not/there'}"
    )
