"""The backbone translates: few-shot prompting of the LLM itself, sentence by sentence, greedy.

The prompt is a list of sentence pairs from a parallel corpus, a base model's way; a model with a chat template gets the
same list inside an instruction. What must not change (code, markup, numbers) is hidden as for every other engine.
Self-Translate-Train (arXiv 2407.00454) translates its task data like this with 8 shots. The list is the same for all
sentences, so its states are computed once and kept (`sdx.generation.prefix`); the translations are the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

import regex

from sdx import InputError
from sdx.config import ParallelColumns, TranslatorConfig
from sdx.data.parallel import read_pairs
from sdx.languages import language
from sdx.models.batches import Arithmetic, RowBytes, number_bytes
from sdx.models.work import ModelWork, most_rows
from sdx.options import fields
from sdx.sources.files import column, local_file, published
from sdx.store.estimate import Plan, Work
from sdx.store.files import read_rows
from sdx.store.step import Step
from sdx.text import segment
from sdx.text.lengths import SENTENCE_TOKENS
from sdx.translation.answer_line import answer_line
from sdx.translation.base import Surroundings, Texts, Translator

PROMPT_VERSION = 3
KEPT_ASIDE = "demonstrations.jsonl"
ROOM_FACTOR, ROOM_TOKENS = 3, 24
"""A translation may have three times the tokens of its source, and 24."""
USUAL_ROOM = 4.0
"""The same in lengths of the usual translation, for an estimate."""
MARGIN = 2
"""Or this many times the tokens that the examples let expect: a vocabulary may spell out a script."""
FRAME_TOKENS = 64
"""For the names of the languages, the instruction and the template around it."""


@dataclass
class SelfTranslationConfig(TranslatorConfig):
    shots: int = fields.number(8, at_least=1, at_most=1000)
    """Translated sentences before each sentence, or as many as there are."""
    demonstrations: str | None = fields.path()
    """File with `source` and `target` in each row, as for `parallel.path`; `{target}` in its name stands for the
    language's code. None takes sentences that the parallel corpus keeps aside for it."""
    delimiter: str = "\n\n"
    """What stands between two examples. One without a line feed ends the translation too, and stays as it is in a
    sentence that has it. Ours."""


