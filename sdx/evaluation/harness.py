"""Multiple choice through lm-evaluation-harness, over local files: no network, nothing left in global caches.

The tasks are ordinary ones of the harness: in `<work_dir>/tasks`, `lm_eval --include_path . --tasks <suite>`
repeats a score with the stock harness. Ours is how log-probabilities are computed: the answers to a question
share one pass over it (the harness reads it once per answer) and only needed positions are projected to the
vocabulary. On a CPU that is 2.3 times as fast for ARC-Easy and 1.3 times for MMLU's letters. `evaluate` is
called, not the `simple_evaluate` around it, which asks the hub for the model, lists the installed packages
and reseeds the process.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import Precision
from sdx.models.backbone import loaded
from sdx.models.batches import QUESTIONS, cut
from sdx.models.loading import pretrained
from sdx.process.progress import Progress
from sdx.store.files import read_rows, write_rows
from sdx.tasks.base import Kind
from sdx.tasks.lm_eval import HarnessTask, is_mean, refusing

log = logging.getLogger("sdx")

PROMPTS: Mapping[Kind, Mapping[str, Any]] = {
    # A column with the prompt of `Questions.wrapper`, in the words of training: one string for both.
    Kind.answers: {"doc_to_text": "prompt", "doc_to_choice": "choices"},
    # The harness' own for MMLU, without its first sentence: that names the subject, in English.
    Kind.letters: {
        "doc_to_text": (
            "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
        ),
        "doc_to_choice": ["A", "B", "C", "D"],
    },
}
CONTEXT_BUCKET_TOKENS = 8
WRITTEN_ROWS = 8
"""Answers that a task of the harness has a model write at once."""


@dataclass(frozen=True)
class Questions:
    """One benchmark in one language."""

    items: Path
    """JSON lines: `{"id", "question", "choices", "gold"}`."""
    kind: Kind
    shots: int
    """Solved examples before each question: the first other items of the file."""
    wrapper: str | None = None
    """What the model reads before an answer: a format string around `{question}`. For `answers`, which needs it."""


@dataclass(frozen=True)
class ItemResult:
    """What the model made of one question."""

    id: str
    gold: int
    log_probs: list[float]
    """Log-probability of each answer, summed over its tokens, in nats."""
    choice: int
    """The answer with the highest log-probability."""
    choice_norm: int
    """The answer with the highest log-probability per UTF-8 byte."""
    acc: bool
    acc_norm: bool


def score(
    model_dir: Path,
    suites: Mapping[str, Questions],
    precision: Precision,
    context_tokens: int,
    work_dir: Path,
    stage: str,
) -> dict[str, list[ItemResult]]:
    """Results of a model on each suite, in the order of its items; `<work_dir>/<suite>.jsonl` holds them too.

    A suite whose file is in `work_dir` is not run again, and without any left no model is loaded.

    Args:
        model_dir: causal LM and tokenizer in Hugging Face format.
        precision: with bf16 for fp32, 4 of 300 ARC-Easy questions changed their outcome (SmolLM2-135M),
            in both directions; it took a third of the time on a CPU with AVX-512 BF16.
        context_tokens: the longest input; a longer prompt loses its beginning, which a warning counts.
        stage: name in front of the progress bar.
    """
    pending = {name: suite for name, suite in suites.items() if not (work_dir / f"{name}.jsonl").exists()}
    if pending:
        for name, suite in pending.items():
            _check(name, suite)
        with _quiet():
            model = _shared_question_lm(model_dir, precision, context_tokens, stage)
            for name, suite in pending.items():
                results = _run(model, name, suite, work_dir)
                write_rows(work_dir / f"{name}.jsonl", [asdict(result) for result in results])
    return {name: [ItemResult(**row) for row in read_rows(work_dir / f"{name}.jsonl")] for name in suites}


def judged(
    task: HarnessTask, limit: int, model_dir: Path, precision: Precision, context_tokens: int, stage: str
) -> dict[str, dict[str, bool | float]]:
    """Of each item, as `task/number`, the metrics that are means over items and lie between 0 and 1, by name.

    Args:
        limit: items of each task; 0: all.

    Raises:
        InputError: the task's code fails, or no metric is left.
    """
    from lm_eval.evaluator import evaluate

    with _quiet():
        loaded = task.load()
        model = _shared_question_lm(model_dir, precision, context_tokens, stage)
        with refusing(task.name):
            samples = evaluate(model, loaded, limit=limit or None, bootstrap_iters=0, log_samples=True)["samples"]
    found: dict[str, dict[str, Any]] = {}
    for name, rows in samples.items():
        means = {metric for metric, way in loaded["tasks"][name].aggregation().items() if is_mean(way)}
        for row in rows:
            values = found.setdefault(f"{name}/{row['doc_id']}", {})
            for metric in (one for one in row["metrics"] if one in means):
                values[metric if row["filter"] == "none" else f"{metric},{row['filter']}"] = row[metric]
    for metric in dict.fromkeys(metric for values in found.values() for metric in values):
        column = [values[metric] for values in found.values() if metric in values]
        if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in column):
            log.warning("%-12s %s: %s is not between 0 and 1, and left out", "lm_eval", task.name, metric)
            found = {id_: {key: value for key, value in row.items() if key != metric} for id_, row in found.items()}
        else:
            kind = bool if set(map(float, column)) <= {0.0, 1.0} else float
            for row in found.values():
                row.update({metric: kind(row[metric])} if metric in row else {})
    if not any(found.values()):
        raise InputError(f"task.lm_eval.names={task.name}: no metric is a share of its items; leave it out")
    return found


def _check(name: str, suite: Questions) -> None:
    items = read_rows(suite.items)
    if suite.shots >= len(items):
        raise InputError(f"task.{name}.shots={suite.shots} needs more than {len(items)} items; lower it")
    for item in items:
        if not all(text.strip() for text in (item["question"], *item["choices"])):
            raise InputError(f"{suite.items}: question {item['id']} has an empty text; mend it or leave it out")


def _run(model: Any, name: str, suite: Questions, work_dir: Path) -> list[ItemResult]:
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    items = read_rows(suite.items)
    task, data = _write_task(work_dir / "tasks", name, suite, items)
    cache = work_dir / ".datasets"
    try:
        here = {"data_files": {"test": str(data)}, "cache_dir": str(cache)}
        loaded = TaskManager(include_defaults=False).load([{**task, "dataset_kwargs": here}])
        samples = evaluate(model, loaded, bootstrap_iters=0, log_samples=True)["samples"][name]
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    samples.sort(key=lambda sample: sample["doc_id"])
    return [_result(item, suite.kind, sample) for item, sample in zip(items, samples, strict=True)]


def _write_task(
    pack: Path, name: str, suite: Questions, items: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], Path]:
    """Writes a suite as a task of the harness; its YAML's content, and the file with the items."""
    import yaml

    pack.mkdir(parents=True, exist_ok=True)
    data = pack / f"{name}.items.jsonl"
    # Only what the harness reads: its loader wants the same columns in all rows.
    columns = ("id", "question", "choices", "gold")
    rows = [{column: item[column] for column in columns} for item in items]
    if suite.kind is Kind.answers:
        assert suite.wrapper
        rows = [{**row, "prompt": suite.wrapper.format(question=row["question"].strip())} for row in rows]
    write_rows(data, rows)
    metrics = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_bytes")]
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data.name}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "fewshot_split": "test",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": suite.shots,
        **PROMPTS[suite.kind],
        "doc_to_target": "gold",
        "metric_list": metrics,
    }
    text = yaml.safe_dump(task, sort_keys=False, allow_unicode=True)
    (pack / f"{name}.yaml").write_text(text, encoding="utf-8")
    return task, data


