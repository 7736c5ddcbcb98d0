"""What the cache holds: `python -m sdx.cache list`, `verify` and `free`."""

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdx import InputError
from sdx.cli.command import LOG_WIDTH, Parser, command, one_line

if TYPE_CHECKING:
    from sdx.store.inventory import Artifact

HOUR_S = 3600
UNITS = {"h": HOUR_S, "d": 24 * HOUR_S, "w": 7 * 24 * HOUR_S}


@command()
def main() -> None:
    parser = Parser(prog="python -m sdx.cache", description="Lists, checks and frees what the steps of runs left.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="list | verify | free")
    common = _selection()
    actions.add_parser("list", parents=[common], help="show artifacts, their sizes and the runs that use them")
    actions.add_parser("verify", parents=[common], help="compare every file with its hash from when it was published")
    frees = actions.add_parser("free", parents=[common], help="delete artifacts; what a run needs is made again")
    frees.add_argument("--yes", action="store_true", help="do not ask")
    arguments = parser.parse_args()
    sys.exit(_act(arguments))


def _selection() -> Parser:
    """The options that select artifacts; an artifact must match all of them."""
    common = Parser(add_help=False)
    add = common.add_argument
    add("--cache-dir", type=Path, metavar="DIR", help="default: SDX_CACHE, or ~/.cache/sdx")
    runs_help = "directories of the runs that use the cache (default: runs)"
    add("--runs", type=Path, nargs="+", default=[Path("runs")], metavar="DIR", help=runs_help)
    add("--step", action="append", metavar="NAME", help="of this kind of step; may be given several times")
    add("--older-than", type=_age, metavar="AGE", help="made longer ago than 12h, 30d or 8w")
    add("--run", type=Path, metavar="DIR", help="used by this run and no other below --runs")
    add("--unused", action="store_true", help="used by no run below --runs; remembered sentences stay")
    return common


def _age(text: str) -> float:
    if not (found := re.fullmatch(rf"(\d{{1,6}})([{''.join(UNITS)}])", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not an age; write 12h, 30d or 8w")
    return float(found[1]) * UNITS[found[2]]


def _act(arguments: argparse.Namespace) -> int:
    from sdx.store.store import Store

    store = Store(arguments.cache_dir) if arguments.cache_dir else Store.shared()
    if not store.root.is_dir():
        raise InputError(f"there is no cache in {store.root.parent}; give its directory as --cache-dir")
    selected = _selected(arguments, store.root)
    if arguments.action == "verify":
        return _verify(selected)
    _show(selected, store.root)
    if arguments.action == "free" and selected:
        _free(selected, store.root, arguments.yes)
    return 0


def _selected(arguments: argparse.Namespace, root: Path) -> "list[Artifact]":
    from sdx.store.files import SENTENCES
    from sdx.store.inventory import artifacts

    steps, run, unused = arguments.step, arguments.run, arguments.unused
    if arguments.action == "free" and not (steps or run or unused or arguments.older_than is not None):
        raise InputError("free needs a selection: --step, --older-than, --run, --unused, or several of them")
    if unused and not any(path.is_dir() for path in arguments.runs):
        raise InputError(f"there are no runs in {arguments.runs[0]}; give the directory of your runs as --runs")
    found = artifacts(root, [*arguments.runs, *([run] if run else [])])
    known = sorted({artifact.step for artifact in found})
    if unknown := sorted({*(steps or ())} - {*known}):
        there = ", ".join(known) or "none"
        raise InputError(f"--step {unknown[0]}: the cache has no such step; steps there: {there}")
    if run and not any(run.resolve() in artifact.runs for artifact in found):
        raise InputError(f"--run {run}: nothing in {root} is of this run; give the directory of a run")
    now = time.time()
    return [
        artifact
        for artifact in found
        if (not steps or artifact.step in steps)
        and now - artifact.created_s > (arguments.older_than or 0)
        and (not run or artifact.runs == {run.resolve()})
        and not (unused and (artifact.runs or artifact.step == SENTENCES))
    ]


def _show(selected: "Sequence[Artifact]", root: Path) -> None:
    from rich.filesize import decimal
    from rich.table import Table

    from sdx.process.console import console as new_console
    from sdx.process.console import duration

    console = new_console(LOG_WIDTH)
    table, now, sizes = Table(), time.time(), Counter[str]()
    for head in ("step", "key", "about", "size", "age", "runs"):
        table.add_column(head, justify="right" if head in ("size", "age") else "left", no_wrap=True)
    for artifact in selected:
        sizes[artifact.step] += artifact.size_bytes
        age = duration(max(now - artifact.created_s, 1) / HOUR_S)
        first, *more = sorted(path.name for path in artifact.runs) or [""]
        runs = f"{first} and {len(more)} more" if more else first
        cells = (artifact.step, artifact.key, artifact.about, decimal(artifact.size_bytes), age, runs)
        table.add_row(*map(one_line, cells))
    if selected:
        console.print(table)
    console.print(f"{_count(len(selected))}, {decimal(sizes.total())}, in {root}", soft_wrap=True)
    if selected:
        largest = (f"{step} {decimal(size)}" for step, size in sizes.most_common())
        console.print(", ".join(largest), soft_wrap=True)


def _verify(selected: "Sequence[Artifact]") -> int:
    """The exit code: 1 if something is damaged."""
    from sdx.process.progress import Progress
    from sdx.store.store import verify

    published = [artifact for artifact in selected if artifact.finished]
    damaged = 0
    with Progress("verify", len(published), "artifacts") as progress:
        for artifact in published:
            try:
                verify(artifact.path, thorough=True)
            except InputError as error:
                damaged += 1
                progress.write(f"sdx: {error}", file=sys.stderr)
            progress.update()
    print(f"{_count(len(published))} checked, {damaged} damaged")
    return 1 if damaged else 0


def _free(selected: "Sequence[Artifact]", root: Path, sure: bool) -> None:
    from rich.filesize import decimal

    from sdx.store.inventory import in_use, remove

    if not sure and not sys.stdin.isatty():
        print("nothing was freed; add --yes to free it without being asked")
        return
    question = "Delete all of these? A run makes what it needs again. [y/N] "
    if not sure and input(question).strip().lower() not in ("y", "yes"):
        return
    used, freed_bytes = in_use(root), []
    for artifact in selected:
        if remove(artifact, used):
            freed_bytes.append(artifact.size_bytes)
        else:
            print(f"sdx: {artifact.step} {artifact.key} stays: a run is making or reading it", file=sys.stderr)
    print(f"freed {_count(len(freed_bytes))}, {decimal(sum(freed_bytes))}")


def _count(number: int) -> str:
    return f"{number} artifact{'' if number == 1 else 's'}"


if __name__ == "__main__":
    main()
