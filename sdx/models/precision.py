"""Resolves `precision: auto` and a translator's `runtime: auto`.

The precision is bf16 if the hardware computes in bf16, else fp32; int8 for CTranslate2 on a CPU.

A CPU without instructions for bf16 computes it through fp32, and PyTorch's kernels for that are many times slower than
those for fp32. A run resolves both once, before anything below the doors reads the config, prints the result and
records it in the run directory. Data prepared in fp32 or int8, as on a node without GPUs, are kept even if bf16 would
be faster later. A training uses what suits the machine that it runs on.

Imports torch only if there may be a GPU.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import Config, Precision, Runtime
from sdx.process.ranks import launch_id, rank
from sdx.store.files import read_intact, write_json

log = getLogger("sdx")

RECORD = "precision.json"
LAUNCH = "launch"
GROUPS = ("engine", "generator", "translator", "mt")
"""Config groups that may have a precision."""
TRANSLATORS = ("translator", "mt")
"""Those that may have a runtime."""
CPUINFO = Path("/proc/cpuinfo")
BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")
"""Linux' names of instructions that multiply in bf16: two of x86, one of Arm."""
CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that limit the instructions of oneDNN, which has PyTorch's fast bf16 kernels for x86."""
NO_AVX512 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2")
NO_BF16 = (*NO_AVX512, "AVX512_CORE", "AVX512_CORE_VNNI")
"""Their values that leave oneDNN no instructions for AVX-512, or for bf16."""
SLOWDOWN = {"avx512f": 1, "avx2": 17}
"""Time of a training in bf16 over its time in fp32, on a CPU with these instructions and none for bf16. Measured with
SmolLM2-135M on cores whose instructions were capped."""
GPU_FILES = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")
"""Of drivers, in /dev: NVIDIA's, also on small boards, AMD's, and of a GPU seen through Windows."""
POLL_S, PATIENCE_S = 0.2, 600.0


@dataclass(frozen=True)
class MachinePrecision:
    """The precision in which a machine is fastest."""

    precision: Precision
    why: str
    slowdown: float | None = None
    """Time of a training in bf16 over its time in fp32, if known."""
    is_gpu: bool = True


ANY_GPU = MachinePrecision(Precision.bf16, "as on a GPU")


@dataclass(frozen=True)
class ResolvedConfig:
    """A config in which every precision is bf16 or fp32."""

    config: Config
    on_gpus: Config
    """The same with bf16 for every precision that was `auto`, for plans of other machines."""
    summary: str


def machine_precision() -> MachinePrecision:
    """Of this machine's GPU, or of its CPU if no GPU is visible."""
    if shutil.which("nvidia-smi") or any(any(Path("/dev").glob(name)) for name in GPU_FILES):
        import torch

        if torch.cuda.is_available():
            name = torch.cuda.get_device_name()
            if torch.cuda.is_bf16_supported(including_emulation=False):  # V100 and T4 emulate bf16
                return MachinePrecision(Precision.bf16, f"{name} computes in it")
            return MachinePrecision(Precision.fp32, f"{name} does not compute in bf16")
    return cpu_precision()


def cpu_precision() -> MachinePrecision:
    if sys.platform != "linux":  # on macOS PyTorch uses Apple's library for fp32, and nothing as fast for bf16
        return MachinePrecision(Precision.fp32, f"PyTorch has no fast bf16 for CPUs on {sys.platform}", is_gpu=False)
    flags = cpu_flags()
    cap = next((value.upper() for name in CAPS if (value := os.environ.get(name))), "")
    names = [name for name in BF16_FLAGS if name in flags]
    if names and cap not in NO_BF16:
        return MachinePrecision(Precision.bf16, f"this CPU computes in it ({names[0]})", is_gpu=False)
    why = f"{CAPS[0]}={cap} keeps PyTorch from this CPU's bf16" if names else "this CPU does not compute in bf16"
    usable = (name for name in SLOWDOWN if name in flags and (name == "avx2" or cap not in NO_AVX512))
    return MachinePrecision(Precision.fp32, why, SLOWDOWN.get(next(usable, "")), is_gpu=False)


def cpu_flags() -> list[str]:
    """The features of the first CPU, as Linux names them; empty on other systems."""
    try:
        found = re.search(
            r"^(?:flags|Features)\s*:(.*)", CPUINFO.read_text(encoding="ascii", errors="replace"), re.MULTILINE
        )
    except OSError:
        return []
    return found[1].split() if found else []


def resolve(config: Config, run_dir: Path, machine: MachinePrecision) -> ResolvedConfig:
    """For a run that starts or resumes on `machine`: prints and records the choice, and warns of a requested slow bf16.

    Raises:
        InputError: rank 0, which decides for all ranks, recorded nothing.
    """
    if rank() > 0:
        _wait_for_record(config, run_dir)
        return resolve_for_plan(config, run_dir, machine)
    runtimes = _runtimes(config, run_dir)
    config = _filled(config, runtimes)
    recorded = _recorded(config, run_dir)
    suited = {key: _suited(config, key, machine) for key in _autos(config)}
    chosen = {key: _chosen(key, recorded.get(key, best.precision), best) for key, best in suited.items()}
    resolved = _resolved(config, chosen)
    for key, runtime in runtimes.items():
        log.info("%-12s %s=%s (auto)", "translator", key, runtime.value)
    log.info("%-12s %s", "precision", resolved.summary)
    factor = machine.slowdown or 1
    cost = f"takes about {factor:g} times as long as fp32 in training" if factor > 1 else "is no faster than fp32"
    for key, given in _precisions(config).items():
        if given is Precision.bf16 and machine.precision is Precision.fp32:
            log.warning("%-12s %s=bf16 %s: %s; leave it at auto", "precision", key, cost, machine.why)
    if chosen or runtimes:
        run_dir.mkdir(parents=True, exist_ok=True)
        precisions = {key: value for key, (value, _) in chosen.items()}
        write_json(run_dir / RECORD, {LAUNCH: launch_id(), **runtimes, **precisions})
    return resolved


