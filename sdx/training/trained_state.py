"""What training changes, tensor by tensor, independent of the layout that DeepSpeed gives it.

Each trained parameter has its fp32 weight, AdamW's two moments and AdamW's count of steps. DeepSpeed keeps them
whole (stage 0), in one flat buffer per rank (stages 1 and 2) or as a piece of each tensor (stage 3). Moments in 8 bits
are quantised in blocks of what a rank has, so they alone keep their layout.
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
"""The tensors of a parameter, as DeepSpeed's universal checkpoints name them."""


class TrainedState:
    """The state of an engine's trained parameters, by their names in the model.

    All ranks read a tensor together, and each gets all of it. Each rank writes its own part of a tensor.
    """

    def __init__(self, engine: deepspeed.DeepSpeedEngine) -> None:
        named = engine.module.model.named_parameters()
        self._parameters = {name: weight for name, weight in named if weight.requires_grad}
        self._optimizer = engine.optimizer
        self._stage = engine.zero_optimization_stage()
        plain = isinstance(getattr(self._optimizer, "optimizer", self._optimizer), torch.optim.AdamW)
        self.kinds = KINDS if plain else (WEIGHT,)
        """The tensors that can be read and written whole."""
        if plain:
            self._begin()

    @property
    def moments_file(self) -> str:
        """Name of a file for `moments`, with the layout on which quantised moments depend."""
        return f"moments_zero{self._stage}_{rank()}_of_{world_size()}.pt"

    @property
    def moments(self) -> list[dict[str, Any]]:
        """This rank's quantised moments."""
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
        """AdamW's steps of each parameter. Without ZeRO, parameters without a gradient in a step take fewer."""
        if self._stage == 0:
            return {name: int(self._optimizer.state[weight]["step"]) for name, weight in self._parameters.items()}
        return dict.fromkeys(self._parameters, max(int(state["step"]) for state in self._optimizer.state.values()))

    def read(self, name: str, kind: str) -> Tensor:
        """A whole fp32 tensor on the training's device, which training changes. Called on every rank."""
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
        """Sets this rank's part of a tensor and reads no more than that part of `whole`."""
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
        """After all writes: sets the counts of steps and the low-precision weights. Called on every rank."""
        if self._stage == 0 and self.kinds == KINDS:
            for name, weight in self._parameters.items():
                self._optimizer.state[weight]["step"].fill_(steps[name])
        elif self.kinds == KINDS:
            for state in self._optimizer.state.values():
                state["step"].fill_(max(steps.values()))
        if self._stage in (1, 2):
            self._optimizer.update_lp_params()
        if self._stage == 3:  # keeps small weights whole on every rank, with the old values: gather them again
            self._optimizer.checkpoint_event_prologue()
            self._optimizer.checkpoint_event_epilogue()

    def _begin(self) -> None:
        """Gives AdamW the state that it would make in its first step, unless it has one."""
        for weight in self._owned():
            if not self._optimizer.state[weight]:
                step = torch.zeros((), dtype=torch.float32, device=weight.device)  # where fused AdamW wants it
                moments = {kind: torch.zeros_like(weight, requires_grad=False) for kind in KINDS if kind != WEIGHT}
                self._optimizer.state[weight] = {"step": step, **moments}
        self._link()

    def _owned(self) -> list[Tensor]:
        """The tensors that the optimizer steps on this rank."""
        if self._stage == 0:
            return list(self._parameters.values())
        if self._stage < 3:
            return [flat for group in self._optimizer.param_groups for flat in group["params"]]
        return list(self._optimizer.fp32_partitioned_groups_flat)

    def _link(self) -> None:
        """Lets DeepSpeed find a parameter's moments in those of the flat buffer.

        DeepSpeed links them in the first step of the first of several groups, too early for the other groups.
        """
        if self._stage in (1, 2):
            self._optimizer._hp_optimizer_states_linked = False
            self._optimizer._lazy_init_hp_params_optimizer_state()


def _piece(weight: Tensor, whole: Tensor) -> Tensor:
    """This rank's piece of a tensor at stage 3, padded if it is the last: DeepSpeed's setter of whole tensors does not
    pad."""
    size = weight.ds_tensor.numel()  # type: ignore[attr-defined]
    start = min(rank() * size, prod(whole.shape))
    piece = whole.flatten()[start : start + size]
    return functional.pad(piece, (0, size - piece.numel()))
