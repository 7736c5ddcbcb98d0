"""The harness' numbers against a direct computation and against the stock harness."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.config import Precision
from sdx.evaluation import log_probs
from sdx.models import backbone, residency
from sdx.models.batches import Most
from sdx.store.store import Store
from tests.kit.prompts import ITEMS, Quiz
from tests.kit.scoring import copied, score, score_step
from tests.kit.tiny import tiny_model, tiny_tokenizer

OPTIONS = {"precision": Precision.fp32, "context_tokens": 1024, "stage": "test"}


@pytest.fixture(autouse=True)
def two_questions_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_probs, "QUESTIONS", Most(2, 2))


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "base", chat=False)


@pytest.fixture(scope="module")
def gemma_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every second layer sees 16 tokens only; the tokenizer does not add BOS, like some made from GGUF."""
    import torch
    from tokenizers import processors
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    path = tmp_path_factory.mktemp("models") / "gemma"
    tokenizer = tiny_tokenizer(chat=False)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
        initializer_range=0.2,
        dtype="float32",
    )
    Gemma3ForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def log_probs_of(model: Any, pairs: list[tuple[list[int], list[int]]], limit: int) -> list[log_probs.Scored]:
    """Of each (question, answer), all in one batch."""
    questions = [log_probs.question(context, [answer], limit) for context, answer in pairs]
    return [value for [value] in log_probs.scored(model, questions, limit)]


