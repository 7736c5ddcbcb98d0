"""How long it takes to plan the runs of a sweep and to compare finished ones.

    python benchmarks/sweep.py runs/sdrrl-smollm2_135m-pt-s1-0123abcd

The finished run is copied under other methods and seeds into a directory of its own, so that the table has as many
rows and as many items to resample as a real one.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from sdx.reporting.paired import ITEMS
from sdx.store.files import read_json, write_json
from sdx.store.run_dir import RESULTS

METHODS = ("sft", "none", "sdrrl", "translate_sft", "self_translate_train")
LANGUAGES = ("pt", "de", "fr", "es", "it")


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Prints and returns the seconds of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("--seeds", type=int, default=4, help="of each of 25 combinations of method and language")
    given = parser.parse_args(arguments)
    runs = len(METHODS) * len(LANGUAGES) * given.seeds
    with tempfile.TemporaryDirectory() as place:
        copies(given.run, Path(place), given.seeds)
        seeds = ",".join(str(seed) for seed in range(1, given.seeds + 1))
        sweep = [
            f"method={','.join(METHODS)}",
            f"lang={','.join(LANGUAGES)}",
            f"seed={seeds}",
            f"runs_dir={place}/runs",
        ]
        found = {
            "planned": _seconds("sdx", "-m", *sweep, "plan=true"),
            "reported": _seconds("sdx.report", place),
            "compared": _seconds("sdx.report", place, "--baseline", "none"),
        }
    for name, seconds in found.items():
        print(f"{runs} runs {name:<9} {seconds:6.1f} s, {1000 * seconds / runs:6.1f} ms each")
    return found


def copies(run: Path, place: Path, seeds: int) -> None:
    """What the report reads of a run, under each method, language and seed."""
    results, items = read_json(run / RESULTS), (run / ITEMS).read_bytes()
    for method, language, seed in _combinations(seeds):
        directory = place / f"{method}-{language}-s{seed}"
        directory.mkdir()
        config = results["config"]
        config = {**config, "seed": seed, "method": {**config["method"], "name": method}}
        config["lang"] = {**config["lang"], "targets": {language: language}}
        write_json(directory / RESULTS, {**results, "config": config})
        (directory / ITEMS).write_bytes(items)


def _combinations(seeds: int) -> Iterator[tuple[str, str, int]]:
    yield from product(METHODS, LANGUAGES, range(1, seeds + 1))


def _seconds(module: str, *arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
