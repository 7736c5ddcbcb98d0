"""Every reader of the user's files, every kind of damage: one line that names the file that was opened."""

import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.config import CorpusColumns, CorpusConfig, ParallelConfig, ScaleConfig, TextConfig
from sdx.data.corpus import corpus_step
from sdx.data.parallel import parallel_step
from sdx.languages import language
from sdx.planning.reading import check_files
from sdx.stacking.english_texts import texts_step
from sdx.store.files import read_rows
from sdx.store.step import Step, Workspace
from sdx.store.store import Store
from sdx.tasks.base import Mode
from sdx.tasks.files import LabelledFilesConfig
from sdx.tasks.forms import Classification
from sdx.tasks.hub import MKQA, Belebele, Flores, XLSum
from sdx.tasks.items import items_step
from sdx.tasks.reading import training_step
from sdx.translation.base import TranslationContext
from sdx.translation.self_translation import SelfTranslation
from tests.kit.task_files import Rows, belebele_rows, nli_rows

EN, TH = language("en"), language("th")
NLI = [{**row, "label": n % 3} for n, row in enumerate(nli_rows(12))]
PAIRS = [{"source": f"A sentence of number {n}.", "target": f"ประโยคที่ {n} นี้"} for n in range(12)]
MKQA_ROWS = [
    {"example_id": n, "queries": {"th": f"q {n}"}, "answers": {"th": [{"type": "entity", "text": f"a {n}"}]}}
    for n in range(12)
]


def corpus(path: str, _: Path) -> Any:
    config = CorpusConfig("mine", path=path, columns=CorpusColumns(id="id"))
    return corpus_step(config, ScaleConfig("s", heldout_rows=2), TH)


def parallel(path: str, _: Path) -> Any:
    return parallel_step(ParallelConfig("mine", path=path.replace("{language}", "{target}")), EN, TH, 0)


def demonstrations(path: str, folder: Path) -> Any:
    engine = SelfTranslation(8, path.replace("{language}", "{target}"), "\n\n")
    engine.attach(TranslationContext(None, None, None, lambda *_: None, folder))  # type: ignore[arg-type]
    return engine._shots("eng_Latn", "tha_Thai")


def labelled(split: str, path: str, folder: Path) -> Any:
    paths = {split: path}
    for other in {"train", "validation", "test"} - {split}:
        paths[other] = str(folder / f"good-{other}.jsonl")
        Path(paths[other]).write_bytes(jsonl([{**row, "premise": f"{row['premise']} {other}"} for row in NLI]))
    made = xnli(**paths)
    return items_step(made, Mode.read, TH, 0) if split == "test" else training_step(made, EN, 0, 4)


def xnli(columns: Mapping[str, str] | None = None, labels: Sequence[str] = (), **paths: str) -> Classification:
    """As conf/task/xnli.yaml describes it."""
    named = {"premise": "premise", "hypothesis": "hypothesis", "label": "label", **(columns or {})}
    codes = {"train": None, "validation": "xnli", "test": "xnli"}
    splits = {
        split: LabelledFilesConfig(path=paths.get(split), codes=code, columns=dict(named), labels=list(labels))
        for split, code in codes.items()
    }
    words = ["True", "Neither", "False"]
    prompt = "{premise} {hypothesis}"
    return Classification(0, "xnli", "XNLI", prompt, ["premise", "hypothesis"], words, **splits)


def realised(step: Step, folder: Path) -> Path:
    """As `Store.realise`, without what takes time."""
    path = folder / step.name / step.key
    if not path.exists():
        path.mkdir(parents=True)
        step.run(Workspace(path, {name: realised(inner, folder) for name, inner in step.inputs.items()}))
    return path


READERS: dict[str, tuple[Rows, str, Callable[[str, Path], Any]]] = {
    "corpus": ([{"id": n, "instruction": f"Do {n}.", "answer": f"Done {n}."} for n in range(12)], "answer", corpus),
    "parallel": (PAIRS, "target", parallel),
    "demonstrations": (PAIRS, "target", demonstrations),
    "text": (
        [{"text": f"Text {n}."} for n in range(12)],
        "text",
        lambda path, _: texts_step(TextConfig("x", path=path), 99),
    ),
    "test": (NLI, "premise", lambda path, folder: labelled("test", path, folder)),
    "train": (NLI, "premise", lambda path, folder: labelled("train", path, folder)),
    "validation": (NLI, "label", lambda path, folder: labelled("validation", path, folder)),
    "belebele": (
        belebele_rows(12, "th"),
        "mc_answer2",
        lambda path, _: items_step(Belebele(0, path, None, None, None), Mode.rank, TH, 0),
    ),
    "flores": (
        [{"id": n, "text": f"s {n}"} for n in range(12)],
        "text",
        lambda path, _: items_step(Flores(0, path, None, None, None), Mode.generate, TH, 0),
    ),
    "xlsum": (
        [{"id": f"i{n}", "text": f"t {n}", "summary": f"s {n}"} for n in range(12)],
        "summary",
        lambda path, _: items_step(XLSum(0, path, None, None, None), Mode.generate, TH, 0),
    ),
    "mkqa": (MKQA_ROWS, "queries", lambda path, _: items_step(MKQA(0, path, None, None, None), Mode.generate, TH, 0)),
}
CODES = {"belebele": "tha_Thai", "flores": "tha_Thai", "xlsum": "thai", "text": "x", "train": "en", "validation": "en"}
ONE_FILE = ("text",)
"""Of no language."""
NESTED = ("mkqa",)


