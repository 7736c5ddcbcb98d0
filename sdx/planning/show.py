"""`plan=true`: what a run would do and need. Loads and writes nothing.

All times and sizes are estimates (ours): a step's `estimate`, the formulas of `times` and `sdx.training.memory`, the
assumptions of `hardware` and `sdx.text.lengths`.
"""

import math
from collections.abc import Sequence
from typing import Any

from sdx import InputError
from sdx.config import Config, ShapeConfig
from sdx.models.work import ModelWork
from sdx.planning import tables
from sdx.planning.estimate import RunEstimates
from sdx.planning.graph import Node, State, walk
from sdx.planning.hardware import Machine, machines
from sdx.planning.measured import Measured
from sdx.planning.shapes import backbone_shape, encoder_shape, longest_tokens, stacked
from sdx.planning.sources import sources, told, wanted
from sdx.planning.times import is_published, seconds
from sdx.process.console import console as new_console
from sdx.process.devices import visible_gpu
from sdx.process.disk import free_bytes
from sdx.process.ranks import world_size
from sdx.sources.hub import find_unavailable
from sdx.store.estimate import Work
from sdx.store.step import Step
from sdx.store.store import Store
from sdx.training import disk
from sdx.training.hardware import Hardware
from sdx.training.layout import GPU_TOKENS, Setup, choose, describe, shortage
from sdx.training.memory import GIB, SHOWN, Layout, Memory, training_memory

RANKS = (1, 4, 8)
NODES = ((8, 80), (4, 80), (8, 40))
"""GPUs, and GB of each, whose layouts are shown on any machine."""
STAGES = ((0, False), (1, False), (2, False), (3, False), (2, True), (3, True))
"""(ZeRO stage, optimizer on the host)."""


def show(config: Config, store: Store, steps: Sequence[Step], on_gpus: Config | None = None) -> dict[str, Any]:
    """Prints the plan of a run, and returns it as numbers.

    Args:
        steps: to realise, in this order.
        on_gpus: the config of the same run on GPUs, if different.

    Returns:
        `steps` by key, `sources`, `memory` by (stage, offload, ranks), `layouts` by machine, `total`.
    """
    gpu, on_gpus = visible_gpu(), on_gpus or config
    lines, shape, trained, where = estimated(config, on_gpus, store, steps, gpu, Measured(store))
    nodes = [line.node for line in lines]
    works = [line.estimate.work for line in lines if line.node.step.collective]
    sizes = training_sizes(on_gpus, trained) if works and shape.parameters else {}
    trainings = [work for work in works if isinstance(work, ModelWork)]
    longest_training = max(trainings, key=lambda work: work.trained, default=ModelWork())
    setups = {
        machine: _setup(on_gpus if machine.device.is_cuda else config, trained, machine.hardware)
        for machine in (where if sizes else ())
    }
    layouts = {machine: layout(setup, longest_training) for machine, setup in setups.items()}
    completing = [work for line in lines if isinstance(work := line.generation, ModelWork) and not work.engine]
    total = sum_up(lines, where)
    unavailable = find_unavailable(wanted(nodes))
    found = sources(store, shape, nodes, unavailable)

    console = new_console()
    tables.steps(console, config, lines, where)
    tables.sources(console, found)
    for line in told(unavailable):
        console.print(line)
    if sizes:
        tables.memory(console, on_gpus, trained, sizes, layouts)
        if completing:
            tables.generation(console, max(completing, key=lambda work: work.row_bytes), where)
        for machine, setup in setups.items():
            console.print(f"{machine.name}: {_described(setup, layouts[machine])}")
        for ranks, gigabytes in NODES:
            node = Hardware(ranks, SHOWN * gigabytes * GIB, math.inf, is_cuda=True, can_compile=True)
            setup = _setup(on_gpus, trained, node)
            console.print(f"{ranks} x {gigabytes} GB: {_described(setup, layout(setup, longest_training))}")
        written, free = disk.space(trained, config.train, config.scale.validation_rows > 0), free_bytes(store.root)
        console.print(f"disk: the training writes {written} to cache_dir, where {disk.gigabytes(free)} are free")
    tables.total(console, shape, total, where, gpu)
    if config.scale.eval_items and config.task:
        console.print(tables.limits(config.scale.eval_items))
    return {
        "steps": {line.node.step.key: line.figures(where) for line in lines},
        "sources": found,
        "memory": sizes,
        "layouts": {machine.name: found_layout for machine, found_layout in layouts.items()},
        "total": total,
    }


