"""MT-encoder stacking: the paper's tasks through the real entry point, on a tiny NLLB and a tiny Llama from disk."""

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.methods import mt_stack
from sdx.planning.show import show
from sdx.run import prepare
from sdx.store.files import read_json, read_rows
from sdx.store.step import Step
from sdx.store.store import Store
from tests.kit import forks
from tests.kit.configs import composed, resolved, step_keys
from tests.kit.task_files import jsonl, read_files
from tests.kit.tiny import tiny_encoder, tiny_model, tiny_nllb

ROOT = Path(__file__).parents[2]
CODES = ("eng_Latn", "tha_Thai", "deu_Latn", "ace_Latn", "sun_Latn", "swh_Latn")
SYSTEMS = {"LLM alone", "encoder alone", "without alignment", "translate-test"}
SMALL = (
    "backbone=path",
    "encoder=path",
    "text=file",
    "text.path=texts.jsonl",
    "translator=path",
    "translator.precision=fp32",
    "translator.num_beams=1",
    "scale.text_rows=24",
    "scale.eval_items=4",
    "method.validation_rows=6",
    "method.alignment.batch_size=8",
    "scale.epochs=1",
    "train.batch_size=16",
    "train.optimizer=adamw",
    "train.validations=1",
    "engine.precision=fp32",
    "engine.compile=false",
    "tracking=none",
)
FILES = {
    "xnli": ("mnli.parquet", "xnli.{language}.parquet", "xnli.valid.parquet"),
    "nusax": ("nusax/{language}-train.parquet", "nusax/{language}-test.parquet", "nusax/{language}-validation.parquet"),
    "belebele_mc": ("assembled.jsonl", "belebele/{language}.jsonl", None),
}

EXPERIMENTS = {"xnli": "mt_llm_xnli", "nusax": "mt_llm_nusax", "belebele_mc": "mt_llm_belebele"}


class Place:
    """A directory with tiny models, files in the hub's columns and a cache."""

    def __init__(self, path: Path) -> None:
        self.path = path
        tiny_model(path / "llama", chat=False)
        tiny_nllb(path / "nllb", codes=CODES)
        tiny_encoder(path / "xlmr", "xlm-roberta")
        read_files(path / "hub")
        words = "sun moon river stone bread water child house".split()
        texts = [
            {"text": f"The {one} is near the {two}, and {n} more."} for n, one in enumerate(words) for two in words
        ]
        texts += [{"text": " ".join(words * 3)}]  # longer than what XLM-R's positions reach
        jsonl(path / "texts.jsonl", texts[::-1])

    def sdx(self, task: str, *overrides: str, flags: tuple[str, ...] = ()) -> tuple[list[Path], str]:
        """Runs one of the paper's experiments, made small and with local files; its runs and what it printed."""
        given = zip(("train", "test", "validation"), FILES[task], strict=True)
        files = [f"task.{task}.{split}.path='hub/{file}'" for split, file in given if file]
        models = ("backbone.path=llama", "encoder.path=nllb", "translator.path=nllb")
        given = (f"+experiments={EXPERIMENTS[task]}", *models, *files, *SMALL, *overrides, *flags)
        done = forks.sdx(*given, cwd=self.path, environment={"SDX_CACHE": str(self.path / "cache")})
        printed = done.stdout + done.stderr
        assert done.returncode == 0, printed
        assert "LOAD REPORT" not in printed
        return [self.path / run for run in re.findall(r"run +(\S*runs/[^,\s]+), cache", printed)], printed

    def made(self, name: str) -> list[Any]:
        """The manifests of the steps of a name."""
        paths = (self.path / "cache/artifacts" / name).glob("*/manifest.json")
        return [read_json(path) for path in paths]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


ROW = re.compile(r"^\| .+ \| \[[P2O]\] \| ([\w/]+\.py):([\w.]+) \|$")


def test_the_table_of_the_papers_statements_names_what_there_is():
    lines = [line for line in str(mt_stack.__doc__).splitlines() if line.startswith("| ")][1:]
    assert len(lines) > 25
    for line in lines:
        found = ROW.match(line)
        assert found, line
        scope: ast.AST = ast.parse((ROOT / "sdx" / found[1]).read_text(encoding="utf-8"))
        for name in found[2].split("."):
            inner = [node for node in getattr(scope, "body", ()) if getattr(node, "name", None) == name]
            assert inner, line
            [scope] = inner


