"""One run: steps are planned, realised in an order that shows results early, and reported. What is done is skipped."""

import time
from collections.abc import Sequence
from functools import cache
from logging import getLogger
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sdx import InputError, tracking
from sdx.config import Config, Stages, TranslatorConfig
from sdx.data import filters
from sdx.methods.base import Method, Run, RunPlan
from sdx.models import backbone, precision, residency
from sdx.models.hub import local
from sdx.models.precision import Settled
from sdx.options import conformity
from sdx.options.targets import target
from sdx.planning.hardware import suited_to
from sdx.planning.reading import check_files, first
from sdx.planning.show import show
from sdx.process.disk import disk_full, no_room
from sdx.process.events import watched
from sdx.process.failure import Failure
from sdx.process.preemption import listening
from sdx.process.ranks import is_main
from sdx.reporting.report import conclude
from sdx.sources.hub import HubSource, refusals, refused
from sdx.store import inventory
from sdx.store.step import Step
from sdx.store.store import Store
from sdx.tasks.base import Task
from sdx.tracking import Tracker
from sdx.tracking.state import StateFile
from sdx.training import layout
from sdx.translation.base import Translator

log = getLogger("sdx")
FREE = "free some or give another directory; what is finished stays, and the same command goes on from there"


def run(config: Config, run_dir: Path, failure: Failure | None = None) -> None:
    """Runs a configuration and reports into `run_dir`; with `plan=true` says what it would do.

    Args:
        failure: where an error is told; that of `run_dir` where it is not given.

    Raises:
        InputError: the configuration cannot work; nothing was loaded or written to the cache.
    """
    if config.plan:
        settled = precision.planned(config, run_dir, suited_to(config.backbone))
        work = prepare(settled.config, run_dir)
        if is_main():
            store = _store(config)
            steps = work.ordered(store)
            _check(first(store, steps))
            check_files(store, steps)
            _say(work.skipped)
            log.info("%-12s %s", "precision", settled.said)
            show(settled.config, store, steps, settled.on_gpus)
        return
    failure = failure or Failure(run_dir)
    with listening(), StateFile(run_dir, failure) as state:
        settled = precision.settle(config, run_dir, precision.suited())
        with Tracker(settled.config, run_dir) as tracker, watched(tracker):
            try:
                _run(settled, run_dir, state)
            except Exception as error:
                named = _named(error, config)
                failure.tell(named)  # to the other ranks, who are not to wait until a dashboard is closed
                if named is error:
                    raise
                raise named from error


def _named(error: Exception, config: Config) -> Exception:
    """A full disk in the words of the user; any other error as it is."""
    if not disk_full(error):
        return error
    full = no_room(error, {"cache_dir": config.cache_dir, "runs_dir": config.runs_dir})
    named = InputError(f"{full}; {FREE}")
    named.__cause__ = error
    return named


def _run(settled: Settled, run_dir: Path, state: StateFile) -> None:
    began, config = time.monotonic(), settled.config
    work = prepare(config, run_dir)
    work.run.settle()
    store = _store(config)
    _say(work.skipped)
    log.info("%-12s %s, cache %s", "run", run_dir, store.root)
    preparing = config.stages is Stages.prepare
    steps = work.ordered(store)
    steps = _data(steps) if preparing else steps
    outside = first(store, steps)
    if is_main():
        _check(outside)
        if found := refusals(step.hub for step in outside if isinstance(step.hub, HubSource)):
            raise refused(found)
        inventory.note(run_dir, work.steps)
    steps = [*outside, *steps]
    state.expect(len(steps))
    for step in steps:
        _realise(step, store)
        state.step_finished()
    if preparing:
        state.prepared()
        log.info("%-12s %s; without stages=prepare the same command trains", "prepared", run_dir)
    elif is_main():
        conclude(run_dir, settled, store, work.model, work.outcomes, work.skipped, work.compared_with, began)


def _say(skipped: Sequence[str]) -> None:
    for reason in skipped if is_main() else ():
        log.warning("%-12s %s", "not run", reason)


def _store(config: Config) -> Store:
    return Store(Path(config.cache_dir))


def _realise(step: Step, store: Store) -> None:
    """Inputs first, so that each training among them finds no model in memory."""
    if not store.cached(step):
        for needed in step.inputs.values():
            _realise(needed, store)
        if step.trains:
            residency.release()
    store.realise(step)


def _data(steps: Sequence[Step]) -> list[Step]:
    """Of these steps and all behind them, the last ones that nothing trains or scores for."""

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


def _check(outside: Sequence[Step]) -> None:
    """What is wrong with what is on this machine, before anything is fetched or computed."""
    for step in outside:
        step.check()


def typed(cfg: DictConfig) -> Config:
    """The configuration of a run, as Hydra composed it, less hydra's own part.

    Raises:
        InputError: a value is missing.
        omegaconf.errors.OmegaConfBaseException: one has another type.
    """
    if missing := conformity.missing(cfg):
        raise InputError(f"{missing[0]} has no value; give it as {missing[0]}=...")
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    return config


def prepare(config: Config, run_dir: Path) -> RunPlan:
    """All steps of the run, none of them realised.

    Args:
        config: with every precision settled, see `sdx.models.precision`.

    Raises:
        InputError: the configuration cannot work.
    """
    assert precision.is_settled(config)
    check(config)
    translator = build_translator(config.translator)
    mt = build_translator(config.mt) if config.mt not in (None, config.translator) else translator
    tasks: dict[str, Task] = {name: build(task) for name, task in config.task.items()}
    run = Run(config, translator, mt, build(config.generator), tasks, run_dir)
    method: Method[Any] = target(config.method._target_)(config.method)
    method.check(run)
    model = method.model(run)
    return RunPlan(run, model, *method.outcomes(run, model), method.compared_with(config))


def check(config: Config) -> None:
    """What can be wrong beside a single value's type, found before anything is loaded."""
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
    translator.name = config.name  # which of an engine's models it is
    return translator


def build(config: Any) -> Any:
    """The object that a group's config describes; its other fields, less the name, are the arguments."""
    arguments = {name: value for name, value in vars(config).items() if name not in ("_target_", "name")}
    return target(config._target_)(**arguments)
