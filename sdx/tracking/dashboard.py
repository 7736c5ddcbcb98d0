"""The panels of a study as a wandb workspace, as code: every name here is one that a run logs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.tracking.content import DIFFERENCE, score_values

TRAINING = {
    "loss, nats per target": "train/loss",
    "learning rate": "train/learning_rate",
    "useful tokens per second": "train/useful_tokens_per_s",
    "MFU": "train/mfu",
    "model FLOP per second": "train/model_flops_per_s",
    "norm of the gradient": "train/grad_norm",
    "peak memory, bytes": "train/peak_memory_bytes",
    "share of time waiting for data": "train/data_wait_share",
}
"""Title -> curve over the training steps."""
ON_GPU = ("train/mfu",)
"""Only where the peak of the device is known."""
STAGES = {
    "loss of a stack's trainings": "train/.+/loss",
    "useful tokens per second of a stack's trainings": "train/.+/useful_tokens_per_s",
}
"""Title -> pattern: names of trainings depend on the method."""
RATES = {"generation, translation and scoring, units per second": "progress/.+_per_s"}
FUNNEL = ("filter/all/rows", "filter/all/kept_rows")
TIMES = ("steps/generate_seconds", "steps/translate_seconds", "steps/train_seconds", "steps/score_seconds")
TABLES = ("evaluation", "filters", "samples", "translations")


@dataclass(frozen=True)
class Metrics:
    """What all panels name."""

    names: Sequence[str]
    patterns: Sequence[str]


def metrics(scores: Iterable[str] = ()) -> Metrics:
    """What is shown.

    Args:
        scores: names of scores of finished runs.
    """
    tables = [f"tables/{name}" for name in TABLES]
    shown = [name for names in _bars(scores).values() for name in names]
    names = [*TRAINING.values(), "train/step", *FUNNEL, *TIMES, "run/seconds", *tables, *shown]
    return Metrics(names, [*STAGES.values(), *RATES.values()])


def _bars(scores: Iterable[str]) -> dict[str, list[str]]:
    """For each task and metric the scores of its languages, before, after and of other systems."""
    bars: dict[str, list[str]] = {}
    for name in sorted(set(scores)):
        _, *task, _, metric, part = name.split("/")
        if not part.startswith(DIFFERENCE):
            bars.setdefault(f"{'/'.join(task)}, {metric}", []).append(name)
    return bars


def scores_in(runs: Path) -> set[str]:
    """The names of the scores of the finished runs below a directory."""
    from sdx.reporting.finished import read_runs

    finished, _ = read_runs([runs])
    return {name for run in finished for name in score_values(run.scores)}


def workspace(project: str, entity: str, group: str | None, scores: Iterable[str] = ()) -> Any:
    """The workspace, not yet saved.

    Args:
        group: only the runs of this study.
        scores: as in `metrics`.

    Raises:
        InputError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise InputError("the dashboard needs wandb-workspaces; pip install 'sdx[dashboard]'") from None

    def curves(panels: Mapping[str, str]) -> list[Any]:
        return [wr.LinePlot(title=title, x="Step", metric_regex=pattern) for title, pattern in panels.items()]

    training = [wr.LinePlot(title=title, x="train/step", y=[name]) for title, name in TRAINING.items()]
    tables = [wr.WeavePanelSummaryTable(table_name=f"tables/{name}") for name in TABLES]
    data = [
        *curves(RATES),
        wr.BarPlot(title="filter funnel, rows", metrics=list(FUNNEL)),
        wr.BarPlot(title="last step of each kind, seconds", metrics=list(TIMES)),
        wr.BarPlot(title="whole run, seconds", metrics=["run/seconds"]),
        tables[TABLES.index("filters")],
    ]
    bars = [wr.BarPlot(title=f"{title}, percent", metrics=names) for title, names in _bars(scores).items()]
    sections = {
        "Evaluation": [*bars, tables[TABLES.index("evaluation")], wr.RunComparer(diff_only="split")],
        "Training": [*training, *curves(STAGES)],
        "Data": data,
        "Samples": [table for name, table in zip(TABLES, tables, strict=True) if name in ("samples", "translations")],
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
