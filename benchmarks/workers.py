"""How much sooner several processes make a row step than one.

    python benchmarks/workers.py                     # SmolLM2-135M, about 5 minutes on 2 cores

The engine `echo` sleeps and repeats its row: it takes time and no core, as if each process had a GPU, and shows what
the sharing itself costs. `decode` answers prompts for real, each process with one thread. Processes have loaded before
the clock starts; it stops when the step is published.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script's own folder is all that Python would search

from benchmarks.models import smollm2
from sdx.config import Precision, TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.store.batch_log import Row
from sdx.store.row_step import RowStep, in_order
from sdx.store.step import Step, Workspace, runtime
from sdx.store.store import Store

BATCH_S = 0.25
"""Time that the sleeping engine takes for a batch."""


@dataclass(frozen=True, eq=False)
class Echo(RowStep[Any]):
    name = "echo"

    rows: int
    batch_rows: int = runtime()

    @property
    def inputs(self) -> Mapping[str, Step]:
        return {}

    def read(self, work: Workspace) -> list[Row]:
        return [
            {"id": str(n), "prompt": f"Write about number {n} and its history."} for n in range(1000, 1000 + self.rows)
        ]

    def load(self, work: Workspace) -> Any:
        return None

    def batches(self, rows: Sequence[Row], loaded: Any) -> list[range]:
        return in_order(rows, self.batch_rows)

    def process(self, batch: Sequence[Row], loaded: Any) -> list[Row]:
        time.sleep(BATCH_S)
        return list(batch)


@dataclass(frozen=True, eq=False)
class Decode(Echo):
    name = "decode"

    model: str = ""
    new_tokens: int = 32

    def load(self, work: Workspace) -> HFGenerator:
        generator = HFGenerator(batch_size=self.batch_rows, precision=Precision.fp32)
        generator.load(Path(self.model), TemplateKind.auto)
        generator.complete(["A first prompt."], 2)
        return generator

    def process(self, batch: Sequence[Row], loaded: HFGenerator) -> list[Row]:
        answers = loaded.complete([row["prompt"] for row in batch], self.new_tokens)
        return [{**row, "text": answer.text} for row, answer in zip(batch, answers, strict=True)]


def seconds(step: Echo, processes: int) -> float:
    """From the moment at which all processes have loaded until the step is published."""
    with tempfile.TemporaryDirectory(prefix="sdx-benchmark-") as cache:
        options = [
            step.name,
            cache,
            step.rows,
            step.batch_rows,
            getattr(step, "model", ""),
            getattr(step, "new_tokens", 0),
        ]
        command = [sys.executable, __file__, "--child", *map(str, options)]
        ranks = []
        for rank in range(processes):
            environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
            ranks.append(
                subprocess.Popen(
                    command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
            )
        try:
            for one in ranks:
                assert one.stdout
                assert one.stdout.readline() == b"ready\n", "a process did not load"
            began = time.monotonic()
            for one in ranks:
                assert one.stdin
                one.stdin.write(b"go\n")
                one.stdin.flush()
            assert ranks[0].wait() == 0
            return time.monotonic() - began
        finally:
            for one in ranks:
                one.kill()
                one.wait()


def child(name: str, cache: str, rows: str, batch_rows: str, model: str, new_tokens: str) -> None:
    step = Echo(int(rows), batch_rows=int(batch_rows))
    if name == Decode.name:
        step = Decode(int(rows), model, int(new_tokens), batch_rows=int(batch_rows))
    step.load(Workspace(Path(cache), {}))
    print("ready", flush=True)
    sys.stdin.readline()
    Store(Path(cache)).realise(step)
    os._exit(0)  # the interpreter takes a second to end


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, help="directory; the packaged SmolLM2 without")
    parser.add_argument("--rows", type=int, nargs=2, default=[480, 128], help="of echo, of decode")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs=2, default=[4, 2], help="of echo, of decode")
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        child(*given.child)
    echo, decode = given.rows
    steps = [Echo(echo, batch_rows=4), Decode(decode, str(given.model or smollm2(Store.shared())), batch_rows=8)]
    print("| engine | processes | seconds of one | seconds of all | times as fast |")
    print("| ------ | --------- | -------------- | -------------- | ------------- |")
    for step, processes in zip(steps, given.workers, strict=True):
        rounds = [(seconds(step, 1), seconds(step, processes)) for _ in range(given.rounds)]  # in turns
        one, all_ = (sorted(taken)[len(taken) // 2] for taken in zip(*rounds, strict=True))
        print(f"| {step.name} | {processes} | {one:.1f} | {all_:.1f} | {one / all_:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
