"""Which of MMLU's 57 subjects a question belongs to: classification with human-translated test items, without a hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sdx import InputError
from sdx.languages import ENGLISH, Language, language
from sdx.offline.benchmarks import english_subjects
from sdx.store.step import Step
from sdx.tasks.base import Item, question_texts, sample_key
from sdx.tasks.items import Row
from sdx.tasks.mmlu import MMLUHuman
from sdx.tasks.reading import Digests, ReadTask, Splits, digest, distinct

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

    The test is the 285 questions of `mmlu_human`, in English and seven human translations. Some could belong to any
    subject without their answers ("Which of the following is true?"): they stay. Ours; no published figure compares.
    """

    name = "mmlu_subject"
    asset = "mmlu"
    labels = SUBJECTS
    fields = ("question", "answer")
    prompt_template = "Question: {question}\nSubject:"

    def read(self, directories: Mapping[str, Path], language: Language, answer_language: Language) -> list[Item]:
        choices = [subject.replace("_", " ") for subject in SUBJECTS]
        return [
            replace(item, choices=choices, gold=SUBJECTS.index(item.id.split("/")[0]), segments=[item.prompt])
            for item in super().read(directories, language, answer_language)
        ]

    def split_inputs(self, source: Language) -> dict[str, Step]:
        if source.flores != ENGLISH:
            raise InputError(f"task.{self.name} has no training data in {source.name}; take source=en")
        return self.inputs(source, source)

    def splits(self, directories: Mapping[str, Path], source: Language, validation_rows: int) -> Splits:
        root, english = directories["asset"], language(ENGLISH)
        excluded = {"in_test": {digest([item.prompt]) for item in self.read(directories, english, english)}}
        validation, _ = self._rows(root, "validation", excluded)
        excluded["in_validation"] = {digest(question_texts(row)) for row in validation}
        train, left_out = self._rows(root, "test", excluded)
        return train, validation[:validation_rows], left_out

    def _rows(self, root: Path, split: str, excluded: Digests) -> tuple[list[Row], Mapping[str, int]]:
        """Distinct rows of a split, balanced, and the number of the others by reason."""
        subjects = english_subjects(root / self.english, split)
        count = sum(map(len, subjects.values()))
        if count != COUNTS[split] or set(subjects) != set(SUBJECTS):
            raise InputError(
                f"task={self.name}: {self.english} holds {count} questions of {len(subjects)} subjects in its split "
                f"{split} instead of {COUNTS[split]} of {len(SUBJECTS)}; delete the asset so that it is fetched again"
            )
        rows, left_out = distinct(
            (
                {"id": f"{split}/{subject}/{number}", "segments": [question], "choices": 0, "label": label}
                for label, subject in enumerate(SUBJECTS)
                for number, (question, *_) in enumerate(subjects[subject])
            ),
            question_texts,
            excluded,
        )
        rows.sort(key=lambda row: sample_key(row["id"]))
        return balanced([[row for row in rows if row["label"] == label] for label in range(len(SUBJECTS))]), left_out


def balanced(groups: Sequence[Sequence[Row]]) -> list[Row]:
    """One row of each group in turn, so that the first rows are balanced as long as all groups last."""
    longest = max(map(len, groups), default=0)
    return [rows[turn] for turn in range(longest) for rows in groups if turn < len(rows)]
