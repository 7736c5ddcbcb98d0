"""Benchmarks answered freely and compared with references: translation, summaries, answers to questions."""

from __future__ import annotations

from sdx import InputError
from sdx.tasks.base import Task, Who
from sdx.tasks.normalisation import Normalisation


class GenerativeTask(Task):
    """A benchmark of prompts with references."""

    who = Who.generate
    normalisation = Normalisation.unicode
    """What F1 and exact match compare."""

    def __init__(self, shots: int) -> None:
        super().__init__(shots)
        if shots:
            raise InputError(f"task.{self.name}.shots={shots}: {self.name} is asked without examples; write 0")

    def answer(self, completion: str) -> str:
        return answer_of(completion)


def answer_of(completion: str) -> str:
    """The first line with a text; nothing where there is none."""
    return next((line.strip() for line in completion.splitlines() if line.strip()), "")