def _result(item: Mapping[str, Any], kind: Kind, sample: Mapping[str, Any]) -> ItemResult:
    assert item["id"] == sample["doc"]["id"]
    log_probs = [value for value, _ in sample["filtered_resps"]]
    answers = item["choices"] if kind is Kind.answers else PROMPTS[kind]["doc_to_choice"]
    per_byte = [value / len(answer.encode()) for value, answer in zip(log_probs, answers, strict=True)]
    choice, choice_norm = log_probs.index(max(log_probs)), per_byte.index(max(per_byte))
    acc, acc_norm = choice == item["gold"], choice_norm == item["gold"]
    assert (acc, acc_norm) == (sample["acc"], sample["acc_bytes"]), "the harness counts otherwise"
    return ItemResult(item["id"], item["gold"], log_probs, choice, choice_norm, acc, acc_norm)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness' messages and the bars of the libraries under it; ours is shown instead."""
    import datasets
    import lm_eval.api.task
    from transformers.utils import logging as transformers_logging

    chatty = logging.getLogger("lm_eval")
    level, bar, loading = chatty.level, lm_eval.api.task.tqdm, transformers_logging.is_progress_bar_enabled()
    preparing = not datasets.are_progress_bars_disabled()
    chatty.setLevel(logging.ERROR)
    lm_eval.api.task.tqdm = lambda docs, **_: docs  # this bar has no switch
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        chatty.setLevel(level)
        lm_eval.api.task.tqdm = bar
        if loading:
            transformers_logging.enable_progress_bar()
        if preparing:
            datasets.enable_progress_bars()


