"""The backbone translates: few-shot prompting of the LLM itself, sentence by sentence, greedy.

The prompt is a list of sentence pairs from a parallel corpus, a base model's way; a model with a chat template gets the
same list inside an instruction. What must not change (code, markup, numbers) is hidden as for every other engine.
Self-Translate-Train (arXiv 2407.00454) translates its task data like this with 8 shots.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from sdx.artifacts import Step, read_rows
from sdx.config import InputError, TranslatorConfig
from sdx.data.files import file_step, published, read_records
from sdx.languages import language
from sdx.translation import segment
from sdx.translation.base import Surroundings, Translator

PROMPT_VERSION = 1
KEPT_ASIDE = "demonstrations.jsonl"
ROOM_FACTOR, ROOM_TOKENS = 3, 24
"""A translation may have three times the tokens of its source, for scripts that the vocabulary spells out, and 24."""
FRAME_TOKENS = 64
"""For the names of the languages, the instruction and the template around it."""


@dataclass
class SelfTranslationConfig(TranslatorConfig):
    shots: int = 8
    """Translated sentences before each sentence, or as many as there are."""
    demonstrations: str | None = None
    """JSONL file with `source` and `target` in each row, `{target}` in its name standing for the language's code; none
    takes sentences that the parallel corpus keeps aside for it."""


class SelfTranslation(Translator):
    """Greedy few-shot translation by the backbone under study."""

    name = "self"
    independent = False

    def __init__(self, shots: int, demonstrations: str | None) -> None:
        if shots < 1:
            raise InputError(f"translator.shots={shots} is too small; the backbone needs 1 example or more")
        self.shots = shots
        self.demonstrations = demonstrations

    def place(self, surroundings: Surroundings) -> None:
        self._around = surroundings

    @property
    def batch_rows(self) -> int:  # type: ignore[override]
        """A row has about four sentences."""
        return max(1, self._around.generator.batch_size // 4)

    @property
    def version(self) -> str:
        precision, template = self._around.generator.precision.value, self._around.template.value
        return f"{self.shots} shots, prompt {PROMPT_VERSION}, {precision}, {template}, segments {segment.VERSION}"

    def supports(self, source: str, target: str) -> bool:
        return self._shots(source, target) is not None

    def obstacle(self, source: str, target: str) -> str | None:
        if self.supports(source, target):
            return None
        return "needs translated sentences as examples; give parallel=offline or translator.demonstrations=file.jsonl"

    def needs(self, source: str, target: str) -> Mapping[str, Step]:
        shots = self._shots(source, target)
        assert shots
        return {"translator": self._around.backbone, "demonstrations": shots}

    def prepare(self, inputs: Mapping[str, Path]) -> None:
        self._model_dir = inputs["translator"] / "model"
        self._rows = _demonstrations(inputs["demonstrations"])[: self.shots]

    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        return segment.translate_texts(texts, lambda sentences: self._sentences(sentences, source, target))

    def unload(self) -> None:
        self._around.generator.unload()

    def _shots(self, source: str, target: str) -> Step | None:
        if self.demonstrations is None:
            return self._around.demonstrations(language(source), language(target))
        codes = {"source": language(source).code, "target": language(target).code}
        return file_step("translator.demonstrations", self.demonstrations, None, None, None, codes)

    def _sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        """One line for each sentence; an empty one, for which the source stays, if it does not fit the context."""
        generator = self._around.generator
        generator.load(self._model_dir, self._around.template)
        names = language(source).name, language(target).name
        head = f"Translate from {names[0]} into {names[1]}. Write the translation of the last line only.\n\n"
        head = head if generator.chats() else ""
        shots = [f"{names[0]}: {row['source']}\n{names[1]}: {row['target']}\n\n" for row in self._rows]
        lengths = generator.count_tokens(shots)
        sizes = generator.count_tokens(sentences)
        room = [ROOM_FACTOR * tokens + ROOM_TOKENS for tokens in sizes]
        order = sorted(range(len(sentences)), key=lambda index: -room[index])
        translated = [""] * len(sentences)
        for start in range(0, len(order), generator.batch_size):
            batch = order[start : start + generator.batch_size]
            prompts = []
            for index in batch:
                free = generator.context - room[index] - sizes[index] - FRAME_TOKENS
                taken = sum(total <= free for total in accumulate(lengths))
                prompts.append(f"{head}{''.join(shots[:taken])}{names[0]}: {sentences[index]}\n{names[1]}:")
            limits = [room[index] for index in batch]
            if head:
                texts = [_first_line(answer.text, names[1]) for answer in generator.complete(prompts, limits)]
            else:
                texts = [answer.text for answer in generator.complete_lines(prompts, limits)]
            for index, text in zip(batch, texts, strict=True):
                translated[index] = text
        return translated


def _demonstrations(directory: Path) -> list[dict[str, str]]:
    """What the parallel corpus keeps aside, or the user's file."""
    kept = directory / KEPT_ASIDE
    if kept.exists():
        return read_rows(kept)
    rows = []
    for place, record in read_records(published(directory), "translator.demonstrations"):
        for column in ("source", "target"):
            if not isinstance(record.get(column), str) or not record[column].strip():
                raise InputError(f"{place} has no text in `{column}`; a row is {{'source': ..., 'target': ...}}")
        rows.append({column: " ".join(record[column].split()) for column in ("source", "target")})
    return rows


def _first_line(answer: str, label: str) -> str:
    """The first line of a chat's answer that says something, less the label that some repeat."""
    line = next(filter(None, map(str.strip, answer.splitlines())), "")
    return line.removeprefix(f"{label}:").strip()


SCHEMAS = {"self": SelfTranslationConfig}
