"""What the cache holds: `python -m sdx.cache list`, `verify` and `free`.

Nothing heavy is imported here: help and errors answer at once.
"""

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sdx import InputError
from sdx.process import terminal

if TYPE_CHECKING:
    from sdx.store.inventory import Artifact

LOG_WIDTH = 160
"""Columns where the output is no terminal."""
HOUR_S = 3600
UNITS = {"h": HOUR_S, "d": 24 * HOUR_S, "w": 7 * 24 * HOUR_S}
HEADS = ("step", "key", "about", "size", "age", "runs")
NUMBERS = ("size", "age")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_fail(f"{message}; python -m sdx.cache --help explains"))


def main() -> None:
    terminal.outlive()
    parser = _Parser(prog="python -m sdx.cache", description="Lists, checks and frees what the steps of runs left.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="list | verify | free")
    common = _chooses()
    actions.add_parser("list", parents=[common], help="show artifacts, their sizes and the runs that use them")
    actions.add_parser("verify", parents=[common], help="compare every file with the hash that it was published with")
    frees = actions.add_parser("free", parents=[common], help="delete artifacts; what a run needs is made again")
    frees.add_argument("--yes", action="store_true", help="do not ask")
    arguments = parser.parse_args()
    try:
        sys.exit(_act(arguments))
    except InputError as error:
        sys.exit(_fail(str(error)))
    except OSError as error:
        sys.exit(_fail(f"{error.filename}: {error.strerror}"))
    except KeyboardInterrupt:
        sys.exit(130)


def _chooses() -> _Parser:
    """The options that choose artifacts; with several of them, what all choose."""
    common = _Parser(add_help=False)
    common.add_argument("--cache-dir", type=Path, metavar="DIR", help="default: SDX_CACHE, or ~/.cache/sdx")
    common.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        default=[Path("runs")],
        metavar="DIR",
        help="where the runs lie that use the cache (default: runs)",
    )
    common.add_argument("--step", action="append", metavar="NAME", help="of this kind of step; may be given again")
    common.add_argument("--older-than", type=_age, metavar="AGE", help="made longer ago than 12h, 30d or 8w")
    common.add_argument("--run", type=Path, metavar="DIR", help="used by this run and no other below --runs")
    common.add_argument("--unused", action="store_true", help="used by no run below --runs")
    return common


def _age(text: str) -> float:
    if not (found := re.fullmatch(rf"(\d{{1,6}})([{''.join(UNITS)}])", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no age; write 12h, 30d or 8w")
    return float(found[1]) * UNITS[found[2]]


def _act(arguments: argparse.Namespace) -> int:
    from sdx.store.store import Store

    store = Store(arguments.cache_dir) if arguments.cache_dir else Store.shared()
    if not store.root.is_dir():
        raise InputError(f"there is no cache in {store.root.parent}; give its directory as --cache-dir")
    found = _chosen(arguments, store.root)
    if arguments.action == "verify":
        return _verify(found)
    _show(found, store.root)
    return _free(found, store.root, arguments.yes) if arguments.action == "free" else 0


def _chosen(arguments: argparse.Namespace, root: Path) -> "list[Artifact]":
    from sdx.store.inventory import find

    given = [arguments.step, arguments.older_than, arguments.run, arguments.unused or None]
    if arguments.action == "free" and all(one is None for one in given):
        raise InputError("free needs to be told what: --step, --older-than, --run, --unused, or several of them")
    if arguments.unused and not any(path.is_dir() for path in arguments.runs):
        raise InputError(f"there are no runs in {arguments.runs[0]}; give the directory of your runs as --runs")
    run = arguments.run
    artifacts = find(root, [*arguments.runs, *([run] if run else [])])
    if arguments.step and (unknown := sorted(set(arguments.step) - {one.step for one in artifacts})):
        known = ", ".join(sorted({one.step for one in artifacts})) or "none"
        raise InputError(f"--step {unknown[0]}: the cache has no such step; steps there: {known}")
    if run and not any(run.resolve() in one.runs for one in artifacts):
        raise InputError(f"--run {run}: nothing in {root} is of this run; give the directory of a run")
    now = time.time()
    return [
        one
        for one in artifacts
        if (not arguments.step or one.step in arguments.step)
        and (arguments.older_than is None or now - one.created_s > arguments.older_than)
        and (not run or one.runs == {run.resolve()})
        and not (arguments.unused and one.runs)
    ]


def _show(found: "Sequence[Artifact]", root: Path) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    from sdx.process.console import duration

    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH, highlight=False, markup=False)
    table, now, sizes = Table(), time.time(), Counter[str]()
    for head in HEADS:
        table.add_column(head, justify="right" if head in NUMBERS else "left", no_wrap=True, overflow="ellipsis")
    for one in found:
        sizes[one.step] += one.size_bytes
        age = duration(max(now - one.created_s, 1) / HOUR_S)
        cells = (one.step, one.key, one.about, decimal(one.size_bytes), age, _runs(one))
        table.add_row(*(Text(_plain(cell)) for cell in cells))
    if found:
        console.print(table)
    largest = ", ".join(f"{step} {decimal(size)}" for step, size in sizes.most_common())
    console.print(f"{_count(len(found))}, {decimal(sizes.total())}, in {root}", soft_wrap=True)
    if largest:
        console.print(largest, soft_wrap=True)


def _runs(one: "Artifact") -> str:
    first, *more = sorted(path.name for path in one.runs) or [""]
    return f"{first} and {len(more)} more" if more else first


def _verify(found: "Sequence[Artifact]") -> int:
    """Exit code 1 where something is damaged."""
    from sdx.process.progress import Progress
    from sdx.store.store import verify

    published = [one for one in found if one.finished]
    damaged = 0
    with Progress("verify", len(published), "artifacts") as progress:
        for one in published:
            try:
                verify(one.path, thorough=True)
            except InputError as error:
                damaged += 1
                progress.write(f"sdx: {error}", file=sys.stderr)
            progress.update()
    print(f"{_count(len(published))} checked, {damaged} damaged")
    return 1 if damaged else 0


def _free(found: "Sequence[Artifact]", root: Path, sure: bool) -> int:
    from rich.filesize import decimal

    from sdx.store.inventory import in_use, remove

    if not found:
        return 0
    if not sure and not sys.stdin.isatty():
        print("nothing was freed; the same with --yes frees it")
        return 0
    if not sure and input("Free all of it? What a run needs is made again. [y/N] ").strip().lower() not in ("y", "yes"):
        return 0
    used, size, kept = in_use(root), 0, 0
    for one in found:
        if remove(one, used):
            size += one.size_bytes
        else:
            kept += 1
            print(f"sdx: {one.step} {one.key} stays: a run makes it or reads it now", file=sys.stderr)
    print(f"freed {_count(len(found) - kept)}, {decimal(size)}")
    return 0


def _count(number: int) -> str:
    return f"{number} artifact{'' if number == 1 else 's'}"


def _plain(text: str) -> str:
    """One line that does nothing to a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _fail(message: str) -> int:
    print(f"sdx: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
