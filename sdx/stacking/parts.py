"""The steps that publish the parts of a stack."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import BackboneConfig, EncoderConfig, Precision
from sdx.models.backbone import backbone_step
from sdx.offline.assets import packages
from sdx.stacking.encoder import encoder_step
from sdx.store.files import read_json
from sdx.store.step import Step, Workspace
from sdx.store.store import Store

INPUTS = {"encoder": "encoder", "llm": "backbone"}
"""Part -> input of a step that loads it."""


@dataclass(frozen=True)
class Parts:
    """Either may be left out.

    Args:
        prefix: what the encoder wants before every text.
        precision: in what they read.
    """

    encoder: Step | None
    backbone: Step | None
    prefix: str = ""
    precision: Precision = Precision.bf16

    @property
    def inputs(self) -> dict[str, Step]:
        """Of a step that loads them."""
        steps = {"encoder": self.encoder, "backbone": self.backbone}
        return {name: step for name, step in steps.items() if step}

    @property
    def decides(self) -> dict[str, Any]:
        """What of it decides a step's output beside the inputs. In bf16 the key is that of the time without fp32."""
        return {} if self.precision is Precision.bf16 else {"precision": self.precision.value}


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
    asset, hub_id, revision, path = part.asset, part.hub_id, part.revision, part.path
    if asset and part.packages and list(part.packages) != (here := packages(asset)):
        raise InputError(
            f"the stack was trained on {asset} of {' '.join(part.packages)}, and this sdx has {' '.join(here)}; take "
            "the sdx that trained it, or give parts={...}"
        )
    if kind == "encoder":
        step = encoder_step(EncoderConfig(kind, asset, hub_id, revision, path))
    else:
        step = backbone_step(BackboneConfig(kind, asset, hub_id, revision, path, list(part.adapters)))
    return Store.shared().realise(step) / "model"


STACK = "stack"
LLM, ENCODER, UNALIGNED = "LLM alone", "encoder alone", "without alignment"
TRANSLATE_TEST = "translate-test"


def system(step: Step) -> str:
    """By what a model's step is made of: a stack without alignment learns from the first stack, the other does not."""
    if "encoder" not in step.inputs:
        return LLM
    if "backbone" not in step.inputs:
        return ENCODER
    learns_task = step.name == "train" and step.config["goal"] != "alignment"
    return UNALIGNED if learns_task and step.inputs["stack"].name == "stack" else STACK


def is_translated(items: Step) -> bool:
    """Whether test items are translations of others."""
    return "items" in items.inputs
