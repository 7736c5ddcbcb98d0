"""One cell: steps are planned, realised in an order that shows results early, and reported. What is done is skipped."""

import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx.artifacts import Step, Store
from sdx.config import Config, InputError, TranslatorConfig
from sdx.data import filters
from sdx.evaluation.outcome import Outcome
from sdx.evaluation.tasks import Task
from sdx.methods.base import Cell, Method
from sdx.models import backbone
from sdx.planning.show import show
from sdx.ranks import is_main
from sdx.reporting.report import conclude
from sdx.stacking import reader
from sdx.tracking import Tracker
from sdx.training import limits
from sdx.translation.base import Translator

log = getLogger("sdx")

SOURCES = (
    *("file", "asset", "corpus", "training", "texts", "parallel", "dictionary"),
    *("backbone", "encoder", "translator"),
)
"""Steps that bring something from outside."""
MODEL_LOADING = ("score", "train", "stack", "vectors", "classify")
"""Steps that load a model of their own and need the memory for it."""
READING = ("vectors", "classify")
"""Those that may go on with the model of the step before."""


@dataclass(frozen=True)
class Work:
    """What a cell comes to."""

    cell: Cell
    model: Step
    """The step that publishes the improved model; the backbone's own where nothing is trained."""
    outcomes: Sequence[Outcome]
    skipped: Sequence[str]
    """A sentence for each benchmark and language that cannot be run."""

    @property
    def steps(self) -> list[Step]:
        """What is realised, in this order: what shows results early comes first."""
        before = [step for outcome in self.outcomes for step in (*outcome.suite.needs, outcome.before)]
        return [*before, self.model, *(outcome.after for outcome in self.outcomes if outcome.after)]


def run(config: Config, run_dir: Path) -> None:
    """Runs the cell and reports into `run_dir`; with `plan=true` says what it would do.

    Raises:
        InputError: the configuration cannot work; nothing was loaded or written to the cache.
    """
    began = time.monotonic()
    tracker = Tracker(config, run_dir)
    work = prepare(config, run_dir, tracker)
    store = Store(Path(config.cache_dir).expanduser())
    for reason in work.skipped if is_main() else ():
        log.warning("%-12s %s", "not run", reason)
    if config.plan:
        if is_main():
            show(config, store, work.steps)
        return
    log.info("%-12s %s, cache %s", "run", run_dir, store.root)
    for step in [*_sources(store, work.steps), *work.steps]:
        if step.name in MODEL_LOADING and not store.cached(step):
            inputs = step.inputs.values()
            if step.name not in READING or not all(map(store.cached, inputs)):
                reader.release()  # before an input that trains
            for needed in inputs:
                store.realise(needed)
            work.cell.translator.unload()
            work.cell.mt.unload()
            work.cell.generator.unload()
        store.realise(step)
    if is_main():
        conclude(run_dir, config, store, work.model, work.outcomes, work.skipped, tracker, began)


def _sources(store: Store, steps: Sequence[Step]) -> list[Step]:
    """Files, packages, corpora and models that steps still to do are made from: what is wrong with them shows first."""
    return [step for step in store.needed(steps).values() if step.name in SOURCES and not store.cached(step)]


def prepare(config: Config, run_dir: Path, tracker: Tracker) -> Work:
    """All steps of the cell, none of them realised.

    Raises:
        InputError: the configuration cannot work.
    """
    check(config)
    translator = build_translator(config.translator)
    mt = build_translator(config.mt) if config.mt not in (None, config.translator) else translator
    tasks: dict[str, Task] = {name: build(task) for name, task in config.task.items()}
    cell = Cell(config, translator, mt, build(config.generator), tasks, tracker, run_dir)
    method: Method[Any] = target(config.method._target_)(config.method)
    method.check(cell)
    model = method.model(cell)
    return Work(cell, model, *method.outcomes(cell, model))


def check(config: Config) -> None:
    """What can be wrong beside a single value's type, found before anything is loaded."""
    backbone.check(config.backbone)
    filters.check(config.filters)
    limits.check(config.train, config.engine)
    scale = config.scale
    if config.backbone.path:
        backbone.check_length(Path(config.backbone.path).expanduser(), scale.max_length_tokens)
    for key in ("corpus_rows", "parallel_rows", "heldout_rows", "max_steps", "eval_items"):
        if (value := getattr(scale, key)) < 0:
            raise InputError(f"scale.{key}={value} is negative; give 0 or more")
    for key in ("max_new_tokens", "max_length_tokens", "epochs"):
        if (value := getattr(scale, key)) < 1:
            raise InputError(f"scale.{key}={value} is too small; give 1 or more")
    if "instructions" in config.task and scale.heldout_rows < 1:
        raise InputError("scale.heldout_rows=0 leaves nothing for task instructions; raise it or leave the task out")


def target(path: str) -> Any:
    """The class that a `_target_` names. Limited to sdx: a configuration is data, not a program."""
    module, _, name = path.rpartition(".")
    if not module.startswith("sdx."):
        raise InputError(f"_target_={path} is not in sdx; name a class as sdx.module.Class")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise InputError(f"_target_={path} does not exist; see the YAML files of that group in conf/") from None


def build_translator(config: TranslatorConfig) -> Translator:
    translator: Translator = build(config)
    translator.name = config.name  # which of an engine's models it is
    return translator


def build(config: Any) -> Any:
    """The object that a group's config describes; its other fields, less the name, are the arguments."""
    arguments = {name: value for name, value in vars(config).items() if name not in ("_target_", "name")}
    return target(config._target_)(**arguments)
