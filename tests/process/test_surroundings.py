"""An environment in which no run can work is refused in one line, before anything is composed."""

import os
from pathlib import Path

import pytest

from sdx import InputError
from sdx.process import ranks, surroundings
from sdx.store.store import Store
from tests.kit.configs import composed

LAUNCHED = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
JUNK = ("", "x", "-1", "1.5", "nan", "٣", "9" * 5000)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    "given", [{}, LAUNCHED, {"RANK": "0"}, {"WORLD_SIZE": "1"}, {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "3"}]
)
def test_launches_that_work(given: dict[str, str], environment: pytest.MonkeyPatch):
    for name, value in given.items():
        environment.setenv(name, value)
    ranks.check()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        *(({name: value}, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE") for value in JUNK),
        *(({"MASTER_PORT": value}, "MASTER_PORT") for value in (*JUNK, "0", "65536")),
        *(({name: None}, name) for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")),
        ({"WORLD_SIZE": None}, "RANK=1 in the environment, but WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({"RANK": "2"}, "RANK=2 in the environment, but WORLD_SIZE=2"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK=2 in the environment, but LOCAL_WORLD_SIZE=2"),
    ],
)
def test_launches_that_cannot_work(changed: dict[str, str | None], says: str, environment: pytest.MonkeyPatch):
    for name, value in (LAUNCHED | changed).items():
        if value is not None:
            environment.setenv(name, value)
    with pytest.raises(InputError, match=says):
        ranks.check()


def test_a_world_size_without_ranks_is_refused(environment: pytest.MonkeyPatch):
    environment.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="WORLD_SIZE=4 in the environment without RANK, LOCAL_RANK, MASTER_ADDR"):
        ranks.check()


def test_a_working_directory_that_was_deleted(tmp_path: Path, environment: pytest.MonkeyPatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    environment.chdir(gone)
    gone.rmdir()
    with pytest.raises(InputError, match="working directory is gone"):
        surroundings.check([])
    environment.chdir(tmp_path)


def test_names_that_the_locale_cannot_read(environment: pytest.MonkeyPatch):
    """Python keeps their bytes as halves of characters, which JSON cannot hold."""
    name = os.fsdecode(b"/data/\xff")
    with pytest.raises(InputError, match=r"'corpus.path=/data/\\udcff' cannot be read .* PYTHONUTF8=1"):
        surroundings.check([f"corpus.path={name}"])
    environment.setenv("SDX_CACHE", name)
    with pytest.raises(InputError, match="SDX_CACHE="):
        surroundings.check(["corpus.path=/ข้อมูล"])


def test_a_home_is_needed_if_the_cache_is_in_it(environment: pytest.MonkeyPatch):
    environment.delenv("HOME", raising=False)
    environment.setenv("SDX_CACHE", "/somewhere")
    assert composed().cache_dir == "/somewhere"
    environment.delenv("SDX_CACHE")
    assert composed().cache_dir == "~/.cache/sdx"
    environment.setattr(os.path, "expanduser", lambda path: path)  # as for a user without an entry in /etc/passwd
    with pytest.raises(InputError, match=r"cache_dir=~/\.cache/sdx: .* set SDX_CACHE or HOME"):
        Store(Path(composed().cache_dir))