def test_each_scale_has_its_recipe():
    """The paper's, but for two cores; what is given wins over both."""
    paper, laptop = composed("method=mt_stack", "scale=full"), composed("method=mt_stack")
    assert paper.method.learning.value == "distillation"
    assert (paper.method.alignment.batch_size, paper.scale.text_rows) == (256, 10_000 * 256 + 256)
    assert (paper.train.learning_rate, paper.train.batch_size, paper.train.lora_dropout) == (1e-4, 32, 0.05)
    assert (laptop.scale.name, laptop.method.learning.value, laptop.method.bridge_rate) == (
        "stack_laptop",
        "direct",
        10,
    )
    assert (laptop.method.alignment.batch_size, laptop.train.learning_rate) == (16, 5e-4)
    given = composed("method=mt_stack", "train.learning_rate=3e-4", "method.learning=distillation")
    assert (given.train.learning_rate, given.method.learning.value) == (3e-4, "distillation")
    assert composed("method=sft", "scale=stack_laptop").train.adapter.value == "full"


XNLI = ("seed=42", "lang=[de,th]")


@pytest.fixture(scope="module")
def sweep(place: Place) -> tuple[dict[str, Path], str]:
    """Runs by how the task is learnt, and what the sweep printed."""
    runs, printed = place.sdx("xnli", *XNLI, "method.learning=distillation,direct", flags=("-m",))
    return {read_json(run / "results.json")["config"]["method"]["learning"]: run for run in runs}, printed


def test_every_system_is_scored_in_every_language(sweep: tuple[dict[str, Path], str]):
    runs, _ = sweep
    for learning, run in runs.items():
        results, goal = read_json(run / "results.json"), {"direct": "classification"}.get(learning, learning)
        found = {(score["system"], score["language"]) for score in results["scores"]}
        assert found == {(system, code) for system in SYSTEMS for code in ("en", "de", "th")} - {
            ("translate-test", "en")
        }
        for score in results["scores"]:
            assert score["before"]["n"] == score["after"]["n"] == score["difference"]["n"] == 4
        assert results["skipped"] == []
        main = (run / "model").resolve().parent
        assert results["training"] == read_json(main / "manifest.json")["counts"]
        assert read_json(main / "manifest.json")["config"]["goal"] == goal
        what = [(step["name"], step["what"], step["language"]) for step in results["steps"]]
        assert max(Counter(line for line in what if line[0] in ("train", "classify")).values()) == 1
        assert {text for name, text, _ in what if name == "train"} == {
            "stack, alignment",
            f"stack, {goal}",
            f"without alignment, {goal}",
            "LLM alone, classification",
            "encoder alone, classification",
        }
        assert ("classify", "xnli, translate-test", "th") in what
        report = (run / "report.md").read_text()
        assert "| translate-test |" in report
        assert "`mt_stack` minus each system:" in report


def test_two_ways_to_learn_the_task_share_everything_else(place: Place, sweep: tuple[dict[str, Path], str]):
    runs, printed = sweep
    goals = Counter(manifest["config"]["goal"] for manifest in place.made("train"))
    # Distillation and labels of the stack with and without alignment, the teacher, and the encoder alone.
    assert goals == {"alignment": 1, "distillation": 2, "classification": 4}
    for name, count in (("texts", 1), ("tokens", 1), ("training", 1), ("stack", 3), ("vectors", 1), ("translate", 2)):
        assert len(place.made(name)) == count, name
    assert "next     python -m sdx method=mt_stack method.learning=direct task=xnli encoder=path" in printed
    [comparison] = (place.path / "runs").glob("*.md")
    assert all(run.name in comparison.read_text() for run in runs.values())


def test_the_same_command_again_is_all_cache(place: Place, sweep: tuple[dict[str, Path], str]):
    runs, _ = sweep
    before = read_json(runs["direct"] / "results.json")["scores"]
    [again], printed = place.sdx("xnli", *XNLI, "method.learning=direct")
    assert again == runs["direct"]
    assert "starts" not in printed
    assert read_json(again / "results.json")["scores"] == before


def test_a_saved_stack_loads_as_a_classifier_and_reads_any_language(sweep: tuple[dict[str, Path], str]):
    import torch
    from transformers import AutoModelForSequenceClassification

    import sdx.stacking.model

    runs, _ = sweep
    model = AutoModelForSequenceClassification.from_pretrained(runs["direct"] / "model")
    assert isinstance(model, sdx.stacking.model.StackForSequenceClassification)
    assert model.config.id2label == {0: "True", 1: "Neither", 2: "False"}
    assert model.classifier.bias is None
    pair = ("test premise 0 th", "hypothesis 0 th")
    one, other = (model.encode([pair], lang=code) for code in ("th", "de"))
    assert one.shape == (1, 64)
    assert not torch.equal(one, other)


