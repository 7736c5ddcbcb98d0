"""Tasks of lm-evaluation-harness by name: through the real entry point, and errors before the harness is loaded."""

import json
import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.config import Precision
from sdx.evaluation import asking, harness
from sdx.evaluation.harness import HarnessScore
from sdx.languages import language
from sdx.sources.hub import find_unavailable
from sdx.store.files import read_json, read_rows
from sdx.store.store import Store
from sdx.tasks.lm_eval import HarnessItems, LMEval
from tests.kit import forks
from tests.kit.suites import model_step
from tests.kit.tiny import tiny_model
from tests.kit.workplace import SMALL

EN = language("en")
CHOICE = """task: capitals_th
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: multiple_choice
test_split: test
fewshot_split: test
num_fewshot: 1
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
WRITTEN = """task: answers
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8}}
process_results: !function scoring.halves
metric_list: [{{metric: half, aggregation: mean}}, {{metric: right, aggregation: mean}}]
metadata: {{language: sw}}
"""
SCORING = """
def halves(doc, results):
    return {"half": 0.5 * (doc["gold"] % 2), "right": results[0] == doc["answer"]}
"""
KINDS = """task: {name}
dataset_path: json
dataset_kwargs: {{{{data_files: {{{{test: {{data}}}}}}}}}}
output_type: {kind}
test_split: test
doc_to_text: {text}
doc_to_target: question
process_results: !function kinds.{name}
metric_list: [{{{{metric: found, aggregation: mean}}}}]
"""
ROLLING = KINDS.format(name="rolling", kind="loglikelihood_rolling", text='""')
SAMPLED = KINDS.format(name="sampled", kind="generate_until", text="!function kinds.asked") + (
    "repeats: 2\ngeneration_kwargs: {{do_sample: true, temperature: 1.0, until: ['a'], max_gen_toks: 8}}\n"
)
MUTUAL = CHOICE.replace("capitals_th", "mutual").replace("acc_norm", "acc_mutual_info")
KINDS_OF_RESULTS = """
import random

def rolling(doc, results):
    return {"found": 1 / (1 - results[0])}

def sampled(doc, results):
    return {"found": 1 / (1 + len(results[0]))}

def asked(doc):
    return f"{random.random()} {doc['question']}"
"""
GROUP = "group: all_of_them\ntask: [capitals_th, answers]\n"
ROWS = [{"question": f"What is {n}?", "choices": ["a", "b"], "gold": n % 2, "answer": "a"} for n in range(6)]


def own(folder: Path, **files: str) -> Path:
    """A directory with tasks over local rows."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, text in {"capitals": CHOICE, "answers": WRITTEN, **files}.items():
        (folder / f"{name}.yaml").write_text(text.format(data=data))
    (folder / "all.yaml").write_text(GROUP)
    (folder / "scoring.py").write_text(SCORING)
    (folder / "kinds.py").write_text(KINDS_OF_RESULTS)
    return folder


def made(*names: str, include_path: Path | None = None, num_fewshot: int | None = None) -> LMEval:
    return LMEval(0, list(names), str(include_path) if include_path else None, num_fewshot)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    tasks = own(place / "tasks")
    given = (
        "task=[lm_eval,mmlu_human]",
        "task.lm_eval.names=[capitals_th,answers,all_of_them]",
        f"task.lm_eval.include_path={tasks}",
        f"backbone.path={tiny_model(place / 'tiny')}",
        *(one for one in SMALL if not one.startswith("parallel")),
        "method=sft",
        "lang=pt",
        "tracking=none",
    )
    done = forks.sdx(*given, cwd=place, environment={"SDX_CACHE": str(place / "cache")})
    assert done.returncode == 0, done.stdout + done.stderr
    [results] = place.glob("runs/*/results.json")
    return results.parent


