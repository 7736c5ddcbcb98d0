"""The steps that publish the parts of a stack."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdx.artifacts import Step, Workspace

INPUTS = {"encoder": "encoder", "llm": "backbone"}
"""Part -> input of a step that loads it."""


@dataclass(frozen=True)
class Parts:
    """Either may be left out.

    Args:
        prefix: what the encoder wants before every text.
    """

    encoder: Step | None
    backbone: Step | None
    prefix: str = ""

    @property
    def inputs(self) -> dict[str, Step]:
        """Of a step that loads them."""
        steps = {"encoder": self.encoder, "backbone": self.backbone}
        return {name: step for name, step in steps.items() if step}


def directories(work: Workspace) -> Mapping[str, Path]:
    """Where the parts are that a step was given."""
    return {part: work.inputs[name] / "model" for part, name in INPUTS.items() if name in work.inputs}