def test_labels_are_written_behind_what_the_encoder_read(place: Place):
    from transformers import AutoModelForCausalLM

    import sdx.stacking.generation

    causal = ("method.bidirectional=false", "method.encoder_baseline=probe")
    [run], _ = place.sdx("xnli", *XNLI, "method.learning=generation", *causal)
    results = read_json(run / "results.json")
    found = {(score["system"], score["language"]) for score in results["scores"]}
    assert found == {(system, code) for system in SYSTEMS for code in ("en", "de", "th")} - {("translate-test", "en")}
    assert {step["what"] for step in results["steps"] if step["name"] == "train"} == {
        "stack, alignment",
        "stack, generation",
        "without alignment, generation",
        "LLM alone, generation",
        "encoder alone, probe",
    }
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    assert isinstance(model, sdx.stacking.generation.StackForCausalLM)
    answers = [step for step in results["steps"] if step["name"] == "classify" and step["language"] == "th"]
    rows = {step["what"]: read_rows(Path(step["path"]) / "rows.jsonl") for step in answers}
    assert {tuple(row) for row in rows.pop("xnli, encoder alone")} == {("id", "gold", "choice", "acc", "log_probs")}
    assert len(rows) == len(SYSTEMS)
    labels = ["True", "Neither", "False"]
    for its in rows.values():
        assert [row["acc"] for row in its] == [row["text"] == labels[row["gold"]] for row in its]
    pair = ("test premise 0 th", "hypothesis 0 th")
    one, other = (model.generate([pair], lang=code, max_new_tokens=8) for code in ("th", "de"))
    assert one != other


def test_choices_of_an_answer(place: Place):
    from transformers import AutoModelForMultipleChoice

    import sdx.stacking.model

    overrides = ("method.baselines=[llm]", "method.learning=distillation", "lang=[th,sw]")
    [run], _ = place.sdx("belebele_mc", *overrides)
    results = read_json(run / "results.json")
    assert {(score["system"], score["language"]) for score in results["scores"]} == {
        ("LLM alone", code) for code in ("en", "th", "sw")
    }
    rows = read_rows(next(Path(s["path"]) for s in results["steps"] if s["name"] == "classify") / "rows.jsonl")
    assert {len(row["log_probs"]) for row in rows} == {4}
    model = AutoModelForMultipleChoice.from_pretrained(run / "model")
    assert isinstance(model, sdx.stacking.model.StackForMultipleChoice)
    assert model.encode(["Passage 1."], lang="sw").shape == (1, 64)


def test_the_stack_by_itself_without_words_and_with_a_random_bridge(place: Place):
    options = ("method.alignment.words=false", "method.bridge.projection=random", "method.learning=direct")
    lengths = ("encoder.path=xlmr", "scale.max_length_tokens=64", "method.alignment.max_length_tokens=64")
    made = len(place.made("train"))
    [run], _ = place.sdx("nusax", *options, *lengths, "method.baselines=[]", "lang=[ace_Latn,su]")
    results = read_json(run / "results.json")
    assert [(score["language"], score["system"], score["after"]) for score in results["scores"]] == [
        (code, "", None) for code in ("en", "ace_Latn", "su")
    ]
    assert len(place.made("train")) == made + 2
    [fitted] = [step for step in results["steps"] if step["name"] == "stack"]
    assert fitted["counts"]["r2"] == 0
    assert len(read_rows((run / "model").resolve().parent / "log.jsonl")) == results["training"]["steps"]


