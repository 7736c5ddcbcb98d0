"""The panels of a study as a wandb workspace, in code; a test checks that a run logs every name here."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.tracking.content import DIFFERENCE, score_values

TRAINING = {
    "loss, nats per target": "train/loss",
    "learning rate": "train/learning_rate",
    "useful tokens per second": "train/useful_tokens_per_s",
    "MFU": "train/mfu",  # only if the peak of the device is known
    "model FLOP per second": "train/model_flops_per_s",
    "norm of the gradient": "train/grad_norm",
    "peak memory, bytes": "train/peak_memory_bytes",
    "share of time waiting for data": "train/data_wait_share",
}
"""Title -> curve over the training steps."""
STAGES = {
    "loss of a stack's trainings": "train/.+/loss",
    "useful tokens per second of a stack's trainings": "train/.+/useful_tokens_per_s",
}
"""Title -> pattern: the names of trainings depend on the method."""
RATES = {"generation, translation and scoring, units per second": "progress/.+_per_s"}
FUNNEL = ("filter/all/rows", "filter/all/kept_rows")
TIMES = ("steps/generate_seconds", "steps/translate_seconds", "steps/train_seconds", "steps/score_seconds")
TABLES = ("evaluation", "filters", "samples", "translations")


def bars(scores: Iterable[str]) -> dict[str, list[str]]:
    """For each task and metric the scores of its languages, before, after and of other systems."""
    found: dict[str, list[str]] = {}
    for name in sorted(set(scores)):
        _, *task, _, metric, part = name.split("/")
        if not part.startswith(DIFFERENCE):
            found.setdefault(f"{'/'.join(task)}, {metric}", []).append(name)
    return found


def scores_in(runs: Path) -> set[str]:
    """The names of the scores of the finished runs below a directory."""
    from sdx.reporting.finished import read_runs

    finished, _ = read_runs([runs])
    return {name for run in finished for name in score_values(run.scores)}


def workspace(project: str, entity: str, group: str | None, scores: Iterable[str]) -> Any:
    """The workspace, not yet saved, for the runs of one study (`group`) or all, with bars for these scores.

    Raises InputError if wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise InputError("the dashboard needs wandb-workspaces; pip install 'sdx[dashboard]'") from None

    def curves(panels: Mapping[str, str]) -> list[Any]:
        return [wr.LinePlot(title=title, x="Step", metric_regex=pattern) for title, pattern in panels.items()]

    tables = {name: wr.WeavePanelSummaryTable(table_name=f"tables/{name}") for name in TABLES}
    scored = [wr.BarPlot(title=f"{title}, percent", metrics=names) for title, names in bars(scores).items()]
    sections = {
        "Evaluation": [*scored, tables["evaluation"], wr.RunComparer(diff_only="split")],
        "Training": [
            *(wr.LinePlot(title=title, x="train/step", y=[name]) for title, name in TRAINING.items()),
            *curves(STAGES),
        ],
        "Data": [
            *curves(RATES),
            wr.BarPlot(title="filter funnel, rows", metrics=list(FUNNEL)),
            wr.BarPlot(title="last step of each kind, seconds", metrics=list(TIMES)),
            wr.BarPlot(title="whole run, seconds", metrics=["run/seconds"]),
            tables["filters"],
        ],
        "Samples": [tables["samples"], tables["translations"]],
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"sdx {group}" if group else "sdx",
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        runset_settings=ws.RunsetSettings(filters=[ws.Metric("Group") == group] if group else []),
    )


def as_json(built: Any) -> dict[str, Any]:
    """What is sent to wandb."""
    spec: dict[str, Any] = built._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return spec
