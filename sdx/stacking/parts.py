"""The steps that publish the parts of a stack."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx.artifacts import Step, Workspace
from sdx.config import Precision

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
