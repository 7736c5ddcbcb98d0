"""What a step would publish and what making it would cost, told before it is made. All figures are expectations."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from sdx.languages import Language
from sdx.store.files import write_rows

ROWS = "rows.jsonl"
READABLE_BYTES = 100_000_000
"""A larger file is not read for a plan."""
STAND_IN_ROWS = 200
WORD = "so"
"""A token of a stand-in."""


@dataclass(frozen=True)
class Rows:
    """What a file of rows holds."""

    count: float
    tokens: Mapping[str, float] = field(default_factory=dict)
    """Mean tokens of each field; a list of texts counts as one text."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Fields that are no running text, as every row of a stand-in has them."""

    def of(self, name: str) -> float:
        """Mean tokens of a field; those of the longest field if the file does not have it."""
        return self.tokens.get(name, max(self.tokens.values(), default=0.0))

    @property
    def total(self) -> float:
        """Tokens of all fields of all rows."""
        return self.count * sum(self.tokens.values())


@dataclass(frozen=True)
class Work:
    """What a step asks of the machine; `sdx.models.work.ModelWork` adds the passes of a model.

    Args:
        seconds: of work that no GPU speeds up, on this machine.
        loads: how often a model is loaded.
        resident: names the copy of a model that stays in memory after the step; a step that wants the same copy next
            does not load it.
    """

    seconds: float = 0.0
    loads: int = 0
    resident: str = ""

    def without_loading(self) -> "Work":
        return replace(self, loads=0)


@dataclass(frozen=True)
class Estimate:
    """What a step publishes and costs.

    Args:
        rows: of its output.
        tokens: generated, translated, read or trained on, whichever the step does; else those of its rows.
        files: what its files of rows hold.
        work: nothing for a cached step.
        bound: whether `rows` and `tokens` are upper bounds.
        units: what an interrupted step counts its progress in, if not rows: optimizer steps.
        counts_as: the total to which `tokens` belong: "generated", "translated", "trained" or none.
    """

    rows: float = 0.0
    tokens: float = 0.0
    files: Mapping[str, Rows] = field(default_factory=dict)
    work: Work = field(default_factory=Work)
    bound: bool = False
    units: float = 0.0
    counts_as: str = ""


@dataclass(frozen=True)
class Answers:
    """Greedy answers of one model with one limit of new tokens.

    Args:
        tokens: mean, the end of turn counted.
        cut: share that ran into the limit.
        finished_tokens: mean of the others.
    """

    tokens: float
    cut: float
    finished_tokens: float


class Plan(Protocol):
    """What the estimates of a run's steps build on, see `sdx.planning.estimate`. Configurations and shapes are untyped
    here because they are defined above this room."""

    config: Any
    """The run's `sdx.config.Config`."""
    on_gpus: Any
    """The configuration of the same run on GPUs, which may compute in another precision."""
    shape: Any
    """`sdx.config.ShapeConfig` of the backbone."""
    encoder: Any
    """The same of the encoder of a stack; none without one."""
    source: Language

    def of(self, step: Any) -> Estimate:
        """The estimate of a step; the inputs of a step come before it."""

    def rows(self, step: Any, file: str = ROWS) -> Rows:
        """What a file of a step holds; its first file if there is none of that name."""

    def tokens(self, english: float, language: Language | None) -> float:
        """Tokens, by the backbone's tokenizer, of a text with so many tokens in English; None: the source language."""

    def answers(self, step: Any) -> Answers | None:
        """What is known of the lengths of generated answers; nothing for a step whose rows are no answers."""

    def path(self, step: Any) -> Path | None:
        """The output of a step; none unless it is cached."""


@contextmanager
def stand_ins(plan: Plan, steps: Mapping[str, Any]) -> Iterator[tuple[dict[str, Path], float]]:
    """(directories with as many rows of as many tokens as these steps publish, how many rows a row there stands for).

    Ids count up from 0 in every file, so that a file with fewer rows has a part of the ids of another. Texts are made
    of `WORD`s, one for each token: `len(text.split())` counts them again.
    """
    files = {name: plan.of(step).files for name, step in steps.items()}
    most = max((rows.count for each in files.values() for rows in each.values()), default=0.0)
    scale = max(1.0, most / STAND_IN_ROWS)
    with TemporaryDirectory(prefix="sdx-plan-") as folder:
        directories = {name: Path(folder, str(number)) for number, name in enumerate(files)}
        for name, each in files.items():
            directories[name].mkdir()
            for file, rows in each.items():
                texts = {of: " ".join([WORD] * max(1, round(tokens))) for of, tokens in rows.tokens.items()}
                count = max(1, round(rows.count / scale)) if rows.count else 0
                write_rows(directories[name] / file, [{"id": str(n), **texts, **rows.fixed} for n in range(count)])
        yield directories, scale
