"""The parts of a stack: the steps that publish them, and how a trained stack names them."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
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


class System(str, Enum):
    """What is compared, as tables name it. Options and dashboards name it by the member."""

    stack = "stack"
    llm = "LLM alone"
    """On its own tokens: zero-shot transfer, and the teacher."""
    encoder = "encoder alone"
    unaligned = "without alignment"
    """Stage 2 of a stack that had no stage 1."""
    translate_test = "translate-test"
    """The LLM alone on machine translations into the language that it was taught in."""


class Goal(str, Enum):
    """What a training minimises, see `sdx.stacking.objectives`."""

    alignment = "alignment"
    """Stage 1: the error to what the LLM says of the same text."""
    distillation = "distillation"
    """Stage 2: the error to the vectors of an LLM that was trained on the task."""
    classification = "classification"
    """The loss of the labels."""
    probe = "probe"
    """The same for the head alone, on vectors that are there already."""
    generation = "generation"
    """The loss of the labels' words."""


@dataclass(frozen=True)
class Parts:
    """What a system is made of.

    Args:
        encoder, backbone: the steps that publish them; either may be left out.
        prefix: what the encoder wants before every text.
        precision: arithmetic of the parts where they only read.
    """

    encoder: Step | None
    backbone: Step | None
    prefix: str = ""
    precision: Precision = Precision.bf16
    system: System = System.stack

    @property
    def inputs(self) -> dict[str, Step]:
        """Of a step that loads them."""
        steps = {"encoder": self.encoder, "backbone": self.backbone}
        return {name: step for name, step in steps.items() if step}

    @property
    def decides(self) -> dict[str, Any]:
        """What of it decides a step's output beside the inputs. In bf16 the key is that of the time without fp32."""
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
    """Where the parts are that a step was given."""
    return {part: work.inputs[name] / "model" for part, name in INPUTS.items() if name in work.inputs}


@dataclass(frozen=True)
class Part:
    """An encoder or an LLM: exactly one of `asset` (with `packages`), `hub_id` (with `revision`) and `path`."""

    asset: str | None = None
    hub_id: str | None = None
    revision: str | None = None
    path: str | None = None
    packages: Sequence[str] = ()
    """Of an asset, with their versions."""
    adapters: Sequence[str] = ()
    """Of an LLM: what is merged into it, as in `BackboneConfig`."""
    prefix: str = ""
    """Of an encoder: what is put before every text."""

    @classmethod
    def of(cls, step_dir: Path, prefix: str = "") -> "Part":
        """What the step of a backbone or an encoder published."""
        source = read_json(step_dir / "source.json")
        named = {key: source.get(key) for key in ("asset", "hub_id", "revision", "path")}
        return cls(**named, packages=source.get("packages", ()), adapters=source.get("adapters", ()), prefix=prefix)

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Part":
        """From the config of a stack."""
        return cls(**config)

    def written(self) -> dict[str, Any]:
        """For the config of a stack."""
        return {name: value for name, value in asdict(self).items() if value}


def directory(kind: str, part: Part, given: Mapping[str, Path] | None) -> Path:
    """The part's files, fetched into the artifact cache where they are not there.

    Args:
        kind: "encoder" or "llm".
        given: directories by kind that are taken instead.

    Raises:
        InputError: they cannot be had.
    """
    if given and kind in given:
        return given[kind]
    asset = part.asset
    source: dict[str, Any] = {"asset": asset, "hub_id": part.hub_id, "revision": part.revision, "path": part.path}
    if asset and part.packages and list(part.packages) != (here := packages(asset)):
        raise InputError(
            f"the stack was trained on {asset} of {' '.join(part.packages)}, and this sdx has {' '.join(here)}; take "
            "the sdx that trained it, or give parts={...}"
        )
    if kind == "encoder":
        step = encoder_step(EncoderConfig(kind, **source))
    else:
        step = backbone_step(BackboneConfig(kind, adapters=list(part.adapters), **source))
    return Store.shared().realise(step) / "model"
