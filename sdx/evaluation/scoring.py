"""The step that has a model rank the answers to multiple-choice questions."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from sdx.config import Config, Precision
from sdx.evaluation.prompts import Asking
from sdx.models.batches import QUESTIONS, Arithmetic, RowBytes, number_bytes
from sdx.models.work import ModelWork
from sdx.store.estimate import Estimate, Plan
from sdx.store.files import read_rows, write_rows
from sdx.store.step import Step, Workspace, runtime
from sdx.tasks.base import ChoiceTask
from sdx.tasks.lm_eval import HarnessItems

PROMPT_TOKENS = 8.0
"""What a benchmark's prompt has beside the texts, for an estimate."""
CHOICES = (8, 8, 8, 8)
"""Tokens of the answers to a question, for the memory that they take."""


@dataclass(frozen=True, eq=False)
class Scoring(Asking):
    """A step that has a model answer by log-probabilities or as the harness has it."""

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
    """Publishes `rows.jsonl`, a `sdx.evaluation.harness.ItemResult` per question."""

    _: KW_ONLY  # for type checkers, who do not see it in `runtime`
    task: ChoiceTask

    @property
    def config(self) -> Mapping[str, Any]:
        task = self.task
        given = {"task": task.name, "shots": task.shots, **({"wrapper": task.wrapper} if task.wrapper else {})}
        return {**given, "precision": self.precision.value, "context_tokens": self.context_tokens}

    def run(self, work: Workspace) -> None:
        from sdx.evaluation.harness import Questions, score

        name, task = self.task.name, self.task
        questions = Questions(work.inputs["items"] / "rows.jsonl", task.kind, task.shots, task.wrapper)
        model_dir = work.inputs["model"] / "model"
        results = score(model_dir, {name: questions}, self.precision, self.context_tokens, work.dir, self.label)[name]
        (work.dir / f"{name}.jsonl").rename(work.dir / "rows.jsonl")
        work.counts.update(items=len(results), correct=sum(result.acc for result in results))


@dataclass(frozen=True, eq=False)
class HarnessScore(Scoring):
    """Publishes `rows.jsonl`, `{"id", "metrics"}` for each item of a task of the harness."""

    items: HarnessItems

    @property
    def config(self) -> Mapping[str, Any]:
        task = {"task": self.items.task.name, "precision": self.precision.value}
        return {**task, "context_tokens": self.context_tokens}

    def run(self, work: Workspace) -> None:
        from sdx.evaluation.harness import judged

        model_dir, limit = work.inputs["model"] / "model", self.items.limit
        ids = [row["id"] for row in read_rows(work.inputs["items"] / "rows.jsonl")]
        found = judged(self.items.task, limit, model_dir, self.precision, self.context_tokens, self.label)
        write_rows(work.dir / "rows.jsonl", [{"id": id_, "metrics": found.get(id_, {})} for id_ in ids])
        work.counts.update(items=len(ids))


def harness_step(config: Config, items: HarnessItems, model: Step, label: str) -> Step:
    return HarnessScore(model, items, config.engine.precision, config.backbone.context_tokens, label=label)


def score_step(config: Config, task: ChoiceTask, items: Step, model: Step, label: str) -> Step:
    return Score(model, items, config.engine.precision, config.backbone.context_tokens, task=task, label=label)
