"""Creates the wandb dashboard of a study: `python -m sdx.dashboard --project sdx --entity me`."""

import argparse
import json
from pathlib import Path

from sdx import InputError
from sdx.cli.command import Parser, command


@command()
def main() -> None:
    parser = Parser(prog="python -m sdx.dashboard", description="Creates a wandb workspace with the panels of a study.")
    parser.add_argument(
        "runs",
        nargs="?",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="the directory of finished runs; each of their scores gets a bar (default: runs)",
    )
    parser.add_argument("--project", default="sdx", help="wandb project, as in tracking.project (default: sdx)")
    parser.add_argument("--entity", help="wandb user or team (default: that of the wandb key)")
    parser.add_argument("--group", metavar="STUDY", help="show the runs of one study, as in tracking.group")
    parser.add_argument("--dry-run", action="store_true", help="print the panels as JSON and send nothing")
    _create(parser.parse_args())


def _create(arguments: argparse.Namespace) -> None:
    from sdx.tracking.dashboard import as_json, scores_in, workspace
    from sdx.tracking.wandb import has_key

    built = workspace(arguments.project, arguments.entity or "entity", arguments.group, scores_in(arguments.runs))
    if arguments.dry_run:
        print(json.dumps(as_json(built), indent=2, ensure_ascii=False))
        return
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
