"""What there is to score: a suite, put to the model of a run and to what that model is compared with."""

from dataclasses import dataclass

from sdx.evaluation.suites import Suite
from sdx.store.step import Step


@dataclass(frozen=True)
class Comparison:
    """A suite with its answers before and after. Where a run has several systems, the suite comes once for each."""

    suite: Suite
    before: Step
    """Publishes what the untrained backbone, or `system`, makes of the suite, as `rows.jsonl`."""
    after: Step | None = None
    """The same of the improved model, one step for all systems; None where nothing is trained."""
    system: str = ""
    """What `before` is if not the untrained backbone: `LLM alone`."""
