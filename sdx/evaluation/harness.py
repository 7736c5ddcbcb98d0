"""Multiple choice through lm-evaluation-harness, over local files: no network, nothing left in global caches.

The tasks are ordinary ones of the harness: in `<work_dir>/tasks`, `lm_eval --include_path . --tasks <task>` repeats a
score with the stock harness. The computation of log-probabilities is ours: the answers to a question share one pass
over it (the harness reads it once per answer), and only needed positions are projected to the vocabulary. On a CPU that
is 2.3 times as fast for ARC-Easy and 1.3 times for MMLU's letters. `evaluate` is called instead of `simple_evaluate`,
which asks the hub for the model, lists the installed packages and reseeds the process.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import Precision
from sdx.evaluation.prompts import SuiteStep
from sdx.models.backbone import loaded
from sdx.models.batches import QUESTIONS, Arithmetic, RowBytes, cut, number_bytes
from sdx.models.loading import pretrained
from sdx.models.work import ModelWork
from sdx.process.progress import Progress
from sdx.process.quiet import quiet
from sdx.store.estimate import Estimate, Plan
from sdx.store.files import read_rows, write_rows
from sdx.store.step import Workspace, runtime
from sdx.tasks.base import ChoiceTask
from sdx.tasks.lm_eval import HarnessItems, is_mean, one_line_errors

log = logging.getLogger("sdx")

Row = Mapping[str, Any]
LETTERS = ["A", "B", "C", "D"]
LETTERS_PROMPT = (
    "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
)
"""The harness' own for MMLU, without its first sentence, which names the subject in English."""
PROMPT_TOKENS = 8.0
"""What a benchmark's prompt has beside the texts, for an estimate."""
CHOICES = (8, 8, 8, 8)
"""Tokens of the answers to a question, for the memory that they take."""


@dataclass(frozen=True, eq=False)
class Scoring(SuiteStep):
    """A step in which a model answers by log-probabilities or in the way of the harness."""

    precision: Precision
    context_tokens: int
    label: str = runtime()

    name = "score"
    is_data = False

    def estimate(self, plan: Plan) -> Estimate:
        items = plan.rows(self.items)
        texts = items.tokens.get("texts") or items.of("question") + items.of("choices")
        question = (texts + PROMPT_TOKENS) * (1 + self.config.get("shots", 0))
        read = items.count * min(question, self.context_tokens)
        arithmetic = Arithmetic(self.precision, plan.on_gpus.engine.precision)
        row_bytes = RowBytes(plan.shape, number_bytes(arithmetic.gpu))
        work = ModelWork(
            loads=1,
            resident=f"{self.model.key} {self.precision.value}",
            shape=plan.shape,
            read=read,
            rows=items.count,
            most=QUESTIONS,
            row_bytes=row_bytes.scored(round(read / max(items.count, 1)), CHOICES),
            passes=2,
            context=question / 2,
            arithmetic=arithmetic,
        )
        return Estimate(items.count, read, work=work)


@dataclass(frozen=True, eq=False)
class Score(Scoring):
    """Publishes `rows.jsonl`, a row of `score` for each question."""

    _: KW_ONLY  # for type checkers, which do not see it in `runtime`
    task: ChoiceTask

    @property
    def config(self) -> Mapping[str, Any]:
        task, template = self.task, self.task.prompt_template
        described = {"task": task.name, "shots": task.shots, **({"wrapper": template} if template else {})}
        return {**super().config, **described}

    def run(self, work: Workspace) -> None:
        items, options = read_rows(work.inputs["items"] / "rows.jsonl"), (self.precision, self.context_tokens)
        rows = score(work.inputs["model"] / "model", self.task, items, *options, work.dir, self.label)
        write_rows(work.dir / "rows.jsonl", rows)
        work.counts.update(items=len(rows), correct=sum(row["acc"] for row in rows))


