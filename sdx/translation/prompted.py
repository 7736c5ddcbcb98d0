"""What translators that prompt a language model share: room for an answer, batches, the line that is taken."""

import math
from collections.abc import Callable, Sequence

from sdx.config import ShapeConfig
from sdx.generation.base import Completion, Generator
from sdx.models.batches import Arithmetic, RowBytes, number_bytes
from sdx.models.work import ModelWork, most_rows
from sdx.store.estimate import Plan, Work
from sdx.store.step import Step
from sdx.text.lengths import SENTENCE_TOKENS
from sdx.translation.answer_line import answer_line
from sdx.translation.base import Texts

ROOM_FACTOR, ROOM_TOKENS = 3, 24
"""A translation may have three times the tokens of its source plus 24."""
USUAL_ROOM = 4.0
"""The same in lengths of the usual translation, for an estimate."""
MARGIN = 2
"""Or this many times the tokens that its language suggests: some vocabularies spell a script out."""
FRAME_TOKENS = 64
"""Allowance for the names of the languages, the instruction and the template around it."""


def engine_of(generator: Generator) -> str:
    """What decides greedy answers beside model and prompt."""
    precision = None if generator.is_remote else generator.precision.value
    return ", ".join(filter(None, (precision, generator.engine)))


def room_of(tokens: Sequence[int], growth: float) -> list[int]:
    """The most tokens that the translations of sentences with these numbers of tokens may have.

    Args:
        growth: tokens of a usual translation for each token of its source.
    """
    return [math.ceil(max(ROOM_FACTOR, MARGIN * growth) * count) + ROOM_TOKENS for count in tokens]


def lines(
    generator: Generator,
    sentences: Sequence[str],
    lengths: Sequence[int],
    room: Sequence[int],
    prompt: Callable[[int], str],
    complete: Callable[[list[str], list[int]], list[Completion]],
    labels: tuple[str, str],
    delimiter: str = "\n\n",
) -> list[str]:
    """One line for each sentence; empty, which keeps the source, if the sentence does not fit in the context.

    Args:
        lengths: of the longest prompts, in tokens.
        prompt: of the sentence with this index.
        labels: see `answer_line`.
    """
    order = sorted(range(len(sentences)), key=lambda index: -room[index])
    found = [""] * len(sentences)
    for some in generator.batches_of([lengths[index] for index in order], [room[index] for index in order]):
        batch = order[some]
        answers = complete([prompt(index) for index in batch], [room[index] for index in batch])
        for index, answer in zip(batch, answers, strict=True):
            found[index] = answer_line(answer.text, sentences[index], labels, delimiter)
    return found


def work(plan: Plan, texts: Texts, generator: Generator, shape: ShapeConfig, model: Step, prompt: float) -> Work:
    """What translating by a prompted model asks of the hardware.

    Args:
        shape: of the model.
        prompt: tokens that all prompts begin with, read once.
    """
    if generator.is_remote:
        return Work()
    here, there = plan.config.generator, plan.on_gpus.generator
    arithmetic, sentence = Arithmetic(here.precision, there.precision), texts.each(texts.target)
    row_bytes = RowBytes(shape, number_bytes(arithmetic.gpu))
    return ModelWork(
        loads=1,
        resident=f"{model.key} {here.precision.value}",
        shape=shape,
        read=texts.rows * texts.english + prompt,
        generated=texts.rows * texts.target,
        rows=texts.sentences,
        most=most_rows(here.batch_size),
        row_bytes=row_bytes.completed(round(prompt + SENTENCE_TOKENS), round(USUAL_ROOM * sentence)),
        decode_steps=2 * sentence,  # until the longest of a batch ends
        passes=1,
        context=SENTENCE_TOKENS + sentence / 2 + prompt,
        arithmetic=arithmetic,
    )
