"""What `precision: auto` is where a run takes place: bf16 where the hardware computes in it, fp32 otherwise.

A CPU without instructions for bf16 computes in it through fp32, and PyTorch's kernels for that are many times slower
than those of fp32. It is decided once, before anything below the doors reads the config, printed, and recorded in the
run directory. Data that were prepared in fp32, as on a node without GPUs, are not made anew where bf16 is faster. A
training is in what suits the machine that it is on.

Imports torch only where there may be a GPU.
"""

import os
import shutil
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path

from sdx import InputError
from sdx.config import Config, Precision
from sdx.process.ranks import is_main, launch_id
from sdx.store.files import read_intact, write_json

log = getLogger("sdx")

RECORD = "precision.json"
LAUNCH = "launch"
GROUPS = ("engine", "generator", "translator", "mt")
"""Parts of a config that may have a precision."""
TRAINING = "engine.precision"
"""Decides no data."""
CPUINFO = Path("/proc/cpuinfo")
COMPUTES = ("amx_bf16", "avx512_bf16", "bf16")
"""Linux' names of instructions that multiply in bf16: two of x86, one of Arm."""
CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that keep oneDNN, which has PyTorch's fast kernels for bf16, from using all instructions of an x86 CPU."""
NARROW = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2")
CAPPED = (*NARROW, "AVX512_CORE", "AVX512_CORE_VNNI")
"""Their values that leave oneDNN no instructions for bf16; the first ones leave no AVX-512 either."""
SLOWER = {"avx512f": 1, "avx2": 17}
"""The time of a training in bf16 over its time in fp32, where a CPU has these instructions and none for bf16. Measured
with SmolLM2-135M on cores whose instructions were capped."""
GPU_FILES = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")
"""Of drivers, in /dev: NVIDIA's, on small boards too, AMD's, and of a GPU seen through Windows."""
POLL_S, PATIENCE_S = 0.2, 600.0


@dataclass(frozen=True)
class Suited:
    """What a machine is fastest in.

    Args:
        why: as a part of a sentence.
        slower: how many times as long as fp32 bf16 takes in training, where that is known.
    """

    precision: Precision
    why: str
    slower: float | None = None

    @property
    def cost(self) -> str:
        """Of bf16."""
        if self.slower is None:
            return "takes longer than fp32"
        return f"takes about {self.slower:g} times as long as fp32 in training" if self.slower > 1 else "saves no time"


ANY_GPU = Suited(Precision.bf16, "as on a GPU")


@dataclass(frozen=True)
class Settled:
    """A config in which every precision is bf16 or fp32.

    Args:
        on_gpus: the same with bf16 for every `auto`, for plans of machines that are not this one.
        said: what was chosen and why, for people.
    """

    config: Config
    on_gpus: Config
    said: str


def suited() -> Suited:
    """What suits this machine: its GPU, or its CPU where no GPU is visible."""
    if _may_have_a_gpu():
        import torch

        if torch.cuda.is_available():
            return of_gpu(torch.cuda.get_device_name(), torch.cuda.is_bf16_supported(including_emulation=False))
    return suited_cpu()


def suited_cpu() -> Suited:
    cap = next((value.upper() for name in CAPS if (value := os.environ.get(name))), "")
    return of_cpu(sys.platform, cpu_flags(), cap)


def of_gpu(name: str, native: bool) -> Suited:
    """Args: native: whether it computes in bf16 itself; V100 and T4 do not."""
    if native:
        return Suited(Precision.bf16, f"{name} computes in it")
    return Suited(Precision.fp32, f"{name} does not compute in bf16")


def of_cpu(platform: str, flags: Collection[str], cap: str) -> Suited:
    """Args: platform: as `sys.platform` says it; flags: see `cpu_flags`; cap: the value of one of `CAPS`."""
    if platform != "linux":  # on macOS PyTorch has Apple's library for fp32, and nothing as fast for bf16
        return Suited(Precision.fp32, f"PyTorch has no fast bf16 for CPUs on {platform}")
    names = [name for name in COMPUTES if name in flags]
    if names and cap not in CAPPED:
        return Suited(Precision.bf16, f"this CPU computes in it ({names[0]})")
    why = f"{CAPS[0]}={cap} keeps PyTorch from this CPU's bf16" if names else "this CPU does not compute in bf16"
    usable = (name for name in SLOWER if name in flags and (name == "avx2" or cap not in NARROW))
    return Suited(Precision.fp32, why, SLOWER.get(next(usable, "")))


