"""Weights of subsets, provenance of rows, language hints; filters."""

from pathlib import Path

import pytest

from sdx.artifacts import Step, Store, read_rows, write_rows
from sdx.data.corpus import SEED_CORPUS, read_corpus
from sdx.data.filters import filter_step, repeats
from sdx.data.mixture import pair, weigh, with_language_hint
from sdx.languages import language

ROWS = [{"id": str(n)} for n in range(1000)]


@pytest.mark.parametrize(("weight", "low", "high"), [(0, 0, 0), (1, 1000, 1000), (2, 2000, 2000), (0.5, 450, 550)])
def test_weight_is_the_expected_number_of_times_each_row_is_taken(weight: float, low: int, high: int):
    taken = weigh(ROWS, weight, seed=1)
    assert low <= len(taken) <= high
    assert len({row["id"] for row in taken}) == len(taken)


def test_fractions_are_nested_so_that_ablations_share_their_rows():
    small, large = ({row["id"] for row in weigh(ROWS, weight, seed=1)} for weight in (0.2, 0.6))
    assert small < large
    assert small != {row["id"] for row in weigh(ROWS, 0.2, seed=2)}


def test_a_pair_says_where_it_came_from():
    en, th = language("en"), language("th")
    row = pair("q1", "lt", ("Why?", en, "corpus"), ("เพราะ", th, "nllb"))
    assert row["id"] == "q1/lt/en-th"
    assert (row["prompt_origin"], row["response_origin"]) == ("corpus", "nllb")
    assert (row["prompt_language"], row["response_language"]) == ("eng_Latn", "tha_Thai")
    assert with_language_hint(row["prompt"], th) == "Why?\n\nAnswer in Thai."


def test_filters_count_by_reason_and_keep_what_they_drop(tmp_path: Path):
    rows = [
        {"id": "a", "text": "fine", "finished": True},
        {"id": "b", "text": " \n", "finished": True},
        {"id": "c", "text": "cut in the mid", "finished": False},
        {"id": "d", "text": "and so on " * 9, "finished": True},
    ]
    source = Step("generate", lambda w: write_rows(w.dir / "rows.jsonl", rows))
    store = Store(tmp_path)
    step = filter_step(source, ["empty", "truncated", "repetition"])
    path = store.realise(step)
    assert [row["id"] for row in read_rows(path / "rows.jsonl")] == ["a"]
    assert {row["id"]: row["reason"] for row in read_rows(path / "dropped.jsonl")} == {
        "b": "empty",
        "c": "truncated",
        "d": "repetition",
    }
    assert store.manifest(step)["counts"] == {"kept": 1, "empty": 1, "truncated": 1, "repetition": 1}
    assert len(read_rows(store.realise(filter_step(source, [])) / "rows.jsonl")) == 4


def test_loops_are_found_in_any_script_and_ordinary_texts_are_not():
    assert repeats("o que é o que é o que é o que é o que é")
    assert repeats("ประเทศไทยสวย" * 8)
    assert not repeats("- Buy milk.\n- Buy bread.\n- Buy butter and a little cheese.")
    assert not repeats("ok")
    assert not any(repeats(row["answer"]) for row in read_corpus(SEED_CORPUS))
