"""`python -m sdx.cache`: what a cache holds, whether it is intact, and what can be deleted."""

import fcntl
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdx.cli import cache, main
from sdx.store import inventory, locks
from sdx.store.files import MANIFEST, read_json, read_rows, write_json
from sdx.store.step import Step, Workspace
from sdx.store.store import Store
from tests.kit.plain_step import PlainStep
from tests.kit.workplace import QuickRun

DAY_S = 86400


def writes(text: str):
    def run(workspace: Workspace) -> None:
        (workspace.dir / "out.txt").write_text(text)

    return run


CORPUS = PlainStep("corpus", writes("x" * 2000), {"hub_id": "someone/set", "language": "eng_Latn"})
GENERATE = PlainStep("generate", writes("1234"), {"task": "arc"}, {"corpus": CORPUS})
OTHER = PlainStep("generate", writes("5678"), {"task": "mmlu"}, {"corpus": CORPUS})
TRAIN = PlainStep("train", writes("weights"), inputs={"rows": GENERATE})


class Cache:
    """A cache with four artifacts, two runs that use three of them, and a step that was interrupted."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self._monkeypatch, self._capsys = path, monkeypatch, capsys
        monkeypatch.chdir(path)
        monkeypatch.setenv("SDX_CACHE", str(path / "cache"))
        self.store = Store.shared()
        for step in (TRAIN, OTHER):
            self.store.realise(step)
        self.age(OTHER, 40)
        partial = self.store.root / "train/0123456789abcdef.partial"
        partial.mkdir()
        (partial / "rows.log").write_bytes(bytes(3000))
        self.run("one", [TRAIN, GENERATE, CORPUS])
        self.run("two", [CORPUS])

    def age(self, step: Step, days: float) -> None:
        path = self.store.path(step) / MANIFEST
        created = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - days * DAY_S))
        write_json(path, {**read_json(path), "created": created})

    def run(self, name: str, steps: Sequence[Step]) -> None:
        (self.path / "runs" / name / ".hydra").mkdir(parents=True)
        told = [{"name": step.name, "key": step.key, "what": f"of {step.name}", "language": "pt"} for step in steps]
        write_json(self.path / "runs" / name / inventory.STEPS, {"steps": told})

    def sdx(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code and what was printed."""
        self._monkeypatch.setattr(sys, "argv", ["cache", *arguments])
        with pytest.raises(SystemExit) as end:
            cache.main()
        return int(end.value.code or 0), *self._capsys.readouterr()

    @property
    def left(self) -> list[str]:
        names = {step.key: name for name, step in globals().items() if isinstance(step, Step)}
        return sorted(names.get(one.key, "partial") for one in inventory.artifacts(self.store.root))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cache:
    return Cache(tmp_path, monkeypatch, capsys)


ALL = ["CORPUS", "GENERATE", "OTHER", "TRAIN", "partial"]


def test_a_list_shows_step_subject_size_age_and_runs(place: Cache):
    code, out, _ = place.sdx("list")
    rows = {row[1]: row for line in out.splitlines() if (row := [cell.strip() for cell in line.split("│")[1:-1]])}
    assert code == 0
    assert rows[CORPUS.key][0] == "corpus"
    assert rows[CORPUS.key][2:4] == ["of corpus, pt", "2.0 kB"]
    assert rows[CORPUS.key][5] == "one and 1 more"
    assert rows[OTHER.key][2:] == ["mmlu", "4 bytes", "40 days", ""]
    assert rows["0123456789abcdef"][2:4] == ["(unfinished)", "3.0 kB"]
    assert "5 artifacts, 5.0 kB, in " in out
    assert place.left == ALL