def directly(model_dir: Path, prompt: str, answer: str, bos: bool = False) -> float:
    """log P(answer | prompt), one sequence without padding or cache."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    start = [tokenizer.bos_token_id] if bos else []
    question, whole = (
        start + tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, prompt + answer)
    )
    assert whole[: len(question)] == question
    with torch.inference_mode():
        table = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(table[i - 1, whole[i]].item() for i in range(len(question), len(whole)))


@pytest.mark.parametrize("name", ["chat_model", "base_model", "gemma_model"])
def test_answers_equal_a_direct_computation(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model_dir = request.getfixturevalue(name)
    results = score(model_dir, Quiz("arc.en"), ITEMS, work_dir=tmp_path, **OPTIONS)
    assert [result["id"] for result in results] == [item["id"] for item in ITEMS]
    for item, result in zip(ITEMS, results, strict=True):
        prompt = f"Q: {item['question'].strip()}\nA:"
        bos = name != "chat_model"
        expected = [directly(model_dir, prompt, f" {choice}", bos) for choice in item["choices"]]
        assert result["log_probs"] == pytest.approx(expected, abs=1e-3)
        by_byte = [value / len(choice.encode()) for value, choice in zip(expected, item["choices"], strict=True)]
        assert result["choice"] == expected.index(max(expected))
        assert result["choice_norm"] == by_byte.index(max(by_byte))
        assert (result["acc"], result["acc_norm"]) == (
            result["choice"] == item["gold"],
            result["choice_norm"] == item["gold"],
        )


def test_letters_equal_a_direct_computation(base_model: Path, tmp_path: Path) -> None:
    results = score(base_model, Quiz("mmlu.en", None, shots=1), ITEMS, work_dir=tmp_path, **OPTIONS)

    def prompt_of(item: dict[str, Any]) -> str:
        lines = [f"{letter}. {choice}" for letter, choice in zip("ABCD", item["choices"], strict=True)]
        return "\n".join([item["question"].strip(), *lines, "Answer:"])

    for number, (item, result) in enumerate(zip(ITEMS, results, strict=True)):
        example = ITEMS[1] if number == 0 else ITEMS[0]  # never the question itself
        prompt = f"{prompt_of(example)} {'ABCD'[example['gold']]}\n\n{prompt_of(item)}"
        expected = [directly(base_model, prompt, f" {letter}", bos=True) for letter in "ABCD"]
        assert result["log_probs"] == pytest.approx(expected, abs=1e-3)
        assert result["acc"] is result["acc_norm"]


def test_stock_harness_gives_the_same_from_the_task_pack(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quizzes = Quiz("arc.en", shots=2), Quiz("mmlu.en", None)
    results = {quiz.name: score(chat_model, quiz, ITEMS, work_dir=tmp_path, **OPTIONS) for quiz in quizzes}

    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for pack in tmp_path.glob("artifacts/score/*/tasks"):
        shutil.copytree(pack, tmp_path / "tasks", dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / "tasks")
    tasks = TaskManager(include_path=".", include_defaults=False).load(list(results))
    stock = HFLM(
        AutoModelForCausalLM.from_pretrained(chat_model),
        tokenizer=AutoTokenizer.from_pretrained(chat_model),
        batch_size=3,
    )
    samples = evaluate(stock, tasks, bootstrap_iters=0)["samples"]
    for name, ours in results.items():
        for result, sample in zip(ours, samples[name], strict=True):
            assert result["log_probs"] == pytest.approx([value for value, _ in sample["filtered_resps"]], abs=1e-3)
            assert (result["acc"], result["acc_norm"]) == (sample["acc"], sample["acc_bytes"])


def test_greedy_flags_and_order_do_not_depend_on_the_batch(base_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_model)
    greedy = model.generate(torch.tensor([[4, 50, 60]]), max_new_tokens=3, min_new_tokens=3, do_sample=False)
    pairs = [
        ([4, 9, 9, 9, 9], [7]),
        ([4, 50, 60], greedy[0, 3:].tolist()),
        ([4, 9, 9, 9, 9], [7, 8]),
        ([4], [5, 6, 7]),
    ]
    whole = log_probs_of(model, pairs, 100)
    alone = [log_probs_of(model, [pair], 100)[0] for pair in pairs]
    assert [flag for _, flag in whole] == [False, True, False, False]
    assert [value for value, _ in whole] == pytest.approx([value for value, _ in alone], abs=1e-4)


def test_a_prompt_that_is_too_long_loses_its_beginning(
    base_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_model)
    cut = log_probs_of(model, [(list(range(10, 40)), [7, 8, 9])], 12)
    assert cut == log_probs_of(model, [(list(range(30, 40)), [7, 8, 9])], 12)
    with caplog.at_level(logging.WARNING, "sdx"):
        score(base_model, Quiz("a"), ITEMS, tmp_path, context_tokens=90)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "test         1 of 5 prompts are cut off at 90 tokens"
    ]


def test_a_model_is_loaded_once_for_all_scores_and_nothing_of_it_stays(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, load = [], backbone.load_model

    def noted(*given: object) -> object:
        model = load(*given)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(backbone, "load_model", noted)
    for name in ("a", "b"):
        score(chat_model, Quiz(name), ITEMS, work_dir=tmp_path, **OPTIONS)
    assert [model() is None for model in made] == [False]
    residency.release()
    assert made[0]() is None


def test_silent_but_for_the_bar_without_network_or_traces(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets
    from transformers.utils import logging as transformers_logging

    def refuse(*_: object) -> None:
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    cache = tmp_path / "home"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    transformers_logging.enable_progress_bar()
    environment = dict(os.environ)
    score(chat_model, Quiz("a"), ITEMS, work_dir=tmp_path, **OPTIONS)
    captured = capfd.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert {line.split()[0] for line in lines} == {"test"}, captured.err
    assert dict(os.environ) == environment
    assert not cache.exists()
    [rows] = tmp_path.glob("artifacts/score/*/rows.jsonl")
    assert sorted(path.name for path in rows.parent.iterdir()) == ["manifest.json", "rows.jsonl", "tasks"]


def test_too_few_items_for_the_shots(chat_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"task\.a\.shots=5 needs more than 5 items"):
        score(chat_model, Quiz("a", shots=5), ITEMS, work_dir=tmp_path, **OPTIONS)


def test_importing_is_instant() -> None:
    heavy = "{'torch', 'transformers', 'lm_eval', 'datasets', 'scipy', 'sacrebleu', 'py3langid'}"
    root = Path(__file__).parents[2]
    modules = [
        f"sdx.{room}.{path.stem}" for room in ("evaluation", "tasks") for path in (root / "sdx" / room).glob("*.py")
    ]
    program = f"import sys, {', '.join(modules)}; sys.exit(str({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


def test_an_empty_text_is_named(chat_model: Path, tmp_path: Path) -> None:
    items = [ITEMS[0], {**ITEMS[1], "choices": ["a", " ", "c", "d"]}]
    with pytest.raises(InputError, match="task=a: question gas has an empty text"):
        score(chat_model, Quiz("a"), items, work_dir=tmp_path, **OPTIONS)


def test_translator_and_other_columns_are_left_out_of_the_pack(chat_model: Path, tmp_path: Path) -> None:
    score(chat_model, Quiz("a"), [{**item, "translator": "x"} for item in ITEMS], work_dir=tmp_path, **OPTIONS)
    [data] = tmp_path.glob("artifacts/score/*/tasks/a.items.jsonl")
    row = json.loads(data.read_text().splitlines()[0])
    assert list(row) == ["id", "question", "choices", "gold", "prompt"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("batches", [1, 2])
def test_killed_and_resumed(base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """In the middle of a batch: what was logged is not asked again, and the rows are those of a calm run."""
    calm, rough = Store(tmp_path / "calm"), Store(tmp_path / "rough")
    step = score_step(base_model, Quiz("a", shots=1), ITEMS)
    expected = (calm.realise(step) / "rows.jsonl").read_bytes()
    scored, contexts = log_probs.scored, list[bytes]()

    def noted(model: Any, questions: Any, limit: int) -> Any:
        if len(contexts) >= 2 * batches:
            raise Killed
        contexts.extend(one["context"].tobytes() for one in questions)
        return scored(model, questions, limit)

    monkeypatch.setattr(log_probs, "scored", noted)
    with pytest.raises(Killed):
        rough.realise(step)
    assert len(contexts) == 2 * batches
    batches = 3
    assert (rough.realise(step) / "rows.jsonl").read_bytes() == expected
    assert len(set(contexts)) == len(contexts) == 5  # none twice


@pytest.mark.long
def test_two_ranks_score_as_one(base_model: Path, tmp_path: Path) -> None:
    """Both take batches, only rank 0 shows a bar, and whoever helps leaves nothing behind."""
    import torch

    place = [str(base_model), str(tmp_path / "two"), "12"]
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--log-dir", str(tmp_path / "logs")]
    command = [sys.executable, "-m", *launch, "--redirects", "3", "-m", "tests.kit.scoring", *place]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, env={**environment, "TMPDIR": str(tmp_path)})
    took: dict[Path, int] = {}
    while running.poll() is None:
        took |= {path: path.stat().st_size for path in tmp_path.glob("two/artifacts/score/*.partial/rows.*.log")}
        time.sleep(0.02)
    printed = {path.parent.name: path.read_text() for path in (tmp_path / "logs").rglob("stderr.log")}
    assert running.returncode == 0, printed
    assert sum(size > 0 for size in took.values()) == 2
    assert "test         100% 60/60 prompts" in printed["0"]
    assert "prompts" not in printed["1"]
    step = score_step(base_model, Quiz("arc.en", shots=1), copied(12))
    [two] = tmp_path.glob("two/artifacts/score/*/rows.jsonl")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # as the ranks: the number of threads decides how sums are rounded
        one = Store(tmp_path / "one").realise(step) / "rows.jsonl"
    finally:
        torch.set_num_threads(threads)
    assert two.read_bytes() == one.read_bytes()
    assert sorted(path.name for path in two.parent.iterdir()) == ["manifest.json", "rows.jsonl", "tasks"]
    assert not [*tmp_path.glob("sdx-score-*")]