def _shared_question_lm(model_dir: Path, precision: Precision, context_tokens: int, stage: str) -> Any:
    """The model in `model_dir` as the harness takes it."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    class SharedQuestionLM(HFLM):  # type: ignore[misc]
        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            return _log_probs(self.model, [request[1:] for request in requests], self.max_length, stage)

    model = loaded(model_dir, precision).model
    tokenizer = pretrained(AutoTokenizer, model_dir)
    # Gemma is lost without BOS, and a tokenizer made from GGUF may not add it.
    if model.config.model_type.startswith("gemma") and tokenizer("A").input_ids[0] != tokenizer.bos_token_id:
        tokenizer.add_bos_token = True
    limit = min(context_tokens, getattr(model.config, "max_position_embeddings", None) or context_tokens)
    return SharedQuestionLM(model, tokenizer=tokenizer, max_length=limit, batch_size=WRITTEN_ROWS)


def _log_probs(
    model: Any, pairs: Sequence[tuple[list[int], list[int]]], limit: int, stage: str
) -> list[tuple[float, bool]]:
    """For each (question, answer): the answer's log-probability, and whether greedy decoding gives it."""
    from sdx.models.fit import pieces, room, row_bytes

    questions: dict[tuple[int, ...], list[int]] = {}
    for index, (question, _) in enumerate(pairs):
        questions.setdefault(tuple(question), []).append(index)
    # Neighbours alike in the length of the question and, next, of the longest answer need little padding.
    order = sorted(
        questions.items(),
        key=lambda entry: (len(entry[0]) // CONTEXT_BUCKET_TOKENS, max(len(pairs[i][1]) for i in entry[1])),
        reverse=True,  # the longest first: memory runs out at once or never
    )
    contexts: list[list[int]] = []
    answers: list[list[list[int]]] = []
    for tokens, indices in order:
        answers.append([pairs[index][1] for index in indices])
        # The last token of an answer is predicted, not read.
        contexts.append(list(tokens[-max(1, limit + 1 - max(map(len, answers[-1]))) :]))
    of = row_bytes(model)
    sizes = [of.scored(len(context), [len(one) for one in its]) for context, its in zip(contexts, answers, strict=True)]
    results: dict[int, tuple[float, bool]] = {}
    with Progress(stage, len(order), "prompts") as progress:
        scored = pieces(
            model,
            sizes,
            cut(sizes, room(model), QUESTIONS.on(model.device.type == "cuda")),
            lambda some: _answer_log_probs(model, contexts[some], answers[some]),
            lambda place: f"a prompt of {len(contexts[place])} tokens",
            f"lower backbone.context_tokens={limit} or take a GPU with more memory",
        )
        for some, values in scored:
            flat = [index for _, indices in order[some] for index in indices]
            results.update(zip(flat, values, strict=True))
            progress.update(some.stop - some.start)
    if shortened := sum(len(tokens) > len(context) for (tokens, _), context in zip(order, contexts, strict=True)):
        log.warning("%-12s %d of %d prompts are cut off at %d tokens", stage, shortened, len(order), limit)
    return [results[index] for index in range(len(pairs))]


def _answer_log_probs(
    model: Any, contexts: list[list[int]], answers: list[list[list[int]]]
) -> list[tuple[float, bool]]:
    """`_log_probs` of one batch: contexts [batch, seq], answers [batch, choice, seq] -> [batch * choice]."""
    import torch

    device = model.device
    width = max(map(len, contexts))
    ids = torch.tensor([[0] * (width - len(c)) + c for c in contexts], device=device)
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=device)
    rows = [(number, answer) for number, choices in enumerate(answers) for answer in choices]
    longer = [index for index, (_, answer) in enumerate(rows) if len(answer) > 1]
    with torch.inference_mode():
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=bool(longer),
            logits_to_keep=1,
        )
        first = output.logits[:, -1].float().log_softmax(-1)  # [batch, vocabulary]
        results = [
            (first[number, answer[0]].item(), bool(first[number].argmax() == answer[0])) for number, answer in rows
        ]
        if not longer:
            return results
        of = torch.tensor([rows[index][0] for index in longer], device=device)
        output.past_key_values.batch_select_indices(of)
        read = [rows[index][1][:-1] for index in longer]
        width = max(map(len, read))
        ids = torch.tensor([answer + [0] * (width - len(answer)) for answer in read], device=device)
        read_mask = torch.tensor([[1] * len(answer) + [0] * (width - len(answer)) for answer in read], device=device)
        logits = model(
            input_ids=ids,
            attention_mask=torch.cat([mask[of], read_mask], 1),
            position_ids=mask[of].sum(1, keepdim=True) + torch.arange(width, device=device),
            past_key_values=output.past_key_values,
        ).logits  # [answers, seq, vocabulary]
        for index, row in zip(longer, logits, strict=True):
            wanted = torch.tensor(rows[index][1][1:], device=device)
            table = row[: len(wanted)].float().log_softmax(-1)
            value, greedy = results[index]
            value += table.gather(1, wanted[:, None]).sum().item()
            results[index] = value, greedy and bool((table.argmax(-1) == wanted).all())
    return results