def test_the_main_command_knows_it_too(place: Cache, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sdx", "cache", "list", "--step", "train"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert not end.value.code
    assert TRAIN.key in capsys.readouterr().out


FREED = {
    "--step generate": ["GENERATE", "OTHER"],
    "--step generate --step train": ["GENERATE", "OTHER", "TRAIN", "partial"],
    "--older-than 30d": ["OTHER"],
    "--older-than 8w": [],
    "--step generate --older-than 720h": ["OTHER"],
    "--run runs/one": ["GENERATE", "TRAIN"],
    "--run runs/one --step train": ["TRAIN"],
    "--run runs/one --runs nowhere": ["CORPUS", "GENERATE", "TRAIN"],
    "--unused": ["OTHER", "partial"],
    "--unused --runs runs/two": ["GENERATE", "OTHER", "TRAIN", "partial"],
}


@pytest.mark.parametrize("options", FREED)
def test_what_is_freed_is_shown_first(place: Cache, options: str):
    code, out, _ = place.sdx("free", *options.split())
    assert code == 0
    assert place.left == ALL
    keys = {name: step.key for name, step in globals().items() if isinstance(step, Step)} | {"partial": "unfinished"}
    shown = [name for name in ALL if keys[name] in out]
    assert shown == FREED[options]
    code, out, _ = place.sdx("free", *options.split(), "--yes")
    assert code == 0
    assert place.left == sorted(set(ALL) - set(FREED[options]))


def test_what_was_freed_is_made_again(place: Cache):
    place.sdx("free", "--step", "generate", "--step", "corpus", "--yes")
    assert Store.shared().realise(TRAIN)
    assert place.left == ["TRAIN", "partial"]
    Store.shared().realise(GENERATE)
    assert place.left == ["CORPUS", "GENERATE", "TRAIN", "partial"]


def test_remembered_sentences_are_listed_and_freed_by_name_or_age(place: Cache):
    engine = place.path / "cache/sentences/self-eng_Latn-tha_Thai"
    for key, days in (("old", 40), ("new", 0)):
        (engine / key).mkdir(parents=True)
        (engine / key / "0.jsonl").write_text("torn" * 100)
        os.utime(engine / key / "0.jsonl", (time.time() - days * DAY_S,) * 2)
    _, out, _ = place.sdx("list")
    assert re.search(r"sentences +│ old +│ self-eng_Latn-tha_Thai +│ +400 bytes │ +40 days │", out)
    assert "7 artifacts" in out
    assert place.sdx("verify")[:2] == (0, "4 artifacts checked, 0 damaged\n")
    with (engine / "old/0.jsonl").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "sentences old stays" in place.sdx("free", "--step", "sentences", "--older-than", "30d", "--yes")[2]
    for options, left in (("--unused", ["new", "old"]), ("--older-than 30d", ["new"]), ("--step sentences", [])):
        assert place.sdx("free", *options.split(), "--yes")[0] == 0
        assert sorted(path.name for path in engine.iterdir() if path.is_dir()) == left


def test_what_a_run_is_making_or_reading_is_not_freed(place: Cache):
    key = "0123456789abcdef"
    with locks.held(place.store.root / "train" / key, "cache_dir=x", "train", lambda: None, [GENERATE.key]):
        code, _, err = place.sdx("free", "--step", "train", "--step", "generate", "--yes")
    assert code == 0
    assert place.left == ["CORPUS", "GENERATE", "partial"]
    assert f"train {key} stays" in err
    assert f"generate {GENERATE.key} stays" in err
    place.sdx("free", "--step", "train", "--yes")
    assert place.left == ["CORPUS", "GENERATE"]


def test_a_step_that_is_being_made_says_what_it_reads(tmp_path: Path):
    found: list[set[str]] = []
    store = Store(tmp_path)
    reader = PlainStep("train", lambda _: found.append(inventory.in_use(store.root)), inputs={"rows": GENERATE})
    store.realise(reader)
    assert found == [{GENERATE.key}]
    assert not inventory.in_use(store.root)


def test_an_answer_of_no_frees_nothing(place: Cache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, left in (("", ALL), ("n", ALL), ("y", ["CORPUS", "TRAIN", "partial"])):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert place.sdx("free", "--step", "generate")[0] == 0
        assert place.left == left


def test_a_change_that_a_run_cannot_see_is_found_by_its_hash(place: Cache):
    assert place.sdx("verify")[0] == 0
    file = place.store.path(CORPUS) / "out.txt"
    state = file.stat()
    file.write_bytes(bytes(state.st_size))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    Store.shared().realise(CORPUS)
    code, out, err = place.sdx("verify")
    assert code == 1
    assert f"sdx: {file} is not as it was made" in err
    assert "4 artifacts checked, 1 damaged" in out
    assert place.sdx("verify", "--step", "train")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("", ["required: list | verify | free"]),
        ("lst", ["invalid choice"]),
        ("free", ["--step, --older-than, --run, --unused"]),
        ("free --yes", ["--step, --older-than, --run, --unused"]),
        ("free --older-than 30", ["'30' is not an age", "30d"]),
        ("free --older-than -3d", ["--older-than"]),
        ("free --step generat", ["--step generat", "generate"]),
        ("free --run runs/three", ["--run runs/three", "directory of a run"]),
        ("free --unused --runs nowhere", ["nowhere", "--runs"]),
        ("list --cache-dir nowhere", ["nowhere", "--cache-dir"]),
    ],
)
def test_a_mistake_is_one_line(place: Cache, arguments: str, parts: list[str]):
    code, out, err = place.sdx(*arguments.split())
    assert code == 2
    assert not out
    [line] = err.splitlines()
    assert line.startswith("sdx: ")
    for part in parts:
        assert part in line
    assert place.left == ALL


@pytest.mark.long
def test_a_finished_run_comes_to_the_same_scores_when_all_but_its_model_is_freed(tmp_path: Path):
    finished = QuickRun(tmp_path)
    [directory] = (tmp_path / "runs").iterdir()
    before, samples = read_json(directory / "results.json"), read_rows(directory / "samples.jsonl")
    store = Store(tmp_path / "cache")
    artifacts = inventory.artifacts(store.root, [tmp_path / "runs"])
    assert "sentences" in {one.step for one in artifacts}
    assert all(one.about and (one.runs == {directory.resolve()}) != (one.step == "sentences") for one in artifacts)
    model = [one for one in artifacts if one.step == "train"]
    for one in artifacts:
        assert one in model or inventory.remove(one, set())
    again = finished.run()
    assert again.returncode == 0, again.stderr
    assert read_json(directory / "results.json")["scores"] == before["scores"]
    assert read_rows(directory / "samples.jsonl") == samples