def cpu_flags() -> list[str]:
    """What Linux says that the first CPU can do; nothing elsewhere."""
    try:
        with CPUINFO.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return value.split()
    except OSError:
        pass
    return []


def _may_have_a_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None or any(any(Path("/dev").glob(name)) for name in GPU_FILES)


def settle(config: Config, run_dir: Path, here: Suited) -> Settled:
    """For a run that begins or goes on here: says and records what is chosen, and warns of a given bf16 that is slow.
    Rank 0 decides, and the others read what it recorded.

    Args:
        here: what suits this machine.

    Raises:
        InputError: rank 0 recorded nothing.
    """
    chosen = _of_rank_0(config, run_dir) if not is_main() else _chosen(config, _recorded(run_dir), here)
    settled = _settled(config, chosen)
    if not is_main():
        return settled
    log.info("%-12s %s", "precision", settled.said)
    for key, given in _precisions(config).items():
        if given is Precision.bf16 and here.precision is Precision.fp32:
            log.warning("%-12s %s=bf16 %s: %s; leave it at auto", "precision", key, here.cost, here.why)
    if chosen:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_json(run_dir / RECORD, {LAUNCH: launch_id(), **{key: took for key, (took, _) in chosen.items()}})
    return settled


def planned(config: Config, run_dir: Path, here: Suited) -> Settled:
    """For a plan, or a check of a run that is elsewhere: as recorded, else as suits `here`. Changes nothing."""
    recorded = _recorded(run_dir)
    told = {key: (recorded[key], "auto, as this run began") for key in _open(config) if key in recorded}
    return _settled(config, {**_chosen(config, {}, here), **told})


def is_settled(config: Config) -> bool:
    return not _open(config)


Chosen = Mapping[str, tuple[Precision, str]]
"""For each key that is `auto`: what is taken for it, and why."""


def _chosen(config: Config, recorded: Mapping[str, Precision], here: Suited) -> Chosen:
    found = {}
    for key in _open(config):
        took, why, before = here.precision, f"auto: {here.why}", recorded.get(key, here.precision)
        if before is not took and before is Precision.fp32 and key != TRAINING:
            took = before
            why = f"auto, as this run began, so that its data are not made anew; {key}={here.precision.value} is faster"
        elif before is not took:
            why += f"; this run began in {before.value}, and what it made in that is made anew"
        found[key] = took, why
    return found


def _settled(config: Config, chosen: Chosen) -> Settled:
    reasons = {**{key: (given, "given") for key, given in _precisions(config).items()}, **chosen}
    together: dict[tuple[Precision, str], list[str]] = {}
    for key, reason in reasons.items():
        together.setdefault(reason, []).append(key)
    groups = [f"{', '.join(keys)} {took.value} ({why})" for (took, why), keys in together.items()]
    own = _filled(config, {key: took for key, (took, _) in chosen.items()})
    return Settled(own, _filled(config, dict.fromkeys(chosen, Precision.bf16)), "; ".join(groups))


def _precisions(config: Config) -> dict[str, Precision]:
    """Key -> value of all that a config has."""
    parts = ((group, getattr(getattr(config, group), "precision", None)) for group in GROUPS)
    return {f"{group}.precision": value for group, value in parts if value is not None}


def _open(config: Config) -> list[str]:
    return [key for key, value in _precisions(config).items() if value is Precision.auto]


def _filled(config: Config, values: Mapping[str, Precision]) -> Config:
    parts = {key.partition(".")[0]: value for key, value in values.items()}
    filled: Config = replace(
        config, **{group: replace(getattr(config, group), precision=value) for group, value in parts.items()}
    )
    return filled


def _recorded(run_dir: Path) -> dict[str, Precision]:
    values = (Precision.bf16, Precision.fp32)
    return {key: Precision(value) for key, value in read_intact(run_dir / RECORD).items() if value in values}


def _of_rank_0(config: Config, run_dir: Path) -> Chosen:
    """What rank 0 of this launch recorded, once it has."""
    if is_settled(config):
        return {}
    deadline = time.monotonic() + PATIENCE_S
    while read_intact(run_dir / RECORD).get(LAUNCH) != launch_id():
        if time.monotonic() > deadline:
            raise InputError(
                f"rank 0 did not write {run_dir / RECORD}; its log says why, and runs_dir must be visible to all ranks"
            )
        time.sleep(POLL_S)
    recorded = _recorded(run_dir)
    return {key: (recorded[key], "") for key in _open(config)}
