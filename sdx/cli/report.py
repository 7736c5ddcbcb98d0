"""Compares finished runs: `python -m sdx.report runs/` prints a table and writes comparison.md and comparison.csv.

Nothing heavy is imported here: help and errors answer at once.
"""

import argparse
import sys
from pathlib import Path

from sdx import InputError
from sdx.process import terminal


def main() -> None:
    terminal.outlive()
    parser = argparse.ArgumentParser(prog="python -m sdx.report", description="Compares finished runs in one table.")
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="a run's directory, or one with runs below it; comparison.md and comparison.csv go into the first, or "
        "beside it where it is a run",
    )
    parser.add_argument(
        "--baseline",
        metavar="TEXT",
        help="the run to subtract from the others, item by item: its name in the table, a part of it such as "
        "mixture=src, or any text in it",
    )
    arguments = parser.parse_args()
    from sdx.reporting.compare import compare

    try:
        compare(arguments.paths, arguments.baseline)
    except InputError as error:
        sys.exit(_fail(str(error)))
    except OSError as error:
        sys.exit(_fail(f"{error.filename}: {error.strerror}"))


def _fail(message: str) -> int:
    print(f"sdx: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
