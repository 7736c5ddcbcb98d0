"""The estimates of a run's steps: a cached step is measured, any other step has an `estimate` of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sdx.config import Config, ShapeConfig
from sdx.languages import Language, language
from sdx.planning import lengths
from sdx.planning.graph import Node
from sdx.store.estimate import ROWS, Answers, Estimate, Plan, Rows
from sdx.store.step import Step
from sdx.store.store import Store
from sdx.text.lengths import fertility

COUNTS = ("examples", "rows", "items", "texts")
"""Names of the row count in the manifest of an output without texts."""


@dataclass
class RunEstimates(Plan):
    """The estimates of one run; see `sdx.store.estimate.Plan`."""

    config: Config
    store: Store
    shape: ShapeConfig
    on_gpus: Config
    encoder: ShapeConfig | None = None
    found: dict[str, Estimate] = field(default_factory=dict)
    """By step key."""
    resident: str = ""
    """The model that the last step leaves in memory."""

    def __post_init__(self) -> None:
        self.source: Language = language(self.config.lang.source)
        self._answers = lengths.answers(self.store)

    def add(self, node: Node) -> Estimate:
        """The estimate of a step; its inputs have been added. A model that is already in memory is not loaded."""
        step = node.step
        estimate = self._measured(step) if self.store.cached(step) else step.estimate(self)
        if node.state.runs and (work := estimate.work).loads:
            if work.resident and work.resident == self.resident:
                estimate = replace(estimate, work=work.without_loading())
            self.resident = work.resident
        self.found[step.key] = estimate
        return estimate

    def of(self, step: Step) -> Estimate:
        return self.found[step.key]

    def rows(self, step: Step, file: str = ROWS) -> Rows:
        files = self.of(step).files
        return files.get(file) or next(iter(files.values()), Rows(0))

    def tokens(self, english: float, language: Language | None) -> float:
        return english * fertility((language or self.source).flores, self.shape.vocab_size)

    def answers(self, step: Step) -> Answers | None:
        """From earlier answers of the model, or of the model it was trained from."""
        model, limit = step.inputs.get("model"), step.config.get("max_new_tokens")
        if model is None or limit is None:
            return None
        known = (self._answers.get((one.key, limit)) for one in (model, model.inputs.get("backbone", model)))
        return next(filter(None, known), lengths.assumed(limit))

    def path(self, step: Step) -> Path | None:
        return self.store.path(step) if self.store.cached(step) else None

    def _measured(self, step: Step) -> Estimate:
        counts = self.store.manifest(step)["counts"]
        if step.text_fields is None:
            files, measured = step.estimate(self).files, dict[str, Rows]()
        else:
            flores = (step.language or self.source).flores
            paths = sorted(self.store.path(step).glob("*.jsonl"))
            files = measured = {path.name: lengths.measure(path, flores, self.shape.vocab_size) for path in paths}
        rows = measured[ROWS].count if ROWS in measured else sum(file.count for file in measured.values())
        rows = rows or next((counts[name] for name in COUNTS if not measured and counts.get(name)), 0)
        tokens = counts.get("useful_tokens") or counts.get("tokens") or _tokens(step, measured)
        return Estimate(rows, tokens, files)


def _tokens(step: Step, files: Mapping[str, Rows]) -> float:
    """Tokens of the step's `text_fields`, of `rows.jsonl` if there is one."""
    counted = [files[ROWS]] if step.text_fields and ROWS in files else files.values()
    return sum(
        file.count * sum(tokens for name, tokens in file.tokens.items() if name in (step.text_fields or file.tokens))
        for file in counted
    )
