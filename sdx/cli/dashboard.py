"""Creates the wandb dashboard of a study: `python -m sdx.dashboard --project sdx --entity me`.

Nothing heavy is imported here: help and errors answer at once.
"""

import argparse
import json
import sys
from pathlib import Path

from sdx import InputError
from sdx.process import terminal


def main() -> None:
    terminal.outlive()
    parser = argparse.ArgumentParser(
        prog="python -m sdx.dashboard", description="Creates a wandb workspace with the panels of a study."
    )
    parser.add_argument(
        "runs",
        nargs="?",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where finished runs lie; each score found there gets a bar (default: runs)",
    )
    parser.add_argument("--project", default="sdx", help="wandb project, as in tracking.project (default: sdx)")
    parser.add_argument("--entity", help="wandb user or team; the key's own by default")
    parser.add_argument("--group", metavar="STUDY", help="show the runs of one study, as in tracking.group")
    parser.add_argument("--dry-run", action="store_true", help="print the panels as JSON and send nothing")
    arguments = parser.parse_args()
    try:
        _create(arguments)
    except InputError as error:
        print(f"sdx: {error}", file=sys.stderr)
        sys.exit(2)


def _create(arguments: argparse.Namespace) -> None:
    from sdx.tracking.dashboard import as_json, scores_in, workspace
    from sdx.tracking.wandb import has_key

    scores = scores_in(arguments.runs)
    if arguments.dry_run:
        built = workspace(arguments.project, arguments.entity or "entity", arguments.group, scores)
        print(json.dumps(as_json(built), indent=2, ensure_ascii=False))
        return
    built = workspace(arguments.project, arguments.entity or "entity", arguments.group, scores)
    if not has_key():
        raise InputError("there is no wandb key; run wandb login, set WANDB_API_KEY, or look with --dry-run")
    import wandb

    try:
        built.entity = arguments.entity or wandb.Api(timeout=30).default_entity
        built.save()
        print(built.url)
    except Exception as error:  # of the network, the server or the account, each with classes of its own
        raise InputError(f"wandb refused the dashboard: {' '.join(str(error).split())}") from None


if __name__ == "__main__":
    main()
