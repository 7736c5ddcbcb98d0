"""One cell: steps are planned, realised in an order that shows results early, and reported. What is done is skipped."""

import importlib
import time
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx.artifacts import Store
from sdx.config import Config, InputError
from sdx.evaluation.suites import suites
from sdx.methods.base import Cell, Method
from sdx.models import backbone
from sdx.ranks import is_main
from sdx.reporting.report import conclude
from sdx.tracking import Tracker
from sdx.training import limits

log = getLogger("sdx")


def run(config: Config, run_dir: Path) -> None:
    """Runs the cell and reports into `run_dir`.

    Raises:
        InputError: the configuration cannot work; nothing was loaded or written to the cache.
    """
    began = time.monotonic()
    check(config)
    tracker = Tracker(config, run_dir)
    cell = Cell(config, build(config.translator), build(config.generator), tracker)
    method: Method[Any] = target(config.method._target_)(config.method)
    method.check(cell)
    tasks = {name: build(task) for name, task in config.task.items()}
    evaluated, skipped = suites(config, tasks, cell.corpus, cell.translator, cell.generator, cell.source, cell.targets)

    model = method.model(cell)
    trained = model is not cell.backbone
    outcomes = [
        (suite, suite.outcome(cell.backbone, "before"), suite.outcome(model, "after") if trained else None)
        for suite in evaluated
    ]
    store = Store(Path(config.cache_dir).expanduser())
    log.info("%-12s %s, cache %s", "run", run_dir, store.root)
    for suite, before, _ in outcomes:
        for step in (*suite.needs, before):
            store.realise(step)
    cell.generator.unload()  # training needs the memory
    store.realise(model)
    for _, _, after in outcomes:
        if after:
            store.realise(after)
    if is_main():
        conclude(run_dir, config, store, model, outcomes, skipped, tracker, began)


def check(config: Config) -> None:
    """What can be wrong beside a single value's type, found before anything is loaded."""
    backbone.check(config.backbone)
    limits.check(config.train, config.engine)
    scale = config.scale
    for key in ("corpus_rows", "heldout_rows", "max_steps", "eval_items"):
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


def build(config: Any) -> Any:
    """The object that a group's config describes; its other fields, less the name, are the arguments."""
    arguments = {name: value for name, value in vars(config).items() if name not in ("_target_", "name")}
    return target(config._target_)(**arguments)
