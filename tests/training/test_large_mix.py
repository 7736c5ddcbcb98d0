"""From a corpus to tokens, memory holds places and hashes of the rows and not the rows."""

import json
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sdx.config import CorpusColumns, CorpusConfig, FilterConfig, ScaleConfig, TemplateKind
from sdx.data.corpus import corpus_step
from sdx.data.filters import Filter
from sdx.languages import language
from sdx.methods.base import Mix, corpus_texts, pairs, texts
from sdx.process import pool
from sdx.store import row_step
from sdx.store.files import write_rows
from sdx.store.step import Step
from sdx.store.store import Store
from sdx.training.tokens import Tokens
from tests.kit.plain_step import PlainStep

EN = language("en")
FEW, MANY = 1000, 3000
TEXT_BYTES, MOST_BYTES = 600, 400
"""Of each text, and of memory that a row more may take."""


def text(number: int) -> str:
    return f"word{number} " * (TEXT_BYTES // len(f"word{number} "))


def chain(folder: Path, rows: int, model_dir: Path) -> list[Step]:
    file = folder / f"{rows}.jsonl"
    with file.open("w") as lines:
        for number in range(rows):
            lines.write(json.dumps({"id": number, "instruction": text(number), "answer": "yes"}) + "\n")

    def translated(work: Any) -> None:
        found = ({"id": str(number), "source": text(number), "text": text(number + 1)} for number in range(rows))
        write_rows(work.dir / "rows.jsonl", found)

    def build(inputs: Mapping[str, Path], seed: int) -> Iterator[dict[str, Any]]:
        x = corpus_texts(inputs["corpus"], "instruction", EN)
        return pairs("gold", x, texts(inputs["good"], EN, "mt"))

    config = CorpusConfig("large", path=str(file), columns=CorpusColumns(id="id"))
    corpus = corpus_step(config, ScaleConfig(corpus_rows=0, heldout_rows=1), EN)
    filters = FilterConfig()
    translation = PlainStep(f"translate{rows}", translated)
    good = Filter(translation, ["empty", "length_ratio"], EN, EN, filters)
    mix = Mix("large", {}, 1, {"corpus": corpus, "good": good}, build=build, version=1)
    backbone = PlainStep("backbone", lambda work: (work.dir / "model").symlink_to(model_dir))
    return [corpus, translation, good, mix, backbone, Tokens(mix, backbone, TemplateKind.auto, 1024)]


@pytest.mark.long
def test_memory_does_not_grow_with_the_texts(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_step, "POOLED_ROWS", 128)
    monkeypatch.setattr(pool, "cores", lambda: 1)
    store, peaks = Store(tmp_path / "cache"), dict[str, list[int]]()
    for rows in (10, FEW, MANY):  # the first loads what there is to load
        for step in chain(tmp_path, rows, model_dir):
            tracemalloc.start()
            store.realise(step)
            peaks.setdefault(step.name.rstrip("0123456789"), []).append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    growth = {name: (many - few) / (MANY - FEW) for name, (_, few, many) in peaks.items()}
    print(growth)
    for name in ("corpus", "filter", "mix", "tokens"):
        assert growth[name] < MOST_BYTES, growth
