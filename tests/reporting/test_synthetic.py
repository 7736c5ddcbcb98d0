"""What the report says about the synthetic data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdx.config import BackboneConfig, Config, CorpusConfig, LangConfig
from sdx.reporting import synthetic
from sdx.store.files import write_rows
from sdx.store.inventory import lineage
from sdx.store.step import Step, Workspace
from sdx.store.store import Store
from tests.kit.plain_step import PlainStep

DROPPED = {3: "copied", 5: "wrong_language"}
ODD = "a | b\nc <b>d</b>"


def rows() -> Iterator[dict[str, Any]]:
    for number in range(12):
        yield {"id": str(number), "source": ODD if number == 0 else f"source {number}", "text": "x" * 700}


def translation() -> Step:
    given = {
        "file": "train.jsonl",
        "field": "instruction",
        "translator": "self",
        "source": "eng_Latn",
        "target": "por_Latn",
    }
    return PlainStep(
        "translate",
        lambda work: write_rows(work.dir / "rows.jsonl", list(rows())),
        given,
        {"rows": corpus()},
        about="train instructions by self",
    )


def corpus() -> Step:
    return PlainStep("corpus", lambda work: None)


def filtered(of: Step) -> Step:
    def run(work: Workspace) -> None:
        kept = [row for row in rows() if int(row["id"]) not in DROPPED]
        dropped = [{**row, "reason": DROPPED[int(row["id"])]} for row in rows() if int(row["id"]) in DROPPED]
        write_rows(work.dir / "rows.jsonl", kept)
        write_rows(work.dir / "dropped.jsonl", dropped)
        work.counts.update(kept=len(kept), empty=0, copied=1, wrong_language=1)

    return PlainStep(
        "filter", run, {"reasons": ["empty", "copied", "wrong_language"], "language": "por_Latn"}, {"rows": of}
    )


@pytest.fixture
def config() -> Config:
    names = {"backbone": BackboneConfig(name="tiny"), "corpus": CorpusConfig(name="seed")}
    return Config(lang=LangConfig(targets={"pt": "por_Latn"}), **names)  # type: ignore[arg-type]


@pytest.fixture
def behind(tmp_path: Path) -> tuple[Store, list[Step]]:
    """The steps behind a model trained on translations."""
    store = Store(tmp_path)
    model = PlainStep(
        "train", lambda work: None, {}, {"mix": PlainStep("mix", lambda work: None, {}, {"x": filtered(translation())})}
    )
    store.realise(model)
    return store, lineage([model])


def test_each_filter_says_what_it_kept_and_dropped(behind: tuple[Store, list[Step]], config: Config):
    [found] = synthetic.filters(*behind)
    assert (found["what"], found["language"], found["rows"], found["kept"]) == (
        "train instructions by self",
        "pt",
        12,
        10,
    )
    assert found["dropped"] == {"empty": 0, "copied": 1, "wrong_language": 1}
    assert Path(found["path"]).is_file()
    assert synthetic.lines([found]) == [
        "filters  train instructions by self, pt: 10 of 12 kept (copied 1, wrong_language 1)"
    ]
    assert "| 10 (83.3 %) | copied 1 (8.3 %), wrong_language 1 (8.3 %) |" in synthetic.filter_table([found])


def test_of_many_filters_the_terminal_names_those_that_dropped_the_most():
    many = [
        {"what": str(n), "language": None, "rows": 10, "kept": n, "dropped": {"empty": 10 - n}} for n in range(9, 0, -1)
    ]
    shown = synthetic.lines(many)
    assert [line.split(":")[0] for line in shown[:-1]] == [f"filters  {n}" for n in range(1, 6)]
    assert shown[-1] == "filters  4 more, which dropped less, are in report.md"


def test_ten_translations_in_an_order_that_does_not_change(behind: tuple[Store, list[Step]], config: Config):
    found = synthetic.translations(*behind)
    assert len(found) == 10
    assert found == synthetic.translations(*behind)
    assert [row["id"] for row in found] != sorted(row["id"] for row in found)
    assert all(row["reason"] == DROPPED.get(int(row["id"]), "kept") for row in found)


def test_texts_stay_in_their_cells():
    row = {"what": "x", "language": "pt", "id": "0", "source": ODD, "text": ["y" * 700, "z"], "reason": "kept"}
    heading, table, _ = synthetic.translation_tables([row])
    assert heading == "**x, pt**"
    assert table.splitlines()[-1] == f"| 0 | a \\| b<br>c &lt;b&gt;d&lt;/b&gt; | {'y' * 600}... | kept |"