def jsonl(rows: Rows, end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def table(rows: Rows, delimiter: str) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet(rows: Rows) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    out = pyarrow.BufferOutputStream()
    write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue().to_pybytes()


def spoilt(rows: Rows, column: str, value: Any) -> Rows:
    """Most rows, so that no reader takes the rest for enough."""
    return [row if n < 2 else {**row, column: value} for n, row in enumerate(rows)]


def without(rows: Rows, column: str) -> Rows:
    return [{name: value for name, value in row.items() if name != column} for row in rows]


DAMAGES: dict[str, tuple[str, Callable[[Rows, str], bytes]]] = {
    "nothing": ("jsonl", lambda *_: b""),
    "nothing in an archive": ("jsonl.gz", lambda *_: b""),
    "blank": ("jsonl", lambda *_: b"\n\r\n  \n"),
    "half an archive": ("jsonl.gz", lambda rows, _: gzip.compress(os.urandom(99).hex().encode() + jsonl(rows))[:-9]),
    "no archive": ("jsonl.gz", lambda rows, _: jsonl(rows)),
    "half a parquet": ("parquet", lambda rows, _: parquet(rows)[:-9]),
    "no parquet": ("parquet", lambda rows, _: jsonl(rows)),
    "half a line": ("jsonl", lambda rows, _: jsonl(rows)[:-9]),
    "zeroes": ("jsonl", lambda rows, _: jsonl(rows) + b"\0" * 4096),
    "utf-16": ("jsonl", lambda rows, _: jsonl(rows).decode().encode("utf-16")),
    "latin-1": ("jsonl", lambda rows, _: jsonl(rows) + '{"é": 1}'.encode("latin-1")),
    "array": ("jsonl", lambda rows, _: json.dumps(rows).encode()),
    "no column": ("jsonl", lambda rows, column: jsonl(without(rows, column))),
    "no column in a parquet": ("parquet", lambda rows, column: parquet(without(rows, column))),
    "no column in a csv": ("csv", lambda rows, column: table(without(rows, column), ",")),
    "no column in a tsv": ("tsv.gz", lambda rows, column: gzip.compress(table(without(rows, column), "\t"))),
    "empty": ("jsonl", lambda rows, column: jsonl(spoilt(rows, column, " "))),
    "null": ("jsonl", lambda rows, column: jsonl(spoilt(rows, column, None))),
    "nan": ("jsonl", lambda rows, column: jsonl(spoilt(rows, column, float("nan")))),
    "object": ("jsonl", lambda rows, column: jsonl(spoilt(rows, column, {"deep": [1]}))),
    "true": ("jsonl", lambda rows, column: jsonl(spoilt(rows, column, True))),
}
HARMLESS = {("text", kind) for kind in ("empty", "null", "nan")} | {
    (reader, kind) for reader in ("parallel", "validation") for kind in ("empty", "null", "nan")
}
"""Rows without a text are left out and counted, as long as there are others."""


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_one_line_that_names_the_file(reader: str, kind: str, tmp_path: Path):
    rows, column, step = READERS[reader]
    ending, damage = DAMAGES[kind]
    if reader in NESTED and ("csv" in kind or "tsv" in kind):
        pytest.skip("its columns are objects")
    opened, path = place(tmp_path, reader, ending)
    opened.write_bytes(damage(rows, column))
    try:
        realised(step(path, tmp_path), tmp_path / "cache")
    except InputError as error:
        message = str(error)
        assert str(opened) in message
        assert "\n" not in message
        assert "{language}" not in message
        assert len(message) < 900
    else:
        assert (reader, kind) in HARMLESS


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet", "csv", "csv.gz", "tsv"])
def test_what_people_write_is_read(reader: str, ending: str, tmp_path: Path):
    """With byte-order marks, Windows' line ends, blank lines, and in every format."""
    rows, _, step = READERS[reader]
    if reader in NESTED and ending[0] in "ct":
        pytest.skip("its columns are objects")
    content = {"j": lambda: b"\xef\xbb\xbf\r\n" + jsonl(rows, "\r\n\r\n"), "p": lambda: parquet(rows)}
    content |= {"c": lambda: b"\xef\xbb\xbf" + table(rows, ","), "t": lambda: table(rows, "\t")}
    opened, path = place(tmp_path, reader, ending)
    raw = content[ending[0]]()
    opened.write_bytes(gzip.compress(raw) if ending.endswith(".gz") else raw)
    plain, plain_path = place(tmp_path / "plain", reader, "jsonl")
    plain.write_bytes(jsonl(rows))
    found, wanted = (realised(step(one, tmp_path), tmp_path / "cache") for one in (path, plain_path))
    if reader != "demonstrations":  # which are published as they are
        for file in wanted.glob("*.jsonl"):
            assert without_numbers(read_rows(found / file.name)) == without_numbers(read_rows(file))
    check_files(Store(tmp_path / "other"), [step(path, tmp_path)])
    assert not (tmp_path / "other/artifacts").exists(), "a plan writes nothing"


def without_numbers(rows: Rows) -> Rows:
    return [{name: str(value) for name, value in row.items() if name != "id"} for row in rows]


@pytest.mark.parametrize("reader", READERS)
def test_a_directory_is_no_file(reader: str, tmp_path: Path):
    opened, path = place(tmp_path, reader, "jsonl")
    opened.mkdir()
    with pytest.raises(InputError, match=f"{opened} is a directory; give the path of a file in it"):
        READERS[reader][2](path, tmp_path)


@pytest.mark.parametrize("reader", sorted(READERS.keys() - {"demonstrations"}))
def test_a_plan_reads_what_is_here(reader: str, tmp_path: Path):
    opened, path = place(tmp_path, reader, "jsonl.gz")
    opened.write_bytes(b"no archive")
    with pytest.raises(InputError, match=f"{opened} is no whole gzip file"):
        check_files(Store(tmp_path / "cache"), [READERS[reader][2](path, tmp_path)])


@pytest.mark.parametrize("reader", ["test", "flores", "mkqa"])
def test_an_id_is_there_once(reader: str, tmp_path: Path):
    rows, _, step = READERS[reader]
    named = {"id": {"id": "i"}, "example_id": {"example_id": 3}}
    opened, path = place(tmp_path, reader, "jsonl")
    opened.write_bytes(jsonl([{**row, **named["example_id" if reader == "mkqa" else "id"]} for row in rows]))
    made = step(path, tmp_path)
    if reader == "test":
        made = items_step(xnli({"id": "id"}, test=path), Mode.read, TH, 0)
    with pytest.raises(InputError, match=f"{opened}, line 2 has the id [i3] again"):
        realised(made, tmp_path / "cache")


def place(folder: Path, reader: str, ending: str) -> tuple[Path, str]:
    """(the file that is opened, the option's value)"""
    folder.mkdir(exist_ok=True)
    name = "in" if reader in ONE_FILE else "in-{language}"
    code = CODES.get(reader, "th")
    return folder / f"{name}.{ending}".replace("{language}", code), str(folder / f"{name}.{ending}")


@pytest.mark.parametrize("reader", ["test", "train", "validation"])
def test_a_label_that_is_none_is_named_with_those_that_are(reader: str, tmp_path: Path):
    opened, path = place(tmp_path, reader, "csv")
    opened.write_bytes(table([*NLI[:4], {**NLI[4], "label": "entailment"}, *NLI[5:]], ","))
    with pytest.raises(
        InputError, match=rf"{opened}, line 6 has the label 'entailment' in `label`, .* True, Neither, False; .*labels="
    ):
        realised(READERS[reader][2](path, tmp_path), tmp_path / "cache")


@pytest.mark.parametrize("given", [["True", "Neither", "False"], ["entailment", "neutral", "contradiction"]])
def test_labels_as_words(given: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The task's own need no option; those of a file are given with it. A label that no row has is told."""
    path = tmp_path / "test-th.csv"
    path.write_bytes(table([{**row, "label": given[row["label"]]} for row in NLI if row["label"]], ","))
    made = xnli(labels=() if given[0] == "True" else given, test=str(path.with_name("test-{language}.csv")))
    items = read_rows(realised(items_step(made, Mode.read, TH, 0), tmp_path) / "rows.jsonl")
    assert {row["segments"][0]: row["label"] for row in items} == {
        row["premise"].strip(): row["label"] for row in NLI if row["label"]
    }
    assert f"{path} has no row with the label True" in caplog.text


def test_whole_numbers_as_pandas_writes_them(tmp_path: Path):
    path = tmp_path / "test-th.csv"
    path.write_bytes(table([{**row, "label": f"{row['label']}.0" if row["label"] else ""} for row in NLI], ","))
    items = read_rows(realised(items_step(xnli(test=str(path)), Mode.read, EN, 0), tmp_path) / "rows.jsonl")
    assert sorted(row["label"] for row in items) == [1] * 4 + [2] * 4
    path.write_bytes(table([{**row, "label": "1.5"} for row in NLI], ","))
    with pytest.raises(InputError, match=r"line 2 has the label .1\.5."):
        realised(items_step(xnli(test=str(path)), Mode.read, EN, 0), tmp_path)
