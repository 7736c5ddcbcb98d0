"""What a search maximises: a figure in a finished run's results.json. Higher is better for every such figure."""

from pathlib import Path

from sdx import InputError
from sdx.config import Config
from sdx.options.classes import import_class
from sdx.store.files import read_json
from sdx.store.run_dir import RESULTS
from sdx.tracking.content import score_values

KEY = "hydra.sweeper.objective"
VALIDATION = "validation"
"""Of the best model on its validation data: minus the mean loss per token in nats, or what a stack is selected by."""
SCORE = "score/"


def check(objective: str, config: Config) -> None:
    """Raises `InputError` if the configuration shows that the run will not have this figure."""
    method = config.method
    if objective.startswith(SCORE):
        task = objective.split("/")[1]
        if task not in config.task and not task.startswith("translation by "):
            raise InputError(f"{KEY}={objective}: the run has no task {task}, but {', '.join(config.task) or 'none'}")
    elif objective != VALIDATION:
        raise InputError(
            f"{KEY}={objective} is unknown; give {VALIDATION}, or a score as {SCORE}belebele/pt/accuracy/after"
        )
    elif not import_class(method._target_)(method).validates(config):
        why = "has no validation data; set it aside with scale.validation_rows, such as scale.validation_rows=50"
        if config.scale.validation_rows:
            why = "trains nothing to validate; take another method"
        raise InputError(f"{KEY}={objective}: method={method.name} {why}")


def value(directory: Path, objective: str) -> float:
    """The figure of a finished run; raises InputError if the run does not have it."""
    path = directory / RESULTS
    try:
        results = read_json(path)
        training = results["training"] or {}
        figures: dict[str, float] = {VALIDATION: training[VALIDATION]} if VALIDATION in training else {}
        figures |= score_values(results["scores"])
    except FileNotFoundError:
        raise InputError(f"{KEY}={objective}: the run has ended without {path}") from None
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is damaged or of another version; start it again") from None
    if objective not in figures:
        raise InputError(f"{KEY}={objective} is not in {path}; figures there: {', '.join(figures) or 'none'}")
    return figures[objective]
