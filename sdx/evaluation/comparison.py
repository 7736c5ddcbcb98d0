"""What a run scores: a suite, with the answers of the run's model and of what that model is compared with."""

from dataclasses import dataclass

from sdx.evaluation.suites import Suite
from sdx.store.step import Step


@dataclass(frozen=True)
class Comparison:
    """A suite with its answers before and after. If a run has several systems, the suite comes once for each."""

    suite: Suite
    before: Step
    """Publishes the answers of the untrained backbone, or of `system`, as `rows.jsonl`."""
    after: Step | None = None
    """Publishes those of the improved model, one step for all systems; None if nothing is trained."""
    system: str = ""
    """The name of the system of `before`, if it is not the untrained backbone: `LLM alone`."""
