"""sdx's training loop, TRL's SFTTrainer and transformers' Trainer side by side.

    python benchmarks/train.py                                                SmolLM2-135M on instruction data, CPU
    python benchmarks/train.py --model llama2-7b-shape --adapter full lora    random weights, for a GPU

Same model, data, precision, threads and examples an optimizer step. Every run is a process of its own; the contestants
take turns, for --rounds. Prints what RESULTS.md records.
"""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script's own folder is all that Python would search

from benchmarks import ceiling, report
from benchmarks.child import Failed, call
from benchmarks.compare import NAMES, TRL, Comparison, write_examples
from benchmarks.data import distribution, gsm8k, random_tokens
from benchmarks.machine import machine, threads, versions
from benchmarks.measure import Job
from benchmarks.models import MODELS, REAL, random_model, smollm2
from sdx import InputError
from sdx.config import Adapter, Optimizer
from sdx.models.shape import shape_in
from sdx.store.files import write_json
from sdx.store.provenance import provenance
from sdx.store.store import Store

CPU_SIZE = {"batch_size": 16, "tokens": 4096}
GPU_SIZE = {"batch_size": 128, "tokens": 4096}
FOR_GPUS = ("llama2-7b-shape", "llama-1b-shape")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(sys.argv[1:] if arguments is None else arguments)
    try:
        with TemporaryDirectory(prefix="sdx-benchmark-") as folder:
            measured = measure(options, Path(folder))
    except (InputError, Failed) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\n{report.markdown(measured)}")
    if options.json:
        write_json(options.json, measured)
    return 0


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything that the command measures, as `report.markdown` takes it.

    Raises:
        InputError: a package with weights or data cannot be had.
        Failed: a process that all runs depend on.
    """
    names = _contestants(options)
    store = Store.shared()
    if options.model in REAL:
        model_dir = smollm2(store)
    else:
        model_dir = folder / "model"
        call(random_model, options.threads, name=options.model, out=str(model_dir))
    shape = shape_in(model_dir)
    assert shape
    count = options.batch_size * (options.warmup_steps + options.steps)
    real = options.data == "gsm8k"
    examples = gsm8k(store, model_dir, count) if real else random_tokens(shape.vocab_size, count, options.tokens)
    data = {"source": "GSM8K test questions with worked answers" if real else "random tokens", **distribution(examples)}
    print(f"data: {data}", flush=True)
    reached = call(ceiling.matmul, options.threads, model_dir=str(model_dir))
    print(f"matmul ceiling: {reached}", flush=True)
    comparisons = []
    for adapter in options.adapter:
        job = Job(
            model_dir=str(model_dir),
            data=write_examples(folder, examples),
            adapter=adapter,
            optimizer=options.optimizer,
            batch_size=options.batch_size,
            warmup_steps=options.warmup_steps,
            steps=options.steps,
            seed=0,
            tokens=options.tokens,
        )
        comparison = Comparison(options.model, reached["device"], job, dict(options.engine), options.threads)
        flops = report.flops_per_token(shape, [len(row["input_ids"]) for row in examples], Adapter(adapter))
        comparisons.append(comparison.run(names, options.rounds, options.search_trl) | {"flops_per_token": flops})
    return {
        "command": f"python benchmarks/train.py {options.command}".rstrip(),
        "date": date.today().isoformat(),
        "model": options.model,
        "parameters": shape.parameters,
        "data": data,
        "rounds": options.rounds,
        "machine": machine(reached["device"]),
        "threads": options.threads,
        "versions": versions(),
        "git": provenance()["git"],
        "ceiling": reached,
        "comparisons": comparisons,
    }


def _contestants(options: argparse.Namespace) -> list[str]:
    """Those that can run."""
    there = [name for name in options.contestants if name not in TRL or find_spec("trl")]
    if left_out := [name for name in options.contestants if name not in there]:
        print(f"{', '.join(left_out)} left out: TRL is missing (pip install 'sdx[bench]')", flush=True)
    return there


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", choices=MODELS, default="smollm2")
    add("--adapter", choices=[kind.value for kind in Adapter], nargs="+", default=["full"], help="one after the other")
    add("--data", choices=("gsm8k", "lengths"), help="lengths: random tokens; the default where the weights are random")
    add("--contestants", choices=NAMES, nargs="+", default=list(NAMES))
    add("--rounds", type=_positive, default=3)
    add("--batch-size", type=_positive, help="examples an optimizer step (16; 128 for llama shapes)")
    add("--warmup-steps", type=_positive, default=1, help="optimizer steps before the measured ones (1)")
    add("--steps", type=_positive, default=3, help="measured optimizer steps of a run (3)")
    add("--tokens", type=_positive, help="of a pack, where one packs (4096)")
    add("--threads", type=_positive, default=threads(), help="of a run's CPU kernels (OMP_NUM_THREADS, else all cores)")
    add("--engine", type=_field, nargs="+", default=[], metavar="KEY=VALUE", help="of sdx, as in compile=false")
    add("--optimizer", choices=[kind.value for kind in Optimizer], default=Optimizer.adamw.value)
    add("--search-trl", action="store_true", help="find TRL's best configuration anew")
    add("--json", type=Path, metavar="FILE", help="write every run's figures there")
    options = parser.parse_args(arguments)
    for key, value in (GPU_SIZE if options.model in FOR_GPUS else CPU_SIZE).items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    options.data = options.data or ("gsm8k" if options.model in REAL else "lengths")
    if options.data == "gsm8k" and options.model not in REAL:
        parser.error(f"--data gsm8k needs a tokenizer, --model {options.model} has none: take --data lengths")
    options.command = shlex.join(arguments)
    return options


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _field(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, json.loads(value)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and the running child ends too
    sys.exit(main())
