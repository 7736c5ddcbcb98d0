"""What a search maximises: one figure of a finished run's results.json. Of all of them, more is better."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import Config
from sdx.store.files import read_json
from sdx.store.run_dir import RESULTS

KEY = "hydra.sweeper.objective"
VALIDATION = "validation"
"""Of the best model on its validation data: minus the mean loss of a token in nats, or what a stack is selected by."""
SCORE = "score/"


def check(objective: str, config: Config) -> None:
    """Raises `InputError` if a run will have no such figure, as far as its configuration tells."""
    if objective == VALIDATION:
        _check_validation(config)
    elif not objective.startswith(SCORE):
        raise InputError(
            f"{KEY}={objective} is unknown; give {VALIDATION}, or a score as {SCORE}belebele/pt/accuracy/after"
        )
    else:
        task = objective.split("/")[1]
        if task not in config.task and not task.startswith("translation by "):
            raise InputError(f"{KEY}={objective}: the run has no task {task}, but {', '.join(config.task) or 'none'}")


def value(directory: Path, objective: str) -> float:
    """The figure of a finished run.

    Raises:
        InputError: it has none of that name.
    """
    try:
        found = figures(read_json(directory / RESULTS))
    except FileNotFoundError:
        raise InputError(f"{KEY}={objective}: the run has ended without {directory / RESULTS}") from None
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{directory / RESULTS} is damaged or of another version; start it again") from None
    if objective not in found:
        known = ", ".join(found) or "none"
        raise InputError(f"{KEY}={objective} is not in {directory / RESULTS}; figures there: {known}")
    return found[objective]


def figures(results: Mapping[str, Any]) -> dict[str, float]:
    """All figures of a run by name: that of validation and, as on dashboards, the scores of the tests."""
    from sdx.tracking.content import score_values

    training = results["training"] or {}
    found = {name: training[name] for name in (VALIDATION,) if name in training}
    return found | score_values(results["scores"])


def _check_validation(config: Config) -> None:
    from sdx.options.classes import import_class

    method = config.method
    if import_class(method._target_)(method).validates(config):
        return
    if config.scale.validation_rows:
        raise InputError(f"{KEY}={VALIDATION}: method={method.name} trains nothing to validate; take another method")
    raise InputError(
        f"{KEY}={VALIDATION}: method={method.name} has no validation data; set it aside with scale.validation_rows, "
        "such as scale.validation_rows=50"
    )
