"""What the steps of a stack cost: passes of the parts that they load.

An encoder's table of embeddings counts for memory and not for time: it is most of a small multilingual encoder. The
LLM's table counts for both, as everywhere in a plan.
"""

import math
from dataclasses import replace

from sdx.config import ShapeConfig
from sdx.languages import Language
from sdx.models.batches import Arithmetic
from sdx.models.work import ModelWork, reading
from sdx.stacking.parts import Parts
from sdx.store.estimate import Plan, Rows
from sdx.text.lengths import fertility

ENCODER_VOCABULARY = 250_000
"""Of an encoder whose files are not there."""
ANSWER, CHOICES = "answer", 4
"""All answers to a multiple-choice question are read, none of a classification."""


def cut(mean: float, limit: int) -> float:
    """Mean tokens of texts that lose their ends at a limit: their lengths are taken to be distributed exponentially."""
    return mean * (1 - math.exp(-limit / mean)) if mean else 0.0


def llm_pass(plan: Plan, rows: float, tokens: float) -> ModelWork:
    """One pass of the LLM over texts of a mean length."""
    arithmetic = Arithmetic(plan.config.engine.precision, plan.on_gpus.engine.precision)
    return reading(plan.shape, rows, tokens, arithmetic)


def encoder_pass(plan: Plan, rows: float, tokens: float) -> ModelWork:
    encoder = plan.encoder or ShapeConfig()
    body = max(0, encoder.parameters - encoder.vocab_size * encoder.hidden_size)
    return replace(llm_pass(plan, rows, tokens), shape=replace(encoder, parameters=body))


def one_pass(plan: Plan, parts: Parts, rows: float, own: float, encoded: float) -> ModelWork:
    """One pass over texts by the parts that a step loads.

    Args:
        own: mean tokens of a text by the LLM's tokenizer.
        encoded: by the encoder's, of which the LLM reads the states if both are there.
    """
    encoder = replace(encoder_pass(plan, rows, encoded), loads=1)
    if not parts.backbone:
        return encoder
    llm = replace(llm_pass(plan, rows, encoded if parts.encoder else own), loads=1)
    return replace(llm, also=(encoder,)) if parts.encoder else llm


def lengths(plan: Plan, parts: Parts, rows: Rows, limit: int, language: Language, chooses: bool) -> tuple[float, float]:
    """Mean tokens of a text by the LLM's tokenizer, and by that of the part that reads it.

    Args:
        chooses: whether answers to choose from are read with a question.
    """
    tokens = dict(rows.tokens)
    if answer := tokens.pop(ANSWER, 0.0):  # of training data that are not there yet
        own = sum(tokens.values()) + (CHOICES * answer if chooses else 0.0)
    else:
        own = rows.of("segments")
    vocabulary = plan.encoder.vocab_size if plan.encoder and plan.encoder.vocab_size else ENCODER_VOCABULARY
    ratio = fertility(language.flores, vocabulary) / fertility(language.flores, plan.shape.vocab_size)
    return cut(own, limit), cut(own * ratio if parts.encoder else own, limit)