@pytest.mark.parametrize(("task", "hours"), [("xnli", (30, 100)), ("nusax", (25, 80)), ("belebele_mc", (50, 300))])
def test_the_papers_sizes_are_planned(task: str, hours: tuple[int, int], tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("sdx.planning.show.visible_gpu", lambda: None)
    read_files(tmp_path)
    own = ("task.belebele_mc.train.path", tmp_path / "assembled.jsonl")
    config = composed(
        f"+experiments={EXPERIMENTS[task]}", *(["=".join(map(str, own))] if task == "belebele_mc" else [])
    )
    work = prepare(resolved(config), tmp_path / "run")
    found = show(resolved(config), Store(tmp_path / "cache"), work.steps)
    low, high = hours
    assert low < found["total"]["hours"]["1 x H100"] < high
    [alignment] = [step for step in found["steps"].values() if step["name"] == "train" and step["rows"] == 2_560_000]
    # 6N of the LLM a token of the student and the teacher, at about 350 TFLOP/s
    assert alignment["hours"]["1 x H100"] == pytest.approx(alignment["tokens"] * 6 * 8.0e9 / 3.46e14 / 3600, rel=0.1)
    assert "8.44B parameters, 0.0419B trained" in capsys.readouterr().out


def test_choices_are_not_written(tmp_path: Path):
    read_files(tmp_path)
    own = f"task.belebele_mc.train.path={tmp_path / 'assembled.jsonl'}"
    config = composed("+experiments=mt_llm_belebele", own, "method.learning=generation", "method.bidirectional=false")
    with pytest.raises(InputError, match=r"task=belebele_mc has none; give method\.learning=direct"):
        prepare(resolved(config), tmp_path / "run")


def test_runs_with_other_seeds_share_the_papers_alignment(tmp_path: Path):
    one, other = (step_keys(tmp_path, "+experiments=mt_llm_xnli", f"seed={seed}", "lang=th") for seed in (42, 43))
    assert len(one["train"]) == len(other["train"]) == 5
    assert len(one["train"] & other["train"]) == 1
    assert one["tokens"] == other["tokens"]
    other_task = step_keys(tmp_path, "+experiments=mt_llm_nusax", "seed=42", "lang=id")
    assert len(one["train"] & other_task["train"]) == 1
    own = (step_keys(tmp_path, "method=mt_stack", f"seed={seed}", "lang=th") for seed in (1, 2))
    assert not set.intersection(*(found["train"] for found in own))


def test_a_language_that_is_read_as_another(tmp_path: Path):
    read_files(tmp_path)
    given = ("task=kardes_nlu", f"task.kardes_nlu.test.path='{tmp_path}/kardes/{{language}}.jsonl'", "lang=[ug,uz]")
    found: list[set[tuple[str, str]]] = []
    for overrides in ((), ("method.read_as=[]",)):
        config = composed("+experiments=mt_llm_xnli", *given, *overrides)
        ends = prepare(resolved(config), tmp_path / "run").steps
        answers = [step for step in ends if step.name == "classify"]
        found.append({(step.config["language"], _asked(step)) for step in answers})
        translated = {step.inputs["items"].inputs["texts"].config["source"] for step in answers if is_translated(step)}
        assert translated == {"uzn_Latn", "uig_Arab" if overrides else "kaz_Cyrl"}
    as_kazakh, as_itself = found
    assert as_kazakh - as_itself == {("kaz_Cyrl", "uig_Arab")}
    assert as_itself - as_kazakh == {("uig_Arab", "uig_Arab")}


def test_an_llm_in_four_bits_needs_its_package_and_whole_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    four_bits = ("+experiments=mt_llm_xnli", "method.quantised=true")
    for overrides in (["engine=zero3"], ["engine=zero3_offload"]):
        config = composed(*four_bits, *overrides)
        with pytest.raises(
            InputError, match=r"engine\.zero_stage=3 does not shard weights in 4 bits; give engine=zero2"
        ):
            prepare(resolved(config), tmp_path / "run")
    plain, quantised = step_keys(tmp_path, four_bits[0]), step_keys(tmp_path, *four_bits)
    assert len(plain["train"] & quantised["train"]) == 1  # the encoder alone
    assert plain["tokens"] == quantised["tokens"]
    monkeypatch.setattr("sdx.methods.mt_stack.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"method\.quantised=true needs bitsandbytes; install it with pip install 'sdx"
    ):
        step_keys(tmp_path, *four_bits, "train.optimizer=adamw")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("uz:klingon", r'method\.read_as=\[uz:klingon\]: language "klingon" is not in the table'),
        ("uz", r"method\.read_as=\[uz\] is no pair of languages; give two with a colon"),
    ],
)
def test_no_pair_of_languages_to_read_one_as_another(tmp_path: Path, pair: str, message: str):
    config = composed("method=mt_stack", f"method.read_as=[{pair}]")
    with pytest.raises(InputError, match=message):
        prepare(resolved(config), tmp_path / "run")


def _asked(step: Step) -> str:
    """The language of the items, before any translation."""
    items = step.inputs["items"].inputs.get("items", step.inputs["items"])
    return str(items.config["language"])


def is_translated(step: Step) -> bool:
    return "texts" in step.inputs["items"].inputs


@pytest.mark.parametrize(
    ("overrides", "fixes"),
    [
        ((), "method.bridge.projection=random method.alignment.words=false"),
        (("method.bridge.projection=random",), "method.alignment.words=false"),
    ],
)
def test_an_encoder_that_knows_no_words(tmp_path: Path, overrides: tuple[str, ...], fixes: str):
    config = composed("method=mt_stack", "encoder=opus_mt", *overrides)
    with pytest.raises(InputError, match=rf"^encoder=opus_mt has a tokenizer .*; give {fixes}$"):
        prepare(resolved(config), tmp_path / "run")
    config = composed("method=mt_stack", "encoder=opus_mt", *fixes.split(), *overrides)
    assert prepare(resolved(config), tmp_path / "run").steps


def test_a_language_without_sentence_pairs_is_none_for_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without NLLB the backbone would translate into English, by examples that there are for Indonesian alone."""
    monkeypatch.setattr("sdx.translation.auto.available", lambda *_: False)  # whatever this machine has
    config = composed("method=mt_stack", "task=nusax", "lang=[id,jv]", "plan=true")
    work = prepare(resolved(config), tmp_path / "run")
    assert sum(reason.startswith("translate-test in ") for reason in work.skipped) == 2
