"""Compares finished runs: `python -m sdx.report runs/` prints a table and writes comparison.md and comparison.csv."""

from pathlib import Path

from sdx.cli.command import Parser, command


@command()
def main() -> None:
    parser = Parser(prog="python -m sdx.report", description="Compares finished runs in one table.")
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="a run's directory, or a directory with runs below it; comparison.md and comparison.csv are written into "
        "the first DIR, or beside it if it is a run",
    )
    parser.add_argument(
        "--baseline",
        metavar="TEXT",
        help="the run to subtract from the others, item by item: its name in the table, a part of the name such as "
        "mixture=src, or any text in it",
    )
    arguments = parser.parse_args()
    from sdx.reporting.compare import compare

    compare(arguments.paths, arguments.baseline)


if __name__ == "__main__":
    main()