class SelfTranslation(Translator):
    """Greedy few-shot translation by the backbone under study."""

    name = "self"
    is_external = False

    def __init__(self, shots: int, demonstrations: str | None, delimiter: str) -> None:
        _check(delimiter)
        self.shots = shots
        self.demonstrations = demonstrations
        self.delimiter = delimiter
        self._keep = None if "\n" in delimiter else regex.compile(regex.escape(delimiter))

    def place(self, surroundings: Surroundings) -> None:
        self._around = surroundings

    @property
    def batch_rows(self) -> int:  # type: ignore[override]
        """A batch of the model's even where a row is one sentence, as the fields of questions are; their sentences are
        sorted by length and cut into batches again, so that rows of many sentences fill several."""
        return self._around.generator.most_rows

    @property
    def version(self) -> str:
        precision, template = self._around.generator.precision.value, self._around.template.value
        prompt = f"{self.shots} shots, prompt {PROMPT_VERSION}, delimiter {self.delimiter!r}"
        return f"{prompt}, {precision}, {template}, segments {segment.VERSION}"

    def supports(self, source: str, target: str) -> bool:
        return self._shots(source, target) is not None

    def why_unsupported(self, source: str, target: str) -> str | None:
        if self.supports(source, target):
            return None
        return "needs translated sentences as examples; give parallel=offline or translator.demonstrations=file.jsonl"

    def needs(self, source: str, target: str) -> Mapping[str, Step]:
        shots = self._shots(source, target)
        assert shots
        return {"translator": self._around.backbone, "demonstrations": shots}

    def work(self, plan: Plan, texts: Texts, needs: Mapping[str, Step]) -> Work:
        """The examples are read once; the attention of every sentence reaches over them."""
        here, there = plan.config.generator, plan.on_gpus.generator
        arithmetic, sentence = Arithmetic(here.precision, there.precision), texts.each(texts.target)
        shots = self.shots * (SENTENCE_TOKENS + sentence)
        row_bytes = RowBytes(plan.shape, number_bytes(arithmetic.gpu))
        return ModelWork(
            loads=1,
            resident=f"{needs['translator'].key} {here.precision.value}",
            shape=plan.shape,
            read=texts.rows * texts.english + shots,
            generated=texts.rows * texts.target,
            rows=texts.sentences,
            most=most_rows(here.batch_size),
            row_bytes=row_bytes.completed(round(shots + SENTENCE_TOKENS), round(USUAL_ROOM * sentence)),
            decode_steps=2 * sentence,  # until the longest of a batch ends
            passes=1,
            context=SENTENCE_TOKENS + sentence / 2 + shots,
            arithmetic=arithmetic,
        )

    def prepare(self, inputs: Mapping[str, Path]) -> None:
        self._model_dir = inputs["translator"] / "model"
        directory = inputs["demonstrations"]
        if self.demonstrations is None:
            rows = read_rows(directory / KEPT_ASIDE)
        else:
            file = published(directory)
            rows = _given(file, f"translator.demonstrations={file.name}", directory.name)
        self._rows = self._usable(rows)[: self.shots]

    def _usable(self, rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        usable = [row for row in rows if not any(self.delimiter in row[side] for side in ("source", "target"))]
        if not usable:
            raise InputError(
                f"translator.delimiter={self.delimiter!r} is in every demonstration; give one that no sentence has"
            )
        return usable

    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        return segment.translate_texts(texts, lambda some: self._sentences(some, source, target), self._keep)

    def _shots(self, source: str, target: str) -> Step | None:
        if self.demonstrations is None:
            return self._around.demonstrations(language(source), language(target))
        codes = {"source": language(source).code, "target": language(target).code}
        step = local_file("translator.demonstrations", self.demonstrations, codes)
        self._usable(_given(step.source, step.where, step.key))
        return step

    def _sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        """One line for each sentence; an empty one, for which the source stays, if it does not fit the context."""
        generator = self._around.generator
        generator.load(self._model_dir, self._around.template)
        names = language(source).name, language(target).name
        head = f"Translate from {names[0]} into {names[1]}. Write the translation of the last line only.\n\n"
        head = head if generator.chats() else ""
        shots = [f"{names[0]}: {row['source']}\n{names[1]}: {row['target']}{self.delimiter}" for row in self._rows]
        shared = f"{head}{''.join(shots)}{names[0]}:"  # by all prompts but those with fewer shots, which share less
        lengths = generator.count_tokens(shots)
        sizes = generator.count_tokens(sentences)
        room = [math.ceil(self._factor() * tokens) + ROOM_TOKENS for tokens in sizes]
        order = sorted(range(len(sentences)), key=lambda index: -room[index])
        translated = [""] * len(sentences)
        longest = [sum(lengths) + sizes[index] + FRAME_TOKENS for index in order]
        for some in generator.batches_of(longest, [room[index] for index in order]):
            batch = order[some]
            prompts = []
            for index in batch:
                free = generator.context - room[index] - sizes[index] - FRAME_TOKENS
                taken = sum(total <= free for total in accumulate(lengths))
                prompts.append(f"{head}{''.join(shots[:taken])}{names[0]}: {sentences[index]}\n{names[1]}:")
            limits = [room[index] for index in batch]
            if head:
                answers = generator.complete(prompts, limits, shared)
            else:
                answers = generator.complete_lines(prompts, limits, shared, self.delimiter)
            for index, answer in zip(batch, answers, strict=True):
                translated[index] = answer_line(answer.text, sentences[index], names, self.delimiter)
        return translated

    def _factor(self) -> float:
        """Tokens that a translation may have for each token of its source."""
        count = self._around.generator.count_tokens
        source, target = (sum(count([row[side] for row in self._rows])) for side in ("source", "target"))
        return max(ROOM_FACTOR, MARGIN * target / max(source, 1))


def _check(delimiter: str) -> None:
    """Raises InputError for a delimiter that sentences are full of, or that the prompt's own labels have."""
    fix = "give one with a line feed, as translator.delimiter=$'\"\\n\\n\"' in a shell, or with a sign, as ' ### '"
    if r"\n" in delimiter:
        raise InputError(f"translator.delimiter={delimiter} has a backslash and an n, which is no line feed; {fix}")
    if "\n" not in delimiter and regex.fullmatch(r"[\p{L}\p{M}\p{N}\s:]*", delimiter):
        raise InputError(f"translator.delimiter={delimiter!r} cannot be told from the text of an example; {fix}")


@cache
def _given(path: Path, where: str, _key: str) -> list[dict[str, str]]:
    """The rows of the user's file.

    Args:
        _key: of its step, which is another if the file is.

    Raises:
        InputError: a row without a text on either side; no row.
    """
    rows = []
    for place, record, names in read_pairs(path, ParallelColumns(), where):
        texts = {side: column(record, name) if name in record else None for side, name in names.items()}
        for side, text in texts.items():
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{place} has no text in `{side}`; a row is {{'source': ..., 'target': ...}}")
        rows.append({side: " ".join(str(text).split()) for side, text in texts.items()})
    if not rows:
        raise InputError(f"{where} has no rows; a row is {{'source': ..., 'target': ...}}")
    return rows


SCHEMAS = {"self": SelfTranslationConfig}
