"""What earlier steps took on the same hardware, from the manifests of the cache.

A step is expected to take as many seconds a token, loading included, as the earlier steps of its kind, engine and
precision that are nearest to it: first by the size of the model, by which the time is scaled, then by whether they had
the same rows. A step that counts no tokens is only compared with those that did the same with another model. Ours.
"""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sdx.languages import language
from sdx.models.shape import shape_in
from sdx.models.work import ModelWork
from sdx.planning.hardware import GPUS, Machine
from sdx.planning.lengths import measure
from sdx.planning.times import speedup
from sdx.process.devices import processor
from sdx.store.estimate import ROWS, Estimate, Work
from sdx.store.files import MANIFEST, read_json
from sdx.store.step import Step
from sdx.store.store import Store, is_manifest
from sdx.training.hardware import of_gpu

SHORTEST_S = 2.0
"""A shorter step says nothing about a long one."""
LARGEST_RATIO = 4.0
"""Between the parameters of two models of which one says something about the other."""
MODELS = ("model", "translator", "backbone", "stack")
"""Inputs that are the model at work."""
ENGINE = ("precision", "sampling", "engine", "translator", "translator_version")
"""Configuration that decides the speed."""


class Measured:
    """The published steps of a store, each kind read once."""

    def __init__(self, store: Store) -> None:
        self._root, self._processor, self._published = store.root, processor(), cache(self._read)

    def seconds(self, step: Step, estimate: Estimate, machine: Machine, vocab_size: int) -> float | None:
        """What the step is expected to take on the machine; None without an earlier step that is like it.

        Args:
            vocab_size: of the backbone, in whose tokens the estimate is.
        """
        found: dict[tuple[float, bool], list[tuple[float, float]]] = {}
        for path, earlier in self._published(step.name):
            try:
                workers, ratio = self._workers(earlier, step, machine), self._ratio(step, estimate.work, earlier)
                units = _units(step, estimate, path, earlier, vocab_size) if workers > 0 and ratio else 0.0
            except (OSError, ValueError, TypeError, AttributeError, KeyError):  # deleted, or of another version
                continue
            if units > 0:
                other_rows = _rows(earlier["inputs"]) != _rows(_keys(step))
                took = earlier["seconds"] * workers * ratio
                found.setdefault((abs(math.log(ratio)), other_rows), []).append((took, units))
        if not found:
            return None
        took, units = (sum(column) for column in zip(*found[min(found)], strict=True))
        shared = speedup(estimate.work, machine) if step.shared and machine.device.is_cuda else 1.0
        return float(took / units / shared)

    def _read(self, name: str) -> list[tuple[Path, dict[str, Any]]]:
        found = []
        for path in sorted(self._root.glob(f"{name}/*/{MANIFEST}")):
            try:
                manifest = read_json(path)
            except (OSError, ValueError):  # deleted or damaged
                continue
            if is_manifest(manifest) and not manifest.get("resumed") and SHORTEST_S <= manifest["seconds"] < math.inf:
                found.append((path.parent, manifest))
        return found

    def _workers(self, earlier: Mapping[str, Any], step: Step, machine: Machine) -> int:
        """How many such devices as the machine's made an earlier step, those of a CPU and of a training counted as one.

        0 for other devices, and for a training on another number of them, which may have another layout.
        """
        name, workers, is_cuda = earlier["provenance"]["device"], int(earlier["workers"]), machine.device.is_cuda
        known = of_gpu(name, GPUS)
        same = (known is not None and known.name == machine.device.name) if is_cuda else name == self._processor
        if not same or (step.collective and workers != machine.ranks):
            return 0
        return workers if is_cuda and not step.collective else 1

    def _ratio(self, step: Step, work: Work, earlier: Mapping[str, Any]) -> float:
        """Parameters of the step's model by those of the earlier one's; 0 if they are too far apart or unknown."""
        key, own = (
            next((keys[name] for name in MODELS if name in keys), "") for keys in (earlier["inputs"], _keys(step))
        )
        if key == own:
            return 1.0
        shape = next(filter(None, map(shape_in, self._root.glob(f"*/{key}/model"))), None)
        ratio = work.shape.parameters / shape.parameters if isinstance(work, ModelWork) and shape else 0.0
        return ratio if 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO else 0.0


def _units(step: Step, estimate: Estimate, path: Path, earlier: Mapping[str, Any], vocab_size: int) -> float:
    """How often the earlier step did what the step will do, in tokens; 0 if that cannot be compared."""
    counts, config = earlier["counts"], earlier["config"]
    if _engine(config) != _engine(step.config):
        return 0.0
    tokens = counts.get("useful_tokens") or counts.get("tokens")
    if not tokens and step.text_fields:
        spoken = config.get("source") or (step.language.flores if step.language else "")
        rows = measure(path / ROWS, language(spoken).flores, vocab_size)
        own = sum(rows.tokens.get(name, 0.0) for name in step.text_fields)
        tokens = rows.count * own * (1 - counts.get("known", 0.0))  # what other steps had translated took no time
    if tokens and estimate.tokens:
        return float(tokens) / estimate.tokens
    return float(config == step.config and _rows(earlier["inputs"]) == _rows(_keys(step)))


def _engine(config: Mapping[str, Any]) -> list[Any]:
    return [*map(config.get, ENGINE), config.get("train", {}).get("adapter")]


def _keys(step: Step) -> dict[str, str]:
    return {name: inner.key for name, inner in step.inputs.items()}


def _rows(inputs: Mapping[str, str]) -> dict[str, str]:
    """The inputs that are no model."""
    return {name: key for name, key in inputs.items() if name not in MODELS}
