"""How long threads should wait for each other, and what a process with less than the machine makes of its cores.

    python benchmarks/threads.py                      # SmolLM2-135M, about 25 minutes on 2 cores; quotas need root

Every figure is of a process of its own: greedy decoding of 16 prompts, or forward and backward passes over 512 tokens.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SETTINGS = {
    "OpenMP's own": {"OMP_NUM_THREADS": str(os.cpu_count() or 1), "GOMP_SPINCOUNT": "300000"},
    "passive": {"OMP_NUM_THREADS": str(os.cpu_count() or 1), "OMP_WAIT_POLICY": "passive"},
    "sdx": {},
}
"""A thread for each core of the machine unless sdx decides."""
NAMES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
GROUP = Path("/sys/fs/cgroup/cpu/sdx-benchmark")
"""Of version 1; there is none of version 2 here that a process may enter."""
PERIOD_US = 100_000
LIMIT_S = 600
WORK = {"decode": 40, "train": 4}
"""New tokens of an answer, passes."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, help="directory; the packaged SmolLM2 without")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--situations", nargs="+", choices=SITUATIONS, default=list(SITUATIONS))
    parser.add_argument("--child", choices=WORK, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        print(json.dumps(measure(given.child, given.model)))
        return 0
    model = given.model or _packaged()
    print("| work | situation | threads | tokens/s (range) | tokens per CPU-second |")
    print("| ---- | --------- | ------- | ---------------- | --------------------- |")
    for work in given.work:
        for situation in given.situations:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
            for _ in range(given.rounds):
                for name, runs in found.items():
                    with SITUATIONS[situation]() as prefix:
                        runs.append(_run([*prefix, sys.executable, __file__, "--child", work], model, SETTINGS[name]))
            for name, runs in found.items():
                print(f"| {work} | {situation} | {name}: {runs[0]['threads']:.0f} | {_cells(runs)} |", flush=True)
    return 0


def measure(work: str, model: Path) -> dict[str, float]:
    """In a process of its own, which has loaded no torch yet."""
    from sdx.process import threads

    threads.limit()
    import torch
    from transformers import AutoModelForCausalLM

    from sdx.config import Precision, TemplateKind
    from sdx.generation.hf import HFGenerator

    generator = HFGenerator(batch_size=32, precision=Precision.bf16)
    generator.load(model, TemplateKind.auto)
    prompts = [f"Write about number {number} and its history." for number in range(16)]
    generator.complete(prompts[:2], 4)

    def decode() -> int:
        return sum(answer.tokens for answer in generator.complete(prompts, WORK["decode"]))

    def train() -> int:
        ids = torch.randint(10, llm.config.vocab_size, (1, 512))
        for _ in range(WORK["train"]):
            llm(input_ids=ids, labels=ids).loss.backward()
        return ids.numel() * WORK["train"]

    llm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, trust_remote_code=False)
    began, cpu = time.perf_counter(), time.process_time()
    tokens = {"decode": decode, "train": train}[work]()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    return {"tokens_per_s": tokens / seconds, "per_cpu_s": tokens / cpu_seconds, "threads": torch.get_num_threads()}


def _run(command: Sequence[str], model: Path, setting: dict[str, str]) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | setting
    done = subprocess.run(
        [*command, "--model", str(model)],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=LIMIT_S,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _cells(runs: Sequence[dict[str, float]]) -> str:
    rates, per_cpu = (sorted(run[name] for run in runs) for name in ("tokens_per_s", "per_cpu_s"))
    middle = len(runs) // 2
    return f"{rates[middle]:.0f} ({rates[0]:.0f} to {rates[-1]:.0f}) | {per_cpu[middle]:.0f}"


def _packaged() -> Path:
    from sdx.config import BackboneConfig
    from sdx.models.backbone import backbone_step
    from sdx.store.store import Store

    return Store.shared().realise(backbone_step(BackboneConfig(name="smollm2", asset="smollm2_135m"))) / "model"


@contextmanager
def alone() -> Iterator[list[str]]:
    """On a machine that does nothing else."""
    yield []


@contextmanager
def beside_two() -> Iterator[list[str]]:
    """Beside two processes that never rest."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        yield []
    finally:
        for other in others:
            other.kill()
            other.wait()


@contextmanager
def one_core() -> Iterator[list[str]]:
    """Bound to a core."""
    yield ["taskset", "-c", "0"]


@contextmanager
def quota() -> Iterator[list[str]]:
    """In a control group that grants the time of one CPU, on all cores. Needs root and control groups of version 1."""
    GROUP.mkdir(exist_ok=True)
    (GROUP / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    (GROUP / "cpu.cfs_quota_us").write_text(str(PERIOD_US))
    try:
        yield ["sh", "-c", f'echo $$ > {GROUP}/cgroup.procs; exec "$0" "$@"']
    finally:
        with suppress(OSError):
            GROUP.rmdir()


SITUATIONS: dict[str, Any] = {
    "alone": alone,
    "beside two busy processes": beside_two,
    "taskset -c 0": one_core,
    "quota of one CPU": quota,
}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(main())
