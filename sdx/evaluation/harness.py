"""Multiple choice through lm-evaluation-harness, over local files: no network, nothing left in global caches.

The tasks are ordinary ones of the harness: in a score's `tasks`, `lm_eval --include_path . --tasks <task>` repeats it
with the stock harness. The log-probabilities are computed by `log_probs`, because the harness reads a question once per
answer. On a CPU that is 2.3 times as fast for ARC-Easy and 1.3 times for MMLU's letters.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sdx import InputError
from sdx.config import Precision
from sdx.evaluation import log_probs
from sdx.evaluation.asking import Asked, as_in_every_process, silence, tokenizing_lm, written, written_batches
from sdx.evaluation.prompts import SuiteStep
from sdx.models.backbone import loaded
from sdx.models.batches import QUESTIONS, Arithmetic, RowBytes, number_bytes
from sdx.models.work import ModelWork
from sdx.store.batch_log import Row
from sdx.store.estimate import ROWS, Estimate, Plan
from sdx.store.files import read_rows, write_rows
from sdx.store.row_step import RowStep
from sdx.store.shared_log import SharedLog
from sdx.store.step import Workspace, runtime
from sdx.tasks.base import ChoiceTask
from sdx.tasks.lm_eval import HarnessItems, is_mean, one_line_errors

logger = logging.getLogger("sdx")

Samples = Mapping[str, Sequence[dict[str, Any]]]
"""What the harness found about each item of each of its tasks."""
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
class Scoring(SuiteStep, RowStep[Any]):
    """A step in which a model answers by log-probabilities or in the way of the harness.

    The rows that processes share are prompts, each with all that the harness asks about it. In the end the harness
    itself evaluates what was answered.

    Args:
        precision: with bf16 instead of fp32, 4 of 300 ARC-Easy questions changed their outcome (SmolLM2-135M), in both
            directions; it took a third of the time on a CPU with AVX-512 BF16.
        context_tokens: the longest input; a longer prompt loses its beginning, which a warning counts.
    """

    precision: Precision
    context_tokens: int
    label: str = runtime(default="")

    name = "score"
    is_data = False
    unit = "prompts"

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

    @property
    def limit(self) -> int | None:
        """Most items of each task of the harness; None: all."""
        return None

    @abstractmethod
    def tasks(self, items: Sequence[Row]) -> Mapping[str, Any]:
        """The result of the harness's `TaskManager.load`."""

    @abstractmethod
    def results(self, items: Sequence[Row], tasks: Mapping[str, Any], samples: Samples) -> list[Row]:
        """The row to publish for each item."""

    def explained(self) -> AbstractContextManager[None]:
        """Around the code of tasks."""
        return nullcontext()

    def read(self, work: Workspace) -> Sequence[Row]:
        return self._asked(work).rows

    def load(self, work: Workspace) -> Any:
        return self._asked(work).lm.with_model(loaded(work.inputs["model"] / "model", self.precision).model)

    def batches(self, rows: Sequence[Row], loaded: Any) -> list[list[int]]:
        to_score = [number for number, row in enumerate(rows) if "context" in row]
        to_write = {number: row for number, row in enumerate(rows) if "prompt" in row}
        scored = log_probs.batches(loaded.model, [rows[number] for number in to_score])
        return [*([to_score[one] for one in batch] for batch in scored), *written_batches(loaded, to_write)]

    def process(self, batch: Sequence[Row], loaded: Any) -> list[Row]:
        with self.explained():
            values: Sequence[Sequence[Any]]
            if "prompt" in batch[0]:
                values = [[text] for text in written(loaded, batch)]
            else:
                values = log_probs.scored(loaded.model, batch, loaded.max_length)
        return [{"id": row["id"], "values": some} for row, some in zip(batch, values, strict=True)]

    def publish(self, log: SharedLog, work: Workspace) -> None:
        asked, items = self._asked(work), read_rows(work.inputs["items"] / ROWS)
        _asked.cache_clear()
        cut, prompts = asked.shortened
        if cut:
            logger.warning(
                "%-12s %d of %d prompts are cut off at %d tokens", self.label, cut, prompts, asked.lm.max_length
            )
        with as_in_every_process(), self.explained():
            samples = asked.evaluate(log.rows())
        rows = self.results(items, asked.tasks, samples)
        work.counts.update(self.count(rows))
        write_rows(work.dir / ROWS, rows)

    def _asked(self, work: Workspace) -> Asked:
        return _asked(self, work.inputs["model"] / "model", work.inputs["items"] / ROWS)


