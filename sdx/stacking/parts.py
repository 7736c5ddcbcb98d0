"""The parts of a stack: the steps that publish them, and how a stack's config names them."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from sdx import InputError
from sdx.config import BackboneConfig, EncoderConfig, Precision
from sdx.models.backbone import backbone_step
from sdx.offline.assets import packages
from sdx.stacking.encoder import encoder_step
from sdx.store.files import read_json
from sdx.store.step import Step, Workspace, runtime
from sdx.store.store import Store

INPUTS = {"encoder": "encoder", "llm": "backbone"}
"""Part -> input of a step that loads it."""
SOURCE = ("asset", "hub_id", "revision", "path")


class System(str, Enum):
    """The systems that are compared; tables show the value, options and dashboards use the member's name."""

    stack = "stack"
    llm = "LLM alone"
    """Reads its own tokens: zero-shot transfer, and the teacher."""
    encoder = "encoder alone"
    unaligned = "without alignment"
    """Stage 2 without stage 1."""
    translate_test = "translate-test"
    """The LLM alone on machine translations into the language it was trained in."""


class ObjectiveKind(str, Enum):
    """What a training minimises, see `sdx.stacking.objectives`."""

    alignment = "alignment"
    """Stage 1: the error to the LLM's own vectors of the same text."""
    distillation = "distillation"
    """Stage 2: the error to the vectors of an LLM that was trained on the task."""
    classification = "classification"
    """Cross-entropy of the labels."""
    probe = "probe"
    """The same for the head alone, on stored vectors."""
    generation = "generation"
    """Cross-entropy of the labels' words."""


@dataclass(frozen=True)
class Parts:
    """The steps that publish the parts of a system; either part may be left out."""

    encoder: Step | None
    backbone: Step | None
    prefix: str = ""
    """Put before every text for the encoder."""
    precision: Precision = Precision.bf16
    """Of the parts in inference."""
    system: System = System.stack

    @property
    def inputs(self) -> dict[str, Step]:
        """Of a step that loads the parts."""
        return {name: step for name in INPUTS.values() if (step := getattr(self, name))}

    @property
    def decides(self) -> dict[str, Any]:
        """What decides a step's output beside the inputs; nothing in bf16, the only precision of older caches."""
        return {} if self.precision is Precision.bf16 else {"precision": self.precision.value}


@dataclass(frozen=True, eq=False)
class PartsStep(Step):
    """A step that loads the parts of a system."""

    is_data: ClassVar[bool] = False

    _: KW_ONLY
    parts: Parts = runtime()

    @property
    def inputs(self) -> Mapping[str, Step]:
        return {**super().inputs, **self.parts.inputs}


def directories(work: Workspace) -> Mapping[str, Path]:
    """The directories of the parts that a step loads, by "encoder" and "llm"."""
    return {part: work.inputs[name] / "model" for part, name in INPUTS.items() if name in work.inputs}


def part_source(step_dir: Path, prefix: str = "") -> dict[str, Any]:
    """An encoder or an LLM as a stack's config names it, from the output of the step that published it.

    Exactly one of `asset` (with `packages`, its packages and their versions), `hub_id` (with `revision`) and `path`; of
    an LLM `adapters`, those merged into it as in `BackboneConfig`; of an encoder `prefix`, put before every text.
    """
    source = {**read_json(step_dir / "source.json"), "prefix": prefix}
    return {name: source[name] for name in (*SOURCE, "packages", "adapters", "prefix") if source.get(name)}


def part_directory(kind: str, source: Mapping[str, Any], given: Mapping[str, Path] | None) -> Path:
    """The files of a part, fetched into the artifact cache unless they are there.

    Args:
        kind: "encoder" or "llm".
        source: see `part_source`.
        given: directories by kind, used instead.

    Raises:
        InputError: the files are not available.
    """
    if given and kind in given:
        return given[kind]
    asset, versions = source.get("asset"), list(source.get("packages", ()))
    if asset and versions and versions != (here := packages(asset)):
        raise InputError(
            f"the stack was trained on {asset} of {' '.join(versions)}, and this sdx has {' '.join(here)}; take the "
            "sdx that trained it, or give parts={...}"
        )
    options: dict[str, Any] = {name: source.get(name) for name in SOURCE}
    if kind == "encoder":
        step = encoder_step(EncoderConfig(kind, **options))
    else:
        step = backbone_step(BackboneConfig(kind, adapters=list(source.get("adapters", ())), **options))
    return Store.shared().realise(step) / "model"