def test_a_row_for_each_task_before_and_after(run: Path) -> None:
    scores = read_json(run / "results.json")["scores"]
    rows = {(one["task"], one["language"], one["metric"]): one for one in scores if one["task"] != "mmlu_human"}
    assert {where: one["before"]["n"] for where, one in rows.items()} == {
        ("capitals_th", "th", "acc"): 4,  # scale.eval_items
        ("capitals_th", "th", "acc_norm"): 4,
        ("answers", "sw", "half"): 4,
        ("answers", "sw", "right"): 4,
        ("all_of_them", "en", "acc"): 4,
        ("all_of_them", "en", "acc_norm"): 4,
        ("all_of_them", "en", "half"): 4,
        ("all_of_them", "en", "right"): 4,
    }
    half = rows["answers", "sw", "half"]
    assert (half["before"]["value"], half["after"]["value"], half["difference"]["value"]) == (25, 25, 0)
    for one in rows.values():
        assert one["origin"] == "as given"
        assert one["before"]["low"] <= one["before"]["value"] <= one["before"]["high"]
        assert one["difference"]["value"] == pytest.approx(one["after"]["value"] - one["before"]["value"])
    assert {one["language"] for one in scores if one["task"] == "mmlu_human"} == {"en", "pt"}
    report = (run / "report.md").read_text()
    assert "| capitals_th | th | acc | as given | 4 |" in report
    items = {(one["task"], one["metric"]): one for one in read_rows(run / "items.jsonl")}
    assert items["capitals_th", "acc"]["ids"] == [f"capitals_th/{n}" for n in range(4)]
    assert items["answers", "half"]["before"] == [0, 0.5, 0, 0.5]
    assert all(isinstance(value, bool) for value in items["capitals_th", "acc"]["before"])


def test_the_harness_itself_gives_the_same_scores(run: Path) -> None:
    """The harness' own loop over its own model, without sdx."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    place = run.parents[1]
    manager = TaskManager(include_defaults=False, include_path=str(place / "tasks"))
    model = HFLM(str(place / "tiny"), dtype="float32", device="cpu")
    found = simple_evaluate(model, tasks=["capitals_th"], task_manager=manager, limit=4, bootstrap_iters=0)
    scores = read_json(run / "results.json")["scores"]
    ours = {one["metric"]: one["before"]["value"] for one in scores if one["task"] == "capitals_th"}
    theirs = found["results"]["capitals_th"]
    assert ours == pytest.approx({name: 100 * theirs[f"{name},none"] for name in ("acc", "acc_norm")})


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks of every kind that the harness asks, and a model."""
    place = tmp_path_factory.mktemp("kinds")
    own(place / "tasks", mutual=MUTUAL, rolling=ROLLING, sampled=SAMPLED)
    tiny_model(place / "tiny", chat=False)
    return place


def score_step(place: Path, name: str, context_tokens: int = 1024) -> HarnessScore:
    items = HarnessItems(made(name, include_path=place / "tasks").tasks[0], EN, 4)
    return HarnessScore(model_step(place / "tiny"), items, Precision.fp32, context_tokens, label="test")


@pytest.mark.parametrize("name", ["capitals_th", "mutual", "answers", "rolling"])
def test_each_kind_of_request_has_the_harness_own_results(kinds: Path, tmp_path: Path, name: str) -> None:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    context_tokens = 24 if name == "rolling" else 1024  # several windows
    step = score_step(kinds, name, context_tokens)
    rows = read_rows(Store(tmp_path).realise(step) / "rows.jsonl")
    model = HFLM(str(kinds / "tiny"), dtype="float32", device="cpu", batch_size=8, max_length=context_tokens)
    samples = evaluate(model, step.items.task.load(), limit=4, bootstrap_iters=0)["samples"][name]
    assert len(rows) == len(samples) == 4
    for row, sample in zip(rows, samples, strict=True):
        assert row["metrics"] == pytest.approx({metric: sample[metric] for metric in sample["metrics"]}, rel=1e-4)


