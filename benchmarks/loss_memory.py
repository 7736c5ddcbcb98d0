"""Memory and time of the loss for a vocabulary of 262,144 (Gemma 3's): all logits at once against chunks.

    python benchmarks/loss_memory.py
    python benchmarks/loss_memory.py --targets 512 4096 --hidden 640

Forward and backward of the summed cross-entropy of N targets, from hidden states and the head's weights, both bf16,
with gradients of both. Each figure is from a process of its own. Prints what RESULTS.md records.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script's own folder is all that Python would search

from benchmarks.child import Failed, call
from benchmarks.losses import LOSSES, measure
from benchmarks.machine import machine, threads, versions
from benchmarks.report import GIB, table

VOCABULARY = 262144


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--hidden", type=int, nargs="+", default=[640, 2304], help="Gemma 3 270M, Gemma 2 2B (both)")
    parser.add_argument("--targets", type=int, nargs="+", default=[1024])
    parser.add_argument("--threads", type=int, default=threads())
    options = parser.parse_args()
    cells, device = [], ""
    for hidden in options.hidden:
        for targets in options.targets:
            for name in LOSSES:
                arguments = {"targets": targets, "hidden": hidden, "vocabulary": options.vocabulary}
                shown = [name, str(hidden), f"{targets:,}"]
                try:
                    run = call(measure, options.threads, name=name, **arguments)
                except Failed as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    cells.append([*shown, "failed", "", "", ""])
                    continue
                device = run["device"]
                used, loss, gradient = f"{run['bytes'] / GIB:.2f} GiB", f"{run['loss']:.4f}", f"{run['gradient']:.4f}"
                cells.append([*shown, used, f"{run['seconds']:.2f}", loss, gradient])
    about = machine(device)
    print(f"{options.vocabulary:,} tokens, bf16, {about['cpu']}, {options.threads} threads, {device}; {versions()}\n")
    headings = ("loss", "hidden", "targets", "peak memory", "seconds", "NLL a target", "norm of the head's gradient")
    print("\n".join(table(headings, cells)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
