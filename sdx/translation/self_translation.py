"""The backbone translates: few-shot prompting of the LLM itself, sentence by sentence, greedy.

The prompt is a list of sentence pairs from a parallel corpus; a model with a chat template gets the list inside an
instruction. Code, markup and numbers are hidden from the model, as with every other engine. Self-Translate-Train (arXiv
2407.00454) translates its task data like this with 8 shots. The list is the same for all sentences, so its states are
computed once (`sdx.generation.prefix`); the translations are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate
from pathlib import Path

import regex

from sdx import InputError
from sdx.config import ParallelColumns, TranslatorConfig
from sdx.data.parallel import read_pairs
from sdx.languages import language
from sdx.options import fields
from sdx.sources.files import column, local_file, published
from sdx.store.estimate import Plan, Work
from sdx.store.files import read_rows
from sdx.store.step import Step
from sdx.text import segment
from sdx.text.lengths import SENTENCE_TOKENS
from sdx.translation.base import Texts, TranslationContext, Translator
from sdx.translation.prompted import FRAME_TOKENS, engine_of, lines, room_of, work

PROMPT_VERSION = 3


@dataclass
class SelfTranslationConfig(TranslatorConfig):
    shots: int = fields.number(8, at_least=1, at_most=1000)
    """Example translations before each sentence; fewer if there are fewer."""
    demonstrations: str | None = fields.path()
    """File with `source` and `target` in each row, as for `parallel.path`; `{target}` in its name stands for the
    language's code. None takes the sentences that the parallel corpus sets aside for this."""
    delimiter: str = "\n\n"
    """Between two examples. A delimiter without a line feed also ends the translation, and is copied unchanged if a
    sentence contains it. Ours."""


@dataclass(eq=False)
class SelfTranslation(Translator):
    """Greedy few-shot translation by the backbone under study."""

    shots: int
    demonstrations: str | None
    delimiter: str

    name = "self"
    is_external = False

    def __post_init__(self) -> None:
        given, breaks = self.delimiter, "\n" in self.delimiter
        fix = "give one with a line feed, as translator.delimiter=$'\"\\n\\n\"' in a shell, or with a sign, as ' ### '"
        if r"\n" in given:
            raise InputError(f"translator.delimiter={given} has a backslash and an n, which is no line feed; {fix}")
        if not breaks and regex.fullmatch(r"[\p{L}\p{M}\p{N}\s:]*", given):
            raise InputError(f"translator.delimiter={given!r} cannot be told from the text of an example; {fix}")
        self._keep = None if breaks else regex.compile(regex.escape(given))

    def attach(self, context: TranslationContext) -> None:
        self._context = context

    @property
    def batch_rows(self) -> int:  # type: ignore[override]
        """One batch of the model if each row is one sentence, as the fields of questions are. Sentences are sorted by
        length and cut into batches again, so rows of many sentences fill several."""
        return self._context.generator.most_rows

    @property
    def version(self) -> str:
        engine, template = engine_of(self._context.generator), self._context.template.value
        prompt = f"{self.shots} shots, prompt {PROMPT_VERSION}, delimiter {self.delimiter!r}"
        return f"{prompt}, {engine}, {template}, segments {segment.VERSION}"

    def why_unsupported(self, source: str, target: str) -> str | None:
        fix = "give parallel=offline or translator.demonstrations=file.jsonl"
        return None if self._shots(source, target) else f"needs translated sentences as examples; {fix}"

    def needs(self, source: str, target: str) -> Mapping[str, Step]:
        shots = self._shots(source, target)
        assert shots
        return {"translator": self._context.backbone, "demonstrations": shots}

    def work(self, plan: Plan, texts: Texts, needs: Mapping[str, Step]) -> Work:
        """The examples are read once; the attention of every sentence reaches over them."""
        shots = self.shots * (SENTENCE_TOKENS + texts.each(texts.target))
        return work(plan, texts, self._context.generator, plan.shape, needs["translator"], shots)

    def prepare(self, inputs: Mapping[str, Path]) -> None:
        self._model_dir = inputs["translator"] / "model"
        directory = inputs["demonstrations"]
        if self.demonstrations is None:
            rows = read_rows(directory / "demonstrations.jsonl")
        else:
            file = published(directory)
            rows = _user_rows(file, f"translator.demonstrations={file.name}", directory.name)
        self._rows = self._usable(rows)[: self.shots]

    def _usable(self, rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        usable = [row for row in rows if not any(self.delimiter in row[side] for side in ("source", "target"))]
        if not usable:
            raise InputError(
                f"translator.delimiter={self.delimiter!r} is in every demonstration; give one that no sentence has"
            )
        return usable

    def keep(self, source: str, target: str) -> regex.Pattern | None:
        return self._keep

    def _shots(self, source: str, target: str) -> Step | None:
        if self.demonstrations is None:
            return self._context.demonstrations(language(source), language(target))
        codes = {"source": language(source).code, "target": language(target).code}
        step = local_file("translator.demonstrations", self.demonstrations, codes)
        self._usable(_user_rows(step.source, step.where, step.key))
        return step

    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        """One line for each sentence; empty, which keeps the source, if the sentence does not fit in the context."""
        generator = self._context.generator
        generator.load(self._model_dir, self._context.template)
        names = language(source).name, language(target).name
        head = f"Translate from {names[0]} into {names[1]}. Write the translation of the last line only.\n\n"
        head = head if generator.chats() else ""
        shots = [f"{names[0]}: {row['source']}\n{names[1]}: {row['target']}{self.delimiter}" for row in self._rows]
        shared = f"{head}{''.join(shots)}{names[0]}:"  # in part, by prompts with fewer shots
        shot_tokens, tokens = generator.count_tokens(shots), generator.count_tokens(sentences)
        sides = ([row[side] for row in self._rows] for side in ("source", "target"))
        source_tokens, target_tokens = (sum(generator.count_tokens(texts)) for texts in sides)
        room = room_of(tokens, target_tokens / max(source_tokens, 1))

        def prompt(index: int) -> str:
            free = generator.context - room[index] - tokens[index] - FRAME_TOKENS
            fitting = sum(total <= free for total in accumulate(shot_tokens))
            return f"{head}{''.join(shots[:fitting])}{names[0]}: {sentences[index]}\n{names[1]}:"

        complete = generator.complete if head else partial(generator.complete_lines, end=self.delimiter)
        longest = [sum(shot_tokens) + count + FRAME_TOKENS for count in tokens]
        written = partial(complete, shared=shared)
        return lines(generator, sentences, longest, room, prompt, written, names, self.delimiter)


@cache
def _user_rows(path: Path, where: str, _key: str) -> list[dict[str, str]]:
    """Raises InputError if there is no row or a row lacks a text. `_key`, of the file's step, changes with the file."""
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
