"""Which of MMLU's 57 subjects a question belongs to: classification with human-translated test items, without a hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.languages import ENGLISH, Language, language
from sdx.offline.benchmarks import english_subjects
from sdx.store.step import Step
from sdx.tasks.base import Item, Kind, shuffled
from sdx.tasks.items import Row, read_row
from sdx.tasks.labelled_rows import digest
from sdx.tasks.mmlu import MMLUHuman
from sdx.tasks.reading import ReadTask, Splits

SUBJECTS = tuple(
    """abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
    college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
    econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
    high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
    high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
    high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
    human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing
    medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory
    professional_accounting professional_law professional_medicine professional_psychology public_relations
    security_studies sociology us_foreign_policy virology world_religions""".split()
)
COUNTS = {"test": 14042, "validation": 1531}
"""Questions of MMLU's splits. The names are MMLU's: its large test split is what is trained on here."""


class MMLUSubject(MMLUHuman, ReadTask):
    """The subject of a question without its answers; trained on MMLU's test split, tested on its development split.

    The test is the 285 questions of `mmlu_human`, in English and seven human translations. Some are of any subject
    without their answers ("Which of the following is true?"): they stay. Ours; no published figure compares.
    """

    name = "mmlu_subject"
    kind = Kind.answers
    asset = "mmlu"
    labels = SUBJECTS
    fields = ("question", "answer")

    @property
    def wrapper(self) -> str:
        return "Question: {question}\nSubject:"

    def read(self, directories: Mapping[str, Path], asked: Language, answered: Language) -> list[Item]:
        choices = [subject.replace("_", " ") for subject in SUBJECTS]
        return [
            replace(item, choices=choices, gold=SUBJECTS.index(item.id.split("/")[0]), segments=[item.prompt])
            for item in super().read(directories, asked, answered)
        ]

    def split_inputs(self, source: Language) -> dict[str, Step]:
        if source.flores != ENGLISH:
            raise InputError(f"task.{self.name} has no training data in {source.name}; take source=en")
        return self.inputs(source, source)

    @property
    def split_description(self) -> Mapping[str, Any]:
        return {}

    def splits(self, directories: Mapping[str, Path], source: Language, validation_rows: int) -> Splits:
        root, english = directories["asset"], language(ENGLISH)
        taken = {"in_test": {digest((item.prompt,)) for item in self.read(directories, english, english)}}
        validation, _ = self._rows(root, "validation", taken)
        taken["in_validation"] = {digest((*row["segments"],)) for row in validation}
        train, left_out = self._rows(root, "test", taken)
        return Splits(train, validation[:validation_rows], left_out)

    def _rows(self, root: Path, split: str, taken: Mapping[str, set[bytes]]) -> tuple[list[Row], Mapping[str, int]]:
        """Rows of a split, balanced, and how many were left out by reason.

        Raises:
            InputError: the asset holds other questions than it should.
        """
        subjects = english_subjects(root / self.english, split)
        count = sum(map(len, subjects.values()))
        if count != COUNTS[split] or set(subjects) != set(SUBJECTS):
            raise InputError(
                f"task={self.name}: {self.english} holds {count} questions of {len(subjects)} subjects in its split "
                f"{split} instead of {COUNTS[split]} of {len(SUBJECTS)}; delete the asset so that it is fetched again"
            )
        left_out = Counter(dict.fromkeys((*taken, "repeated"), 0))
        seen: set[bytes] = set()
        kept: dict[str, list[Item]] = {subject: [] for subject in SUBJECTS}
        for label, subject in enumerate(SUBJECTS):
            for number, (question, *_) in enumerate(subjects[subject]):
                texts = digest((question,))
                reason = next((reason for reason, known in taken.items() if texts in known), None)
                if reason or texts in seen:
                    left_out[reason or "repeated"] += 1
                    continue
                seen.add(texts)
                kept[subject].append(Item(f"{split}/{subject}/{number}", question, gold=label, segments=[question]))
        rows = balanced([shuffled(items) for items in kept.values()])
        return [{"id": item.id, **read_row(item, True)} for item in rows], left_out


def balanced(groups: Sequence[Sequence[Item]]) -> list[Item]:
    """One row of each group in turn, so that the first rows hold as many of each as far as there are."""
    longest = max(map(len, groups), default=0)
    return [rows[turn] for turn in range(longest) for rows in groups if turn < len(rows)]
