"""One run: its steps are planned, realised in an order that shows results early, and reported."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from logging import getLogger
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sdx import InputError, tracking, workers
from sdx.config import Config, Stages, TranslatorConfig
from sdx.data import filters
from sdx.generation.sampling import GREEDY
from sdx.methods.base import Method, Run, RunPlan
from sdx.models import backbone, precision, residency
from sdx.models.hub import local
from sdx.models.precision import ResolvedConfig
from sdx.options.classes import import_class
from sdx.planning.hardware import suited_to
from sdx.planning.reading import check_files, first
from sdx.planning.show import show
from sdx.process.disk import disk_full, full_disk_message
from sdx.process.events import subscribed
from sdx.process.failure import Failure
from sdx.process.preemption import listening
from sdx.process.ranks import helped, is_main
from sdx.reporting.report import report_run
from sdx.sources.hub import check_available
from sdx.store import inventory
from sdx.store.step import Step
from sdx.store.store import Store
from sdx.tasks.base import Task
from sdx.tracking import Tracker
from sdx.tracking.state import StateFile
from sdx.training import layout
from sdx.translation.base import Translator

log = getLogger("sdx")


def run(config: Config, run_dir: Path, failure: Failure | None = None) -> None:
    """Runs a configuration and reports into `run_dir`; with `plan=true` only prints what the run would do.

    Args:
        failure: records an error; by default that of `run_dir`.

    Raises:
        InputError: the configuration cannot work; no model was loaded and nothing was written to the cache.
    """
    if config.plan:
        resolved = precision.resolve_for_plan(config, run_dir, suited_to(config.backbone))
        work = prepare(resolved.config, run_dir)
        if is_main():
            store = Store(Path(config.cache_dir))
            steps = work.ordered(store)
            for step in first(store, steps):
                step.check()
            check_files(store, steps)
            _log_skipped(work.skipped)
            log.info("%-12s %s", "precision", resolved.summary)
            show(resolved.config, store, steps, resolved.on_gpus)
        return
    if helped():
        with listening():
            _help(config, run_dir)
        return
    failure = failure or Failure(run_dir)
    with listening(), StateFile(run_dir, failure) as state:
        resolved = precision.resolve(config, run_dir, precision.machine_precision())
        with Tracker(resolved.config, run_dir) as tracker, subscribed(tracker):
            try:
                _run(resolved, run_dir, state)
            except Exception as error:
                explained = _explained(error, config)
                failure.report(explained)  # to the other ranks, which must not wait until a dashboard is closed
                if explained is error:
                    raise
                raise explained from error


def _explained(error: Exception, config: Config) -> Exception:
    """A full disk as an InputError that names the option; any other error as it is."""
    if not disk_full(error):
        return error
    full = full_disk_message(error, {"cache_dir": config.cache_dir, "runs_dir": config.runs_dir})
    fix = "free some or give another directory; what is finished stays, and the same command goes on from there"
    explained = InputError(f"{full}; {fix}")
    explained.__cause__ = error
    return explained


def _run(resolved: ResolvedConfig, run_dir: Path, state: StateFile) -> None:
    began, config = time.monotonic(), resolved.config
    work = prepare(config, run_dir)
    work.run.record_choices()
    store = Store(Path(config.cache_dir), by_ray=config.workers == workers.RAY)
    _log_skipped(work.skipped)
    log.info("%-12s %s, cache %s", "run", run_dir, store.root)
    preparing = config.stages is Stages.prepare
    steps = _wanted(work, store)
    external = first(store, steps)
    if is_main():
        for step in external:  # before anything is downloaded or computed
            step.check()
        check_available(step.hub for step in external if step.hub)
        inventory.write_steps(run_dir, work.steps)
    steps = [*external, *steps]
    state.set_total(len(steps))
    with workers.beside(config.workers, run_dir) as alone:
        for step in steps:
            _realise(step, store, alone)
            state.step_finished()
    if preparing:
        state.prepared()
        log.info("%-12s %s; without stages=prepare the same command trains", "prepared", run_dir)
    elif is_main():
        report_run(run_dir, resolved, store, work.model, work.outcomes, work.skipped, work.compared_with, began)


def _help(config: Config, run_dir: Path) -> None:
    """What a worker does beside the process whose run this is, see `sdx.workers`."""
    resolved = precision.resolve_for_plan(config, run_dir, precision.machine_precision())
    work, store = prepare(resolved.config, run_dir), Store(Path(config.cache_dir))
    workers.help_with(_wanted(work, store), store)


def _wanted(work: RunPlan, store: Store) -> list[Step]:
    steps = work.ordered(store)
    return _data_steps(steps) if work.run.config.stages is Stages.prepare else steps


def _log_skipped(skipped: Sequence[str]) -> None:
    for reason in skipped if is_main() else ():
        log.warning("%-12s %s", "not run", reason)


def _realise(step: Step, store: Store, alone: Callable[[], AbstractContextManager[None]]) -> None:
    """Inputs first, so that no model is in memory when a training among them begins, which computes `alone`."""
    if not store.cached(step):
        for needed in step.inputs.values():
            _realise(needed, store, alone)
        if step.trains:
            residency.release()
    with alone() if step.trains else nullcontext():
        store.realise(step)


def _data_steps(steps: Sequence[Step]) -> list[Step]:
    """The last data steps in the lineage of these steps: nothing behind them trains or scores."""

    @cache
    def is_data(step: Step) -> bool:
        return step.is_data and all(map(is_data, step.inputs.values()))

    found: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if is_data(step):
            found[step.key] = step
        else:
            for needed in step.inputs.values():
                visit(needed)

    for step in steps:
        visit(step)
    return list(found.values())


def typed(cfg: DictConfig) -> Config:
    """The configuration of a run, from what Hydra composed without hydra's own part.

    Raises:
        InputError: a value is missing.
        omegaconf.errors.OmegaConfBaseException: a value has the wrong type.
    """
    if missing := OmegaConf.missing_keys(cfg):
        raise InputError(f"{min(missing)} has no value; give it as {min(missing)}=...")
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    return config


def prepare(config: Config, run_dir: Path) -> RunPlan:
    """All steps of the run, not yet realised.

    Args:
        config: with every precision resolved, see `sdx.models.precision`.

    Raises:
        InputError: the configuration cannot work.
    """
    assert precision.is_resolved(config)
    workers.check(config.workers)
    check(config)
    translator = build_translator(config.translator)
    mt = build_translator(config.mt) if config.mt not in (None, config.translator) else translator
    tasks: dict[str, Task] = {name: build(task) for name, task in config.task.items()}
    run = Run(config, translator, mt, build(config.generator), tasks, run_dir)
    method: Method[Any] = import_class(config.method._target_)(config.method)
    if run.generator.sampling != GREEDY and not method.samples:
        raise InputError(
            f"generator.temperature={config.generator.temperature:g} and the other settings of sampling are for the "
            f"answers that a method trains on, and method={config.method.name} has none; leave them out"
        )
    method.check(run)
    model = method.model(run)
    return RunPlan(run, model, *method.outcomes(run, model), method.compared_with(config))


def check(config: Config) -> None:
    """Raises InputError for values that do not work together, before anything is loaded."""
    backbone.check(config.backbone)
    filters.check(config.filters)
    tracking.check(config.tracking)
    layout.check(config.train, config.engine)
    scale = config.scale
    if config.backbone.path:
        backbone.check_length(local(config.backbone.path), scale.max_length_tokens)
    if 0 < scale.corpus_rows <= scale.validation_rows:
        raise InputError(
            f"scale.validation_rows={scale.validation_rows} leaves nothing of scale.corpus_rows={scale.corpus_rows} to "
            "train on; lower it"
        )
    if "instructions" in config.task and scale.heldout_rows < 1:
        raise InputError("scale.heldout_rows=0 leaves nothing for task instructions; raise it or leave the task out")


def build_translator(config: TranslatorConfig) -> Translator:
    translator: Translator = build(config)
    translator.name = config.name  # an engine may have several models
    return translator


def build(config: Any) -> Any:
    """The object that a group's config describes; all fields but the name are its arguments."""
    arguments = {name: value for name, value in vars(config).items() if name not in ("_target_", "name")}
    return import_class(config._target_)(**arguments)