def resolve_for_plan(config: Config, run_dir: Path, machine: MachinePrecision) -> ResolvedConfig:
    """For a plan, or to check a run of another machine: as recorded, else as suits `machine`. Changes nothing."""
    config = _filled(config, _runtimes(config, run_dir))
    suited = {key: _suited(config, key, machine) for key in _autos(config)}
    chosen = {key: (best.precision, f"auto: {best.why}") for key, best in suited.items()}
    recorded = {
        key: (value, "auto, as this run began") for key, value in _recorded(config, run_dir).items() if key in chosen
    }
    return _resolved(config, chosen | recorded)


def is_resolved(config: Config) -> bool:
    return not (_autos(config) or _open_runtimes(config))


def _runtimes(config: Config, run_dir: Path) -> dict[str, Runtime]:
    """The runtime for each that is `auto`: as recorded, else by what is installed."""
    installed = Runtime.ctranslate2 if find_spec("ctranslate2") else Runtime.transformers
    recorded = read_intact(run_dir / RECORD)
    possible = {one.value: one for one in (Runtime.ctranslate2, Runtime.transformers)}
    return {key: possible.get(str(recorded.get(key)), installed) for key in _open_runtimes(config)}


def _open_runtimes(config: Config) -> list[str]:
    groups = (name for name in TRANSLATORS if getattr(getattr(config, name), "runtime", None) is Runtime.auto)
    return [f"{name}.runtime" for name in groups]


def _suited(config: Config, key: str, machine: MachinePrecision) -> MachinePrecision:
    """The precision in which `machine` is fastest at what the key's group does."""
    if machine.is_gpu or not _runs_ctranslate2(config, key):
        return machine
    return replace(machine, precision=Precision.int8, why="CTranslate2 on a CPU")


def _runs_ctranslate2(config: Config, key: str) -> bool:
    return getattr(getattr(config, key.partition(".")[0]), "runtime", None) is Runtime.ctranslate2


def _chosen(key: str, before: Precision, machine: MachinePrecision) -> tuple[Precision, str]:
    """The precision for a key that is `auto`, and why; `before` is the one with which this run began."""
    why = f"auto: {machine.why}"
    if before is machine.precision:
        return before, why
    if before in (Precision.fp32, Precision.int8) and key != "engine.precision":  # which decides no data
        why = f"auto, as this run began, so that its data are not made anew; {key}={machine.precision.value} is faster"
        return before, why
    return machine.precision, f"{why}; this run began in {before.value}, and what it made in that is made anew"


def _resolved(config: Config, chosen: Mapping[str, tuple[Precision, str]]) -> ResolvedConfig:
    keys: dict[tuple[Precision, str], list[str]] = {}
    for key, given in _precisions(config).items():
        if given is Precision.int8 and not _runs_ctranslate2(config, key):
            raise InputError(
                f"{key}=int8 is a precision of translators with runtime=ctranslate2 alone; give bf16, fp32 or auto"
            )
        keys.setdefault(chosen.get(key, (given, "given")), []).append(key)
    summary = "; ".join(f"{', '.join(some)} {precision.value} ({why})" for (precision, why), some in keys.items())
    own = _filled(config, {key: precision for key, (precision, _) in chosen.items()})
    return ResolvedConfig(own, _filled(config, dict.fromkeys(chosen, Precision.bf16)), summary)


def _precisions(config: Config) -> dict[str, Precision]:
    """Key -> value of all precisions in a config."""
    values = ((group, getattr(getattr(config, group), "precision", None)) for group in GROUPS)
    return {f"{group}.precision": value for group, value in values if value is not None}


def _autos(config: Config) -> list[str]:
    return [key for key, value in _precisions(config).items() if value is Precision.auto]


def _filled(config: Config, values: Mapping[str, Precision | Runtime]) -> Config:
    changes: dict[str, Any] = {}
    for key, value in values.items():
        group, _, option = key.partition(".")
        changes[group] = replace(getattr(config, group), **{option: value})
    return replace(config, **changes)


def _recorded(config: Config, run_dir: Path) -> dict[str, Precision]:
    recorded = read_intact(run_dir / RECORD)
    found = {key: one for key in _precisions(config) for one in Precision if one.value == recorded.get(key)}
    possible = {key for key in found if found[key] is not Precision.int8 or _runs_ctranslate2(config, key)}
    return {key: found[key] for key in possible if found[key] is not Precision.auto}


def _wait_for_record(config: Config, run_dir: Path) -> None:
    """Until rank 0 of this launch has written it."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_resolved(config) and read_intact(run_dir / RECORD).get(LAUNCH) != launch_id():
        if time.monotonic() > deadline:
            raise InputError(
                f"rank 0 did not write {run_dir / RECORD}; its log says why, and runs_dir must be visible to all ranks"
            )
        time.sleep(POLL_S)