def test_every_process_asks_and_samples_the_same(kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the task's code draws random prompts, and its answers are sampled; also after a kill."""
    import torch

    monkeypatch.setattr(asking, "WRITTEN_AT_ONCE", 3)
    written, found, done = harness.written, [], list[str]()
    for number in (1, 2):
        random.seed(number)
        torch.manual_seed(number)
        store, step = Store(tmp_path / str(number)), score_step(kinds, "sampled")
        store.realise(step.items)
        state = random.getstate()

        def noted(lm: Any, rows: Any, number: int = number) -> Any:
            if number == 2 and len(done) == 3:
                done.append("killed")
                raise RuntimeError("killed")
            texts = written(lm, rows)
            done.extend(texts if number == 2 else ())
            return texts

        monkeypatch.setattr(harness, "written", noted)
        with pytest.raises(InputError, match="killed") if number == 2 else nullcontext():
            store.realise(step)
        found.append((store.realise(step) / "rows.jsonl").read_bytes())
        assert random.getstate() == state
    assert found[0] == found[1]
    assert len(done) == 9  # four items, each twice, and the kill
    assert len(set(done)) > 4


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("belebele_tha_Thai", "th"),
        ("global_mmlu_full_sw", "sw"),
        ("xnli_th", "th"),
        ("mgsm_direct_th", "th"),
        ("afrimmlu_direct_swa_prompt_1", "sw"),
        ("flores_nya_Latn-eng_Latn_prompt_2", "en"),
        ("global_piqa_parallel_cloze_cat_latn", "ca"),
        ("arc_easy", "en"),
    ],
)
def test_languages_and_datasets_of_the_harness_own_tasks(name: str, code: str) -> None:
    [task] = made(name).tasks
    assert task.language(EN).code == code
    assert len(task.datasets) == 1
    assert task.definitions


def test_what_decides_the_key(tmp_path: Path) -> None:
    def key(limit: int = 0, **options: Any) -> str:
        return HarnessItems(made("capitals_th", include_path=tmp_path, **options).tasks[0], EN, limit).key

    own(tmp_path)
    keys = {key(), key(3), key(num_fewshot=2)}
    assert key() in keys
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]))
    keys.add(key())
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"task\.lm_eval\.names=\[\] names no task"),
        (("beleble_tha_Thai",), r"names=beleble_tha_Thai is no task of lm-eval \S+; there are belebele_tha_Thai, "),
        (
            ("xquad_th",),
            r"names=xquad_th of lm-eval \S+ needs transformers\.data\.metrics\S+, which is not here; leave it",
        ),
        (("galician_bench",), r"names=galician_bench of lm-eval \S+ needs transformers\.data\.metrics"),
        (("coqa",), r"names=coqa of lm-eval \S+ needs transformers\.data\.metrics"),
        (("humaneval",), r"names=humaneval runs the code that a model writes"),
    ],
)
def test_names_that_cannot_work(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        made(*names)
    assert "\n" not in str(raised.value)


def test_tasks_of_ones_own_that_cannot_work(tmp_path: Path) -> None:
    own(tmp_path)
    lacking = CHOICE.replace("capitals_th", "lacking") + "process_docs: !function extra.docs\n"
    (tmp_path / "lacking.yaml").write_text(lacking.format(data=tmp_path / "rows.jsonl"))
    (tmp_path / "extra.py").write_text("import a_package_that_is_not_there.inside\n")
    with pytest.raises(InputError, match=r"needs a_package_that_is_not_there\.inside, .*; pip install a_pack"):
        made("lacking", include_path=tmp_path)
    (tmp_path / "gone.yaml").write_text(CHOICE.replace("capitals_th", "gone").format(data=tmp_path / "no.jsonl"))
    with pytest.raises(InputError, match=r"gone\.yaml reads .*no\.jsonl, and there is no such file"):
        made("gone", include_path=tmp_path)
    with pytest.raises(InputError, match=r"include_path=/nowhere is no directory"):
        made("gone", include_path=Path("/nowhere"))
    with pytest.raises(InputError, match=r"task\.lm_eval\.shots=2: .* task\.lm_eval\.num_fewshot"):
        LMEval(2, ["arc_easy"], None, None)


def test_a_dataset_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    step = HarnessItems(made("belebele_tha_Thai").tasks[0], EN, 0)
    [error] = find_unavailable([step.hub] if step.hub else [])
    assert str(error).startswith(
        "task.lm_eval.names=belebele_tha_Thai: facebook/belebele at main is not in the local cache, and the hub does "
        "not answer (HF_HUB_OFFLINE is set); leave it out"
    )
    (tmp_path / "hub/datasets--facebook--belebele/snapshots").mkdir(parents=True)
    assert step.hub is None


def test_what_fails_inside_the_harness_is_one_line(tmp_path: Path) -> None:
    own(tmp_path, capitals=CHOICE.replace("test_split: test", "test_split: another"))
    [task] = made("capitals_th", include_path=tmp_path).tasks
    with pytest.raises(InputError, match=r"names=capitals_th: the harness cannot run it \(\w+: ") as raised:
        task.load()
    assert "\n" not in str(raised.value)