@lru_cache(maxsize=1)  # from `read` to `publish`
def _asked(step: Scoring, model_dir: Path, items: Path) -> Asked:
    silence()
    lm = tokenizing_lm(model_dir, step.context_tokens)
    with as_in_every_process(), step.explained():
        return Asked(lm, step.tasks(read_rows(items)), step.limit)


@dataclass(frozen=True, eq=False)
class Score(Scoring):
    """Publishes `rows.jsonl`, a row for each question: `id`, `gold` and

    - `log_probs`: log-probability of each choice, summed over its tokens, in nats,
    - `choice`, `choice_norm`: index of the choice with the highest log-probability, and of that with the highest
      log-probability per UTF-8 byte,
    - `acc`, `acc_norm`: whether these are the gold choice.

    The examples before each question are the first other items. Raises InputError if there are too few for them, or if
    a text is empty.
    """

    _: KW_ONLY  # for type checkers, which do not see it in `runtime`
    task: ChoiceTask

    @property
    def config(self) -> Mapping[str, Any]:
        task, template = self.task, self.task.prompt_template
        described = {"task": task.name, "shots": task.shots, **({"wrapper": template} if template else {})}
        return {**super().config, **described}

    def tasks(self, items: Sequence[Row]) -> Mapping[str, Any]:
        from lm_eval.tasks import TaskManager

        task = self.task
        if task.shots >= len(items):
            raise InputError(f"task.{task.name}.shots={task.shots} needs more than {len(items)} items; lower it")
        for item in items:
            if not all(text.strip() for text in (item["question"], *item["choices"])):
                raise InputError(f"task={task.name}: question {item['id']} has an empty text; mend it or leave it out")
        with TemporaryDirectory(prefix="sdx-score-") as folder:  # only who publishes writes into the step's directory
            definition, data = _write_task(Path(folder), task, items)
            here = {"data_files": {"test": str(data)}, "cache_dir": folder, "keep_in_memory": True}
            found = TaskManager(include_defaults=False).load([{**definition, "dataset_kwargs": here}])
        return dict(found)

    def results(self, items: Sequence[Row], tasks: Mapping[str, Any], samples: Samples) -> list[Row]:
        answers = [item["choices"] if self.task.prompt_template else LETTERS for item in items]
        ordered = sorted(samples[self.task.name], key=lambda sample: sample["doc_id"])
        return list(map(_result, items, answers, ordered))

    def count(self, rows: Iterable[Row]) -> Mapping[str, Any]:
        correct = [row["acc"] for row in rows]
        return {"items": len(correct), "correct": sum(correct)}

    def publish(self, log: SharedLog, work: Workspace) -> None:
        super().publish(log, work)
        _write_task(work.dir / "tasks", self.task, read_rows(work.inputs["items"] / ROWS))


@dataclass(frozen=True, eq=False)
class HarnessScore(Scoring):
    """Publishes `rows.jsonl`, `{"id", "metrics"}` for each item of a task of the harness.

    `metrics` has, by name, those that are means over items and lie between 0 and 1. Raises InputError if the code of
    the task fails, or no metric is left.
    """

    items: HarnessItems

    @property
    def config(self) -> Mapping[str, Any]:
        return {**super().config, "task": self.items.task.name}

    @property
    def limit(self) -> int | None:
        return self.items.limit or None

    def tasks(self, items: Sequence[Row]) -> Mapping[str, Any]:
        return self.items.task.load()

    def explained(self) -> AbstractContextManager[None]:
        return one_line_errors(self.items.task.name)

    def results(self, items: Sequence[Row], tasks: Mapping[str, Any], samples: Samples) -> list[Row]:
        values: dict[str, dict[str, Any]] = {}
        for name, rows in samples.items():
            aggregations = tasks["tasks"][name].aggregation().items()
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
                message = "%-12s %s: %s is not between 0 and 1, and left out"
                logger.warning(message, "lm_eval", self.items.task.name, metric)
        if not kinds:
            raise InputError(
                f"task.lm_eval.names={self.items.task.name}: no metric is a share of its items; leave it out"
            )

        def metrics(id_: str) -> dict[str, bool | float]:
            return {name: kinds[name](value) for name, value in values.get(id_, {}).items() if name in kinds}

        return [{"id": item["id"], "metrics": metrics(item["id"])} for item in items]

    def count(self, rows: Iterable[Row]) -> Mapping[str, Any]:
        return {"items": sum(1 for _ in rows)}


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
