"""The steps in which a model ranks the choices of questions or answers a task of the harness."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from sdx.config import Precision
from sdx.evaluation.prompts import SuiteStep
from sdx.store.files import read_rows, write_rows
from sdx.store.step import Workspace, runtime
from sdx.tasks.base import ChoiceTask
from sdx.tasks.lm_eval import HarnessItems


@dataclass(frozen=True, eq=False)
class Scoring(SuiteStep):
    """A step in which a model answers by log-probabilities or in the way of the harness."""

    precision: Precision
    context_tokens: int
    label: str = runtime()

    name = "score"
    is_data = False


@dataclass(frozen=True, eq=False)
class Score(Scoring):
    """Publishes `rows.jsonl`, a row of `sdx.evaluation.harness.score` for each question."""

    _: KW_ONLY  # for type checkers, which do not see it in `runtime`
    task: ChoiceTask

    @property
    def config(self) -> Mapping[str, Any]:
        task, template = self.task, self.task.prompt_template
        described = {"task": task.name, "shots": task.shots, **({"wrapper": template} if template else {})}
        return {**described, "precision": self.precision.value, "context_tokens": self.context_tokens}

    def run(self, work: Workspace) -> None:
        from sdx.evaluation.harness import score

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
        task = {"task": self.items.task.name, "precision": self.precision.value}
        return {**task, "context_tokens": self.context_tokens}

    def run(self, work: Workspace) -> None:
        from sdx.evaluation.harness import item_metrics

        model_dir, (task, limit) = work.inputs["model"] / "model", (self.items.task, self.items.limit)
        metrics = item_metrics(task, limit, model_dir, self.precision, self.context_tokens, self.label)
        ids = [row["id"] for row in read_rows(work.inputs["items"] / "rows.jsonl")]
        write_rows(work.dir / "rows.jsonl", [{"id": id_, "metrics": metrics.get(id_, {})} for id_ in ids])
        work.counts.update(items=len(ids))