def estimated(
    config: Config,
    on_gpus: Config,
    store: Store,
    steps: Sequence[Step],
    gpu: tuple[str, str] | None,
    measured: Measured,
) -> tuple[list[tables.Line], ShapeConfig, ShapeConfig, Sequence[Machine]]:
    """The steps with their estimates, the shapes of the backbone and of the trained model, and the machines.

    Args:
        on_gpus: the config of the same run on GPUs.
        gpu: the result of `visible_gpu`.
    """
    nodes = walk(store, steps)
    shape = backbone_shape(config, store, nodes)
    given = getattr(config, "workers", "1")
    where = machines(gpu, world_size(), shape.parameters, int(given) if given.isdecimal() else 1)
    encoder = encoder_shape(config, store, nodes)
    trained = stacked(shape, encoder)
    estimates = RunEstimates(config, store, shape, on_gpus, encoder)
    lines = []
    for node in nodes:
        estimate = estimates.add(node)
        times = tuple(_time(estimates, measured, node, trained, machine) for machine in where)
        lines.append(tables.Line(node, estimate, times))
    return lines, shape, trained, where


def _setup(config: Config, shape: ShapeConfig, hardware: Hardware) -> Setup:
    return Setup(config.engine, config.train, shape, longest_tokens(config), hardware)


def layout(setup: Setup, work: ModelWork) -> Layout | InputError:
    """The layout of a training, or why there is none.

    Args:
        work: the training's; batches of a training without steps are taken to have examples of the greatest length.
    """
    batch_tokens = work.trained / work.steps if work.steps else setup.train.batch_size * setup.max_length_tokens
    try:
        return choose(setup, batch_tokens, work.trained)
    except InputError as refusal:
        return refusal


def training_sizes(config: Config, shape: ShapeConfig) -> dict[tuple[int, bool, int], tuple[Memory, Memory]]:
    """Memory (without, with activation checkpointing) by (stage, offload, ranks)."""
    engine, limit = config.engine, longest_tokens(config)
    tokens = engine.micro_batch_tokens or max(limit, GPU_TOKENS)

    def size(stage: int, offload: bool, ranks: int, checkpointing: bool) -> Memory:
        of = Layout(stage, offload, engine.precision, tokens, checkpointing)
        return training_memory(shape, config.train, of, limit, ranks)

    return {
        (stage, offload, ranks): (size(stage, offload, ranks, False), size(stage, offload, ranks, True))
        for stage, offload in STAGES
        for ranks in sorted({*RANKS, world_size()})
    }


def _described(setup: Setup, found: Layout | InputError) -> str:
    return str(found) if isinstance(found, InputError) else shortage(setup, found) or describe(setup, found)


def _time(
    estimates: RunEstimates, measured: Measured, node: Node, trained: ShapeConfig, machine: Machine
) -> tables.Time:
    """On a machine: of a cached step what it took; no hours if they are not known."""
    if node.state is State.cached:
        return tables.Time(float(estimates.store.manifest(node.step)["seconds"]) / 3600)
    if node.state is State.not_needed:
        return tables.Time(0.0)
    estimate, config = estimates.of(node.step), estimates.on_gpus if machine.device.is_cuda else estimates.config
    units = estimate.units or estimate.rows
    rest = max(0.0, 1 - node.done / units) if units else 1.0
    if (took := measured.seconds(node.step, estimate, machine, estimates.shape.vocab_size)) is not None:
        return tables.Time(rest * took / 3600, tables.Origin.measured)
    took = _seconds(config, trained, estimate.work, machine, node.step.shared)
    origin = tables.Origin.published if is_published(estimate.work, machine.device) else tables.Origin.formula
    return tables.Time(None if took is None else rest * took / 3600, origin)


def _seconds(config: Config, trained: ShapeConfig, work: Work, machine: Machine, shared: bool) -> float | None:
    if not (trained.parameters and isinstance(work, ModelWork) and work.trained):
        return seconds(work, machine, config.train, None, shared)
    setup = _setup(config, trained, machine.hardware)
    found = layout(setup, work)
    if isinstance(found, InputError) or shortage(setup, found):
        return None
    return seconds(work, machine, config.train, found)


def sum_up(lines: Sequence[tables.Line], where: Sequence[Machine]) -> dict[str, Any]:
    """The totals of what is still to do; hours by machine, None if the size of a model is not known."""
    runs = [line for line in lines if line.node.state.runs]
    return {
        "to_do": len(runs),
        "cached": sum(line.node.state is State.cached for line in lines),
        **{
            f"{kind}_tokens": sum(line.estimate.tokens for line in runs if line.estimate.counts_as == kind)
            for kind in ("generated", "translated", "trained")
        },
        "bound": any(line.estimate.bound for line in runs),
        "hours": {machine.name: tables.hours(runs, place) for place, machine in enumerate(where)},
    }
