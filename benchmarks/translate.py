"""Translating with CTranslate2 against transformers, at NLLB-200-600M's shape.

    python benchmarks/translate.py                             int8 against bf16 and fp32, on a CPU
    python benchmarks/translate.py --ways 'transformers bf16' 'ctranslate2 bf16' --batch-size 256    on a GPU

Random weights, made-up sentences of 10 to 40 tokens, translations of --tokens each; same sentences and beams in one
process, in turns, for --rounds. Prints what RESULTS.md records.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script's own folder is all that Python would search

from benchmarks.child import Failed, call
from benchmarks.machine import machine, threads, versions
from benchmarks.report import table
from benchmarks.runtimes import measure, write_shape
from sdx import InputError
from sdx.store.files import write_json
from sdx.store.provenance import provenance

WAYS = ("transformers bf16", "transformers fp32", "ctranslate2 int8")
HEADINGS = ("runtime", "sentences/s (range)", "target tokens/s", "times the first (by round)")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(sys.argv[1:] if arguments is None else arguments)
    given = {"ways": options.ways, "count": options.sentences, "beams": options.beams, "tokens": options.tokens}
    try:
        with TemporaryDirectory(prefix="sdx-benchmark-") as folder:
            place = options.place or Path(folder)
            if not (place / "model" / "tokenizer.json").is_file():
                call(write_shape, options.threads, place=str(place))
            rounds = {"batch_size": options.batch_size, "rounds": options.rounds}
            result = call(measure, options.threads, place=str(place), **given, **rounds)
    except (InputError, Failed) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(_report(options, result)))
    if options.json:
        write_json(options.json, result)
    return 0


def _report(options: argparse.Namespace, result: dict[str, Any]) -> list[str]:
    about = machine(result["device"])
    named = ", ".join(f"{name} {version}" for name, version in versions().items())
    mean = result["tokens"] / options.sentences
    return [
        f"### {date.today().isoformat()}: NLLB-200-600M's shape, random weights",
        "",
        f"    python benchmarks/translate.py {options.command}".rstrip(),
        "",
        f"- Machine: {about['cpu']}, {about['cores']} cores, {options.threads} threads, {about['memory_gib']:.0f} GiB, "
        f"{about['device']}",
        f"- Versions: {named}; sdx at {provenance()['git'] or 'no checkout'}",
        f"- {options.sentences} sentences of {mean:.0f} tokens into {options.tokens} with {options.beams} beams, "
        f"{options.rounds} rounds",
        "",
        *table(HEADINGS, rows(result["runs"], options.sentences, options.tokens)),
    ]


def rows(runs: Sequence[dict[str, Any]], sentences: int, tokens: int) -> list[list[str]]:
    """Medians over the rounds, and how many times as fast as the first way each is."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        seconds.setdefault(run["way"], []).append(run["seconds"])
    first = next(iter(seconds.values()))
    cells = []
    for way, its in seconds.items():
        speeds = [sentences / one for one in its]
        ratios = [one / other for one, other in zip(first, its, strict=True)]
        cells.append(
            [
                way,
                f"{median(speeds):.2f} ({min(speeds):.2f} to {max(speeds):.2f})",
                f"{tokens * median(speeds):.0f}",
                f"{median(first) / median(its):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})" * (its is not first),
            ]
        )
    return cells


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ways", nargs="+", default=list(WAYS), help="runtime and precision of each, the first to compare with")
    add("--place", type=Path, metavar="DIR", help="where the model is written, once (1.2 GB; a temporary folder)")
    add("--sentences", type=int, default=64)
    add("--tokens", type=int, default=32, help="of each translation")
    add("--beams", type=int, default=4)
    add("--batch-size", type=int, default=0, help="translator.batch_size; 0: sdx's own")
    add("--rounds", type=int, default=3)
    add("--threads", type=int, default=threads(), help="of the CPU kernels (OMP_NUM_THREADS, else all cores)")
    add("--json", type=Path, metavar="FILE", help="write every run's figures there")
    options = parser.parse_args(arguments)
    options.command = shlex.join(arguments)
    return options


if __name__ == "__main__":
    sys.exit(main())