@dataclass(frozen=True, eq=False)
class HarnessScore(Scoring):
    """Publishes `rows.jsonl`, `{"id", "metrics"}` for each item of a task of the harness."""

    items: HarnessItems

    @property
    def config(self) -> Mapping[str, Any]:
        return {**super().config, "task": self.items.task.name}

    def run(self, work: Workspace) -> None:
        metrics = self._metrics(work.inputs["model"] / "model")
        ids = [row["id"] for row in read_rows(work.inputs["items"] / "rows.jsonl")]
        write_rows(work.dir / "rows.jsonl", [{"id": id_, "metrics": metrics.get(id_, {})} for id_ in ids])
        work.counts.update(items=len(ids))

    def _metrics(self, model_dir: Path) -> dict[str, dict[str, bool | float]]:
        """For each item, as `task/number`, the metrics that are means over items and lie between 0 and 1, by name.

        Raises:
            InputError: the task's code fails, or no metric is left.
        """
        from lm_eval.evaluator import evaluate

        _quiet()
        task, limit = self.items.task, self.items.limit or None
        found = task.load()
        model = _shared_question_lm(model_dir, self.precision, self.context_tokens, self.label)
        with one_line_errors(task.name):
            samples = evaluate(model, found, limit=limit, bootstrap_iters=0, log_samples=True)["samples"]
        values: dict[str, dict[str, Any]] = {}
        for name, rows in samples.items():
            aggregations = found["tasks"][name].aggregation().items()
            means = {metric for metric, aggregation in aggregations if is_mean(aggregation)}
            for row in rows:
                suffix = "" if row["filter"] == "none" else f",{row['filter']}"
                own = {f"{metric}{suffix}": row[metric] for metric in row["metrics"] if metric in means}
                values.setdefault(f"{name}/{row['doc_id']}", {}).update(own)
        kinds: dict[str, type[bool | float]] = {}
        for metric in dict.fromkeys(metric for row in values.values() for metric in row):
            column = [row[metric] for row in values.values() if metric in row]
            if all(isinstance(value, int | float) and 0 <= value <= 1 for value in column):
                kinds[metric] = bool if set(column) <= {0, 1} else float
            else:
                log.warning("%-12s %s: %s is not between 0 and 1, and left out", "lm_eval", task.name, metric)
        if not kinds:
            raise InputError(f"task.lm_eval.names={task.name}: no metric is a share of its items; leave it out")
        return {
            id_: {metric: kinds[metric](value) for metric, value in row.items() if metric in kinds}
            for id_, row in values.items()
        }


