"""Questions and prompts whose answers differ, for models that rank and for models that write."""

from typing import Any

from sdx.tasks.base import ChoiceTask


class Quiz(ChoiceTask):
    """A task whose items are given with it."""

    def __init__(self, name: str, prompt_template: str | None = "Q: {question}\nA:", shots: int = 0) -> None:
        super().__init__(shots)
        self.name, self.prompt_template = name, prompt_template


ITEMS: list[dict[str, Any]] = [
    {
        "id": "dog",
        "question": "How many legs does a dog have?",
        "choices": ["four", "two", "six", "none"],
        "gold": 0,
    },
    {
        "id": "gas",
        "question": "Which gas do plants take in? ",
        "choices": ["oxygen", "carbon dioxide", "a", "b"],
        "gold": 1,
    },
    {
        "id": "patas",
        "question": "Quantas patas tem um cão?",
        "choices": ["quatro", "É dióxido", "seis", "2"],
        "gold": 0,
    },
    {"id": "thai", "question": "ประเทศไทย {{x}}", "choices": ["ภาษาไทย", "สวัสดีครับ", "ไทย", "ครับ"], "gold": 3},
    {
        "id": "long",
        "question": "The quick brown fox. " * 12,
        "choices": ["x", "y", "The lazy dog jumps", "z"],
        "gold": 2,
    },
]
SHOTS = [f"English: The dog has {n} legs.\nThai: สุนัขมี {n} ขา\n\n" for n in range(6)]
SENTENCES = ["How many legs?", "a", "The quick brown fox jumps over the lazy dog.", "ประเทศไทย", "Dog. Four.", "12"]
TEXTS = ["".join(SHOTS) + f"English: {sentence}\nThai:" for sentence in SENTENCES]
