"""The rows of every method's mix are, byte for byte, those of earlier versions, which held them all in memory."""

import json
import random
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdx.languages import language
from sdx.methods import baselines, self_translate_train
from sdx.methods.base import Directions
from sdx.methods.cit import CIT, CITConfig
from sdx.methods.sdrrl import SDRRL, AnswerLanguageHint, SDRRLConfig, Subsets
from sdx.methods.self_translate_train import SelfTranslateTrain, SelfTranslateTrainConfig
from sdx.store.files import write_rows

EN, TH, PT = map(language, ("en", "th", "pt"))
WORDS = "the house tree water dog reads book and goes home today quickly with small green friends".split()
ENGINE = SimpleNamespace(name="mt", for_pair=lambda *_: SimpleNamespace(name="mt"))
RUN: Any = SimpleNamespace(
    source=EN,
    targets=[TH, PT],
    config=SimpleNamespace(backbone=SimpleNamespace(name="bb")),
    translator=ENGINE,
    mt=ENGINE,
    has_dictionary=True,
    has_parallel=True,
)
SEED = 3


class Task:
    """A labelled task of two parts."""

    name, plain = "t", True
    translated = fields = ("question", "answer")
    parts = (("question",), ("answer",))

    def prompt(self, fields: dict[str, str]) -> str:
        return f"Q: {fields['question']}"

    def response(self, fields: dict[str, str]) -> str:
        return fields["answer"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories of all steps that a method may read, the same in every version of this test."""
    root, dice = tmp_path_factory.mktemp("inputs"), random.Random(5)

    def text() -> str:
        return " ".join(dice.choice(WORDS) for _ in range(dice.randint(3, 12))) + "."

    def published(name: str, rows: Iterable[dict[str, Any]], file: str = "rows.jsonl") -> Path:
        (root / name).mkdir()
        write_rows(root / name / file, rows)
        return root / name

    ids = [f"q{number}" for number in range(300)]
    dice.shuffle(ids)

    def some(share: float) -> Iterable[dict[str, Any]]:
        return [{"id": id_, "text": text()} for id_ in ids if dice.random() < share]

    corpus = published("corpus", [{"id": id_, "instruction": text(), "answer": text()} for id_ in ids], "train.jsonl")
    found = {"x_L": corpus, "y_L": corpus, "corpus": corpus, "a_L": published("a", some(0.9))}
    for code in ("th", "pt"):
        for side in "xya":
            found[f"{side}_{code}"] = published(f"{side}{code}", some(0.8))
        found[f"words_{code}"] = published(f"w{code}", [{"id": word, "translations": [word[::-1]]} for word in WORDS])
        pairs = (
            {"id": f"p{number}", "source": text(), "target": f"{text()}  {text()}", "origin": "udhr"}
            for number in range(50)
        )
        found[f"p_{code}"] = found[f"p/{code}"] = published(f"p{code}", pairs)
        for name in ("tgt", "mt"):
            for field in Task.fields:
                found[f"{name}/{field}/{code}"] = published(f"{name}{field}{code}", some(0.8))
    found["d_L"] = published("dl", [{"id": id_, "question": text(), "answer": text()} for id_ in ids], "train.jsonl")
    return found


def digest(rows: Iterable[dict[str, Any]]) -> tuple[int, str]:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    return len(lines), sha256("".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("hint", "expected"), [("none", "c8cd89820390d75a"), ("cross", "d092f1040248d6a2"), ("all", "a0c260b8ee668443")]
)
def test_sdrrl(hint: str, expected: str, inputs: dict[str, Path]) -> None:
    weights = Subsets(ll=1.5, tl=0.5, lt=2, tt=1, cs=0.7, translate=1.2, complete=1)
    config = SDRRLConfig("", "sdrrl", subsets=weights, answer_language_hint=AnswerLanguageHint(hint))
    assert digest(SDRRL(config).pairs(RUN, inputs, SEED)) == (2309, expected)


def test_sdrrl_without_some_subsets(inputs: dict[str, Path]) -> None:
    config = SDRRLConfig("", "sdrrl", subsets=Subsets(ll=0, cs=0, translate=0))
    assert digest(SDRRL(config).pairs(RUN, inputs, SEED)) == (1264, "cbe9cf3feb082542")


def test_cit_and_the_baselines(inputs: dict[str, Path]) -> None:
    cit = CIT(CITConfig("", "cit", subsets=Directions(ll=0.4, tl=1.3)))
    assert digest(cit.pairs(RUN, inputs, SEED)) == (1613, "b28c3ed9c93e8a56")
    assert digest(baselines.gold(RUN, inputs, SEED)) == (300, "3c2d8c74069cd6ca")
    translate_sft = baselines.TranslateSFT(baselines.TranslateSFTConfig("", "translate_sft"))
    assert digest(translate_sft.pairs(RUN, inputs, SEED)) == (386, "3f863169f5c2cf86")


@pytest.mark.parametrize(
    ("mixture", "rows", "expected"),
    [
        ("src", 300, "2bf19e4b9e8119cd"),
        ("src+tgt", 692, "974d96a1ea4bad0a"),
        ("tgt+src+cs", 1084, "468d0d27fd0e0b77"),
        ("src+mt", 685, "abd62d4967ee4846"),
        ("cs+parallel", 592, "cbdae44448f90f2c"),
    ],
)
def test_self_translate_train(
    mixture: str, rows: int, expected: str, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_translate_train, "_task", lambda run: Task())
    method = SelfTranslateTrain(SelfTranslateTrainConfig("", "self_translate_train", mixture=mixture))
    assert digest(method.pairs(RUN, inputs, SEED)) == (rows, expected)