def score(
    model_dir: Path,
    task: ChoiceTask,
    items: Sequence[Row],
    precision: Precision,
    context_tokens: int,
    work_dir: Path,
    stage: str,
) -> list[Row]:
    """A model's results on a task, in the order of the items: `id`, `gold` and

    - `log_probs`: log-probability of each choice, summed over its tokens, in nats,
    - `choice`, `choice_norm`: index of the choice with the highest log-probability, and of that with the highest
      log-probability per UTF-8 byte,
    - `acc`, `acc_norm`: whether these are the gold choice.

    Args:
        model_dir: causal LM and tokenizer in Hugging Face format.
        items: `{"id", "question", "choices", "gold"}`; the examples before each question are the first others.
        precision: with bf16 instead of fp32, 4 of 300 ARC-Easy questions changed their outcome (SmolLM2-135M), in both
            directions; it took a third of the time on a CPU with AVX-512 BF16.
        context_tokens: the longest input; a longer prompt loses its beginning, which a warning counts.
        stage: name in front of the progress bar.

    Raises:
        InputError: too few items for the examples; an empty text.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    if task.shots >= len(items):
        raise InputError(f"task.{task.name}.shots={task.shots} needs more than {len(items)} items; lower it")
    for item in items:
        if not all(text.strip() for text in (item["question"], *item["choices"])):
            raise InputError(f"task={task.name}: question {item['id']} has an empty text; mend it or leave it out")
    definition, data = _write_task(work_dir / "tasks", task, items)
    cache = work_dir / ".datasets"
    here = {"data_files": {"test": str(data)}, "cache_dir": str(cache)}
    _quiet()
    model = _shared_question_lm(model_dir, precision, context_tokens, stage)
    try:
        found = TaskManager(include_defaults=False).load([{**definition, "dataset_kwargs": here}])
        samples = evaluate(model, found, bootstrap_iters=0, log_samples=True)["samples"][task.name]
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    samples.sort(key=lambda sample: sample["doc_id"])
    choices = [item["choices"] if task.prompt_template else LETTERS for item in items]
    return list(map(_result, items, choices, samples))


def _write_task(directory: Path, task: ChoiceTask, items: Sequence[Row]) -> tuple[dict[str, Any], Path]:
    """Writes a task for the harness; the content of its YAML file, and the file with the items."""
    import yaml

    directory.mkdir(parents=True, exist_ok=True)
    data = directory / f"{task.name}.items.jsonl"
    # Only what the harness reads: its loader wants the same columns in all rows.
    rows = [{column: item[column] for column in ("id", "question", "choices", "gold")} for item in items]
    if template := task.prompt_template:  # a column with the prompt of training: one string for both
        rows = [{**row, "prompt": template.format(question=row["question"].strip())} for row in rows]
    write_rows(data, rows)
    definition = {
        "task": task.name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data.name}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "fewshot_split": "test",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": task.shots,
        "doc_to_text": "prompt" if template else LETTERS_PROMPT,
        "doc_to_choice": "choices" if template else LETTERS,
        "doc_to_target": "gold",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_bytes")
        ],
    }
    text = yaml.safe_dump(definition, sort_keys=False, allow_unicode=True)
    (directory / f"{task.name}.yaml").write_text(text, encoding="utf-8")
    return definition, data


def _result(item: Row, answers: Sequence[str], sample: Row) -> Row:
    assert item["id"] == sample["doc"]["id"]
    gold, log_probs = item["gold"], [value for value, _ in sample["filtered_resps"]]
    per_byte = [value / len(answer.encode()) for value, answer in zip(log_probs, answers, strict=True)]
    choice, choice_norm = log_probs.index(max(log_probs)), per_byte.index(max(per_byte))
    acc = {"acc": choice == gold, "acc_norm": choice_norm == gold}
    assert (*acc.values(),) == (sample["acc"], sample["acc_bytes"]), "the harness counts otherwise"
    return {"id": item["id"], "gold": gold, "log_probs": log_probs, "choice": choice, "choice_norm": choice_norm, **acc}


def _quiet() -> None:
    """No messages of the harness and no progress bars of its libraries; sdx shows its own."""
    import datasets
    import lm_eval.api.task

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    lm_eval.api.task.tqdm = lambda docs, **_: docs  # this bar has no switch
    datasets.disable_progress_bars()
    quiet()


def _shared_question_lm(model_dir: Path, precision: Precision, context_tokens: int, stage: str) -> Any:
    """The model in `model_dir` in the class that the harness expects."""
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
    return SharedQuestionLM(model, tokenizer=tokenizer, max_length=limit, batch_size=8)  # answers written at once


def _log_probs(
    model: Any, pairs: Sequence[tuple[list[int], list[int]]], limit: int, stage: str
) -> list[tuple[float, bool]]:
    """For each (question, answer): the answer's log-probability, and whether greedy decoding gives it."""
    from sdx.models.fit import pieces, room, row_bytes

    questions: dict[tuple[int, ...], list[int]] = {}
    for index, (question, _) in enumerate(pairs):
        questions.setdefault(tuple(question), []).append(index)
    # Neighbours with questions and longest answers of similar length need little padding.
    order = sorted(
        questions.items(),
        key=lambda entry: (len(entry[0]) // 8, max(len(pairs[i][1]) for i in entry[1])),
        reverse=True,  # the longest first: memory runs out at once or never
    )
    answers = [[pairs[index][1] for index in indices] for _, indices in order]
    # The last token of an answer is predicted, not read.
    rooms = [max(1, limit + 1 - max(map(len, choices))) for choices in answers]
    contexts = [list(tokens[-room_tokens:]) for (tokens, _), room_tokens in zip(order, rooms, strict=True)]
    memory = row_bytes(model)
    sizes = [
        memory.scored(len(context), [*map(len, choices)]) for context, choices in zip(contexts, answers, strict=True)
    ]
    results: dict[int, tuple[float, bool]] = {}
    with Progress(stage, len(order), "prompts") as progress:
        scored = pieces(
            model,
            sizes,
            cut(sizes, room(model), QUESTIONS.on(model.device.type == "cuda")),
            lambda batch: _answer_log_probs(model, contexts[batch], answers[batch]),
            lambda row: f"a prompt of {len(contexts[row])} tokens",
            f"lower backbone.context_tokens={limit} or take a GPU with more memory",
        )
        for batch, values in scored:
            results.update(zip((index for _, indices in order[batch] for index in indices), values, strict=True))
            progress.update(batch.stop - batch.start)
    if shortened := sum(len(tokens) > len(context) for (tokens, _), context in zip(order, contexts, strict=True)):
        log.warning("%-12s %d of %d prompts are cut off at %d tokens", stage, shortened, len(order), limit)
    return [results[index] for index in range(len(pairs))]


def _answer_log_probs(
    model: Any, contexts: list[list[int]], answers: list[list[list[int]]]
) -> list[tuple[float, bool]]:
    """`_log_probs` of one batch: contexts [batch, seq], answers [batch, choice, seq] -> [batch * choice]."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def padded(rows: list[list[int]], side: str) -> tuple[Any, ...]:
        """Token ids and mask, [row, seq]."""
        ids = [torch.tensor(row) for row in rows]
        both = (pad_sequence(some, True, padding_side=side) for some in (ids, [torch.ones_like(row) for row in ids]))
        return tuple(batch.to(model.device) for batch in both)

    ids, mask = padded(contexts, "left")
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
        question = torch.tensor([rows[index][0] for index in longer], device=model.device)
        output.past_key_values.batch_select_indices(question)
        ids, read_mask = padded([rows[index][1][:-1] for index in longer], "right")
        logits = model(
            input_ids=ids,
            attention_mask=torch.cat([mask[question], read_mask], 1),
            position_ids=mask[question].sum(1, keepdim=True) + torch.arange(ids.shape[1], device=model.device),
            past_key_values=output.past_key_values,
        ).logits  # [answers, seq, vocabulary]
        for index, row in zip(longer, logits, strict=True):
            wanted = torch.tensor(rows[index][1][1:], device=model.device)
            table = row[: len(wanted)].float().log_softmax(-1)
            value, greedy = results[index]
            value += table.gather(1, wanted[:, None]).sum().item()
            results[index] = value, greedy and bool((table.argmax(-1) == wanted).all())
    return results
