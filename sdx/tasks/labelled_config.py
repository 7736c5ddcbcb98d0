"""The options of a task with labels: its description in conf/task/, which is all that a dataset needs."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from sdx.config import TaskConfig
from sdx.options import fields
from sdx.options.source import FileSource
from sdx.tasks.normalisation import Normalisation

CODES = ("xnli", "xquad", "mgsm", "nusax", "americas_nli", "kardes_nlu", "belebele")
"""The columns of languages.csv that can name the files of a language."""


@dataclass
class LabelledFilesConfig(FileSource):
    """One split of a benchmark. A `path` is read instead of the asset's or the hub's `file`.

    It has the same columns, in .jsonl, .json, .csv, .tsv (each also with .gz) or .parquet. In `path` and `file`,
    `{language}` stands for the benchmark's code of a language, or for ours where it has none. Without it: training data
    in L, a test in English.
    """

    asset: str | None = None
    """Packaged data, see `sdx.offline.assets`; needs `file`."""
    codes: str | None = field(default=None, metadata=fields.among(CODES))
    """Column of languages.csv with the benchmark's codes; none where it has one language."""
    half: int = fields.number(0, at_least=0, at_most=2)
    """1 or 2: only this half of the rows of `file`, which a hash of their ids cuts; 0: all."""
    columns: dict[str, str] = field(default_factory=dict)
    """What the prompt and the answer are made of -> column of the file. A dot goes into a nested object or list:
    `answers.text.0`. Rows without a column `id` are numbered; one of several columns is `link/question_number`."""
    labels: list[str] = field(default_factory=list)
    """Classification: the words for the labels in the file, from label 0 on; without them they are numbers from 0
    on, or the words of the task."""


@dataclass
class LabelledTaskConfig(TaskConfig):
    """A benchmark of one of the forms in `sdx.tasks.forms`."""

    benchmark: str = fields.name()
    """Its name in tables and cache keys, the same as that of its YAML file."""
    title: str = MISSING
    """Its name in messages."""
    prompt: str = MISSING
    """What a model reads, in training and in evaluation: `{question}` stands for the column of that name."""
    translated: list[str] = field(default_factory=list)
    """The columns of texts that a translator renders, and `answer` where the answer is a text too."""
    labels: list[str] = field(default_factory=list)
    """Classification: the word of each label, from label 0 on. They are the answers in every language."""
    normalisation: Normalisation = Normalisation.unicode
    """Questions on a text: what F1 and exact match compare: `unicode`, ours, or a published evaluation's, which the
    metric is then named after, as in `F1 (MLQA)`: `squad`, `mlqa`, `mkqa`. See `sdx.tasks.normalisation`."""
    train: LabelledFilesConfig = field(default_factory=LabelledFilesConfig)
    """The labelled data to train on, in L."""
    test: LabelledFilesConfig = field(default_factory=LabelledFilesConfig)
    """The items of the benchmark."""
    validation: LabelledFilesConfig = field(default_factory=LabelledFilesConfig)
    """Labelled data in L to choose a model by, for methods that do; without it some of the training data are."""


SCHEMAS = {"labelled": LabelledTaskConfig}
