"""What training changes, tensor by tensor, in a form that does not depend on how DeepSpeed lays it out.

Each trained parameter has its fp32 weight, AdamW's two moments and AdamW's count of steps. DeepSpeed keeps them
whole (stage 0), in one flat buffer per rank (stages 1 and 2) or as a piece of each tensor (stage 3). Moments in 8 bits
are quantised in blocks of whatever a rank has, so they alone stay as they are laid out.
"""

from math import prod
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.nn import functional

from sdx.process.ranks import rank, world_size
from sdx.training.quiet import deepspeed

WEIGHT = "fp32"
KINDS = (WEIGHT, "exp_avg", "exp_avg_sq")
"""The tensors of a parameter, by the names that DeepSpeed's own universal checkpoints give them."""


class TrainedState:
    """The state of an engine's trained parameters, by their names in the model.

    Ranks that read a tensor do so together, each gets all of it; writing one is each rank's own business.
    """

    def __init__(self, engine: deepspeed.DeepSpeedEngine) -> None:
        named = engine.module.model.named_parameters()
        self._parameters = {name: weight for name, weight in named if weight.requires_grad}
        self._optimizer = engine.optimizer
        self._stage = engine.zero_optimization_stage()
        plain = isinstance(getattr(self._optimizer, "optimizer", self._optimizer), torch.optim.AdamW)
        self.kinds = KINDS if plain else (WEIGHT,)
        """Of the tensors that can be read and written whole."""
        if plain:
            self._begin()

    @property
    def layout(self) -> str:
        """What quantised moments depend on."""
        return f"zero{self._stage}_{rank()}_of_{world_size()}"

    @property
    def moments(self) -> list[dict[str, Any]]:
        """This rank's, where they are quantised."""
        return [self._optimizer.state[weight] for weight in self._owned()]

    @moments.setter
    def moments(self, moments: list[dict[str, Any]]) -> None:
        for weight, state in zip(self._owned(), moments, strict=True):
            self._optimizer.state[weight] = send_to_device(state, weight.device)
        self._link()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        whole = "ds_shape" if self._stage == 3 else "shape"
        return {name: tuple(getattr(weight, whole)) for name, weight in self._parameters.items()}

    @property
    def steps(self) -> dict[str, int]:
        """AdamW's steps of each parameter. Without ZeRO one that got no gradient in a step has taken fewer."""
        if self._stage == 0:
            return {name: int(self._optimizer.state[weight]["step"]) for name, weight in self._parameters.items()}
        together = max(int(state["step"]) for state in self._optimizer.state.values())
        return dict.fromkeys(self._parameters, together)

    def read(self, name: str, kind: str) -> Tensor:
        """A whole fp32 tensor on the training's device, for a moment: training changes it. All ranks call it."""
        weight = self._parameters[name]
        whole: Tensor
        if self._stage == 0:
            whole = weight.detach() if kind == WEIGHT else self._optimizer.state[weight][kind]
        elif kind == WEIGHT:
            whole = deepspeed.utils.safe_get_full_fp32_param(weight)
        else:
            whole = deepspeed.utils.safe_get_full_optimizer_state(weight, kind)
        return whole

    def write(self, name: str, kind: str, whole: Tensor) -> None:
        """Sets this rank's part of a tensor and reads no more of it than that part."""
        weight = self._parameters[name]
        if self._stage == 0:
            self.read(name, kind).copy_(whole)
        elif self._stage < 3 and kind == WEIGHT:
            deepspeed.utils.safe_set_full_fp32_param(weight, whole)
        elif self._stage < 3:
            deepspeed.utils.safe_set_full_optimizer_state(weight, whole, kind)
        elif kind == WEIGHT:
            deepspeed.utils.safe_set_local_fp32_param(weight, _piece(weight, whole))
            weight.ds_tensor.copy_(_piece(weight, whole))
        else:
            deepspeed.utils.safe_set_local_optimizer_state(weight, _piece(weight, whole), kind)

    def finish(self, steps: dict[str, int]) -> None:
        """Once all is written: sets the counts of steps, and the low-precision weights follow. All ranks call it."""
        if self.kinds == KINDS:
            for state in self._optimizer.state.values() if self._stage else ():
                state["step"].fill_(max(steps.values()))
            for name, weight in self._parameters.items() if not self._stage else ():
                self._optimizer.state[weight]["step"].fill_(steps[name])
        if self._stage == 0:
            return
        if self._stage < 3:
            self._optimizer.update_lp_params()
        else:
            # Stage 3 keeps small weights whole on every rank. They are those of before: gather them anew.
            self._optimizer.checkpoint_event_prologue()
            self._optimizer.checkpoint_event_epilogue()

    def _begin(self) -> None:
        """Gives AdamW the state that it makes in its first step, where there was none yet."""
        for weight in self._owned():
            if not self._optimizer.state[weight]:
                step = torch.zeros((), dtype=torch.float32, device=weight.device)  # where fused AdamW wants it
                moments = {kind: torch.zeros_like(weight, requires_grad=False) for kind in KINDS if kind != WEIGHT}
                self._optimizer.state[weight] = {"step": step, **moments}
        self._link()

    def _owned(self) -> list[Tensor]:
        """What the optimizer is given on this rank."""
        if self._stage == 0:
            return list(self._parameters.values())
        if self._stage < 3:
            return [flat for group in self._optimizer.param_groups for flat in group["params"]]
        return list(self._optimizer.fp32_partitioned_groups_flat)

    def _link(self) -> None:
        """Lets DeepSpeed find a parameter's moments in those of the flat buffer.

        In its first step it does so itself, but when only the first of several groups has taken it.
        """
        if self._stage in (1, 2):
            self._optimizer._hp_optimizer_states_linked = False
            self._optimizer._lazy_init_hp_params_optimizer_state()


def _piece(weight: Tensor, whole: Tensor) -> Tensor:
    """This rank's piece of a tensor at stage 3, the last one padded: DeepSpeed's own setter of whole tensors is not."""
    size = weight.ds_tensor.numel()  # type: ignore[attr-defined]
    start = min(rank() * size, prod(whole.shape))
    piece = whole.flatten()[start : start + size]
    return functional.pad(piece, (0, size - piece.numel()))
