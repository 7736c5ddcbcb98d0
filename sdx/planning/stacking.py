"""The steps of MT-encoder stacking: rows, tokens and work.

An encoder's table of embeddings counts for memory and not for time: it is most of a small multilingual encoder. The
LLM's is in its parameters, as it is everywhere in the plan.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sdx.config import Config, ShapeConfig
from sdx.languages import language
from sdx.models.batches import READ_TOKENS, Arithmetic
from sdx.models.hub import local
from sdx.models.shape import shape_in
from sdx.planning import lengths
from sdx.planning.graph import Node
from sdx.planning.lengths import Rows
from sdx.planning.times import Work
from sdx.stacking.bridge import FIT_TEXTS
from sdx.stacking.training import VALIDATION_TEXTS
from sdx.store.step import Step
from sdx.store.store import Store

ENCODERS = {
    "e5_small": ShapeConfig(117_505_920, 12, 384, 1536, 384, 250_037),
    "nllb_600m": ShapeConfig(413_511_680, 12, 1024, 4096, 1024, 256_206),
    "nllb_1b": ShapeConfig(766_091_264, 24, 1024, 8192, 1024, 256_206),
    "nllb_3b": ShapeConfig(1_733_312_512, 24, 2048, 8192, 2048, 256_206),
    "opus_mt": ShapeConfig(52_000_000, 6, 512, 2048, 512, 64_172),
}
"""Shapes of the encoders in conf/encoder, by name."""
ENCODER_VOCABULARY = 250_000
"""Of an encoder whose files are not there."""
PACKAGED_TEXTS = 28_000
TEXT_TOKENS = {"offline": 28.0, "fineweb": 670.0}
"""Mean tokens of a text: the first measured, the second by its publisher's 10 billion tokens in 14.9 million texts."""
UNKNOWN_TEXT_TOKENS = 200.0
TOKENISED_PER_S = 60_000.0
"""Tokens a second in both tokenizers, their words aligned, in one process. Assumed."""
PROBE_STEP_S = 3e-3
"""One optimizer step of a head on stored vectors; measured on two cores."""
ANSWER, CHOICES = "answer", 4
"""Of multiple choice all answers are read, of classification none."""


def encoder_shape(config: Config, store: Store, nodes: Sequence[Node]) -> ShapeConfig | None:
    """From the encoder's files where they are there, else as it is known by name; none where no step loads one."""
    step = next((node.step for node in nodes if node.step.name == "encoder"), None)
    if step is None:
        return None
    given = config.encoder
    places = [store.path(step) / "model"] if store.cached(step) else []
    if given.path:
        places.append(local(given.path))
    known = ENCODERS.get(given.name) or ShapeConfig(given.parameters)
    return next(filter(None, map(shape_in, places)), known)


def stacked(llm: ShapeConfig, encoder: ShapeConfig | None) -> ShapeConfig:
    """As memory is reckoned with in training: the LLM's layers, the weights of both, no logits."""
    return replace(llm, parameters=llm.parameters + encoder.parameters, vocab_size=0) if encoder else llm


def longest_tokens(config: Config) -> int:
    """Of any training example of the run."""
    alignment = getattr(config.method, "alignment", None)
    return max(config.scale.max_length_tokens, alignment.max_length_tokens if alignment else 0)


class StackWork:
    """What the steps come to, as `(rows, tokens, files, work, units)` for an estimate.

    Args:
        rows_of: what a file of a step holds.
        arithmetic: in what all of them compute.
    """

    def __init__(
        self,
        config: Config,
        llm: ShapeConfig,
        encoder: ShapeConfig | None,
        rows_of: Callable[[Step, str], Rows],
        arithmetic: Arithmetic,
    ) -> None:
        self.config, self.llm, self.rows_of, self.arithmetic = config, llm, rows_of, arithmetic
        encoder = encoder or ShapeConfig()
        table = encoder.vocab_size * encoder.hidden_size
        self.encoder = replace(encoder, parameters=max(0, encoder.parameters - table))
        self.vocabulary = encoder.vocab_size or ENCODER_VOCABULARY

    def known(self) -> dict[str, Callable[[Step], dict[str, Any]]]:
        """Step -> the fields of its estimate."""
        return {
            "texts": self._texts,
            "tokens": self._tokens,
            "stack": self._stack,
            "vectors": self._vectors,
            "classify": self._classify,
        }

    def _texts(self, step: Step) -> dict[str, Any]:
        given = self.config.text
        rows = min(step.config["rows"], PACKAGED_TEXTS) if given.asset else step.config["rows"]
        tokens = TEXT_TOKENS.get(given.name, UNKNOWN_TEXT_TOKENS)
        files = {"rows.jsonl": Rows(rows, {"text": tokens})}
        return {"rows": rows, "tokens": rows * tokens, "files": files, "bound": True}

    def _tokens(self, step: Step) -> dict[str, Any]:
        texts = self.rows_of(step.inputs["texts"], "rows.jsonl")
        tokens = cut(texts.of("text"), step.config["max_tokens"])
        work = Work(seconds=2 * texts.count * tokens / TOKENISED_PER_S)
        return self._of(texts.count, texts.count * tokens, work)

    def _stack(self, step: Step) -> dict[str, Any]:
        if "texts" not in step.inputs:  # the LLM alone is taken as it is
            return {}
        texts = self.rows_of(step.inputs["texts"], "rows.jsonl")
        rows = min(texts.count, FIT_TEXTS)
        tokens = cut(texts.of("text"), step.config["max_tokens"])
        return self._of(rows, rows * tokens, self._read(step, rows, tokens, tokens))

    def _vectors(self, step: Step) -> dict[str, Any]:
        training = step.inputs["training"]
        rows = sum(self.rows_of(training, file).count for file in ("train.jsonl", "validation.jsonl"))
        own, read = self._lengths(step, self.rows_of(training, "train.jsonl"), step.config["max_tokens"])
        return self._of(rows, rows * read, self._read(step, rows, own, read))

    def _classify(self, step: Step) -> dict[str, Any]:
        items = self.rows_of(step.inputs["items"], "rows.jsonl")
        own, read = self._lengths(step, items, step.config["max_tokens"])
        return self._of(items.count, items.count * read, self._read(step, items.count, own, read))

    def train(self, step: Step) -> dict[str, Any]:
        """Of a training with a `goal`."""
        given, goal = step.config, step.config["goal"]
        limit, batch = given["max_tokens"], given["train"]["batch_size"]
        if goal == "alignment":
            texts = self.rows_of(step.inputs["tokens"].inputs["texts"], "rows.jsonl")
            held_out = min(VALIDATION_TEXTS, texts.count // 10)
            count = texts.count - held_out
            own = read = cut(texts.of("text"), limit)
        else:
            training = step.inputs["training"]
            rows = self.rows_of(training, "train.jsonl")
            count, held_out = rows.count, self.rows_of(training, "validation.jsonl").count
            own, read = self._lengths(step, rows, limit)
        steps, examples = given["epochs"] * math.ceil(count / batch), given["epochs"] * count
        if given["max_steps"] and given["max_steps"] < steps:
            steps, examples = given["max_steps"], given["max_steps"] * batch
        if goal == "probe":
            return self._of(count, examples, Work(seconds=PROBE_STEP_S * steps)) | {"units": steps}
        scored = given["train"]["validations"] * held_out
        also = [self._read(step, scored, own, read)]
        trained = self.llm if "backbone" in step.inputs else self.encoder
        if "encoder" in step.inputs and "backbone" in step.inputs:
            also.append(self._encoding(examples, read))
        if goal == "alignment":
            also += [self._forward(self.llm, examples, own), self._forward(self.llm, scored, own)]
        forward = self._forward(trained, 0, read)
        work = replace(forward, trained=examples * read, steps=steps, loads=1, also=tuple(also))
        return self._of(count, examples * read, work) | {"units": steps, "bound": True}

    def _lengths(self, step: Step, rows: Rows, limit: int) -> tuple[float, float]:
        """Mean tokens of a text in the LLM's tokenizer, and in that of what reads it."""
        tokens = dict(rows.tokens)
        if answer := tokens.pop(ANSWER, 0.0):  # of training data that are not there yet
            chooses = not step.inputs["training"].config.get("labels")
            own = sum(tokens.values()) + (CHOICES * answer if chooses else 0.0)
        else:
            own = rows.of("segments")
        flores = language(step.config["language"]).flores
        ratio = lengths.fertility(flores, self.vocabulary) / lengths.fertility(flores, self.llm.vocab_size)
        return cut(own, limit), cut(own * ratio if "encoder" in step.inputs else own, limit)

    def _read(self, step: Step, rows: float, own: float, read: float) -> Work:
        """One pass over texts by the parts that a step loads: `own` tokens of the LLM's, or `read` of the encoder's."""
        both = "encoder" in step.inputs, "backbone" in step.inputs
        if not both[1]:
            return replace(self._encoding(rows, read), loads=1)
        work = replace(self._forward(self.llm, rows, read if both[0] else own), loads=1)
        return replace(work, also=(replace(self._encoding(rows, read), loads=1),)) if both[0] else work

    def _encoding(self, rows: float, tokens: float) -> Work:
        return self._forward(self.encoder, rows, tokens)

    def _forward(self, shape: ShapeConfig, rows: float, tokens: float) -> Work:
        passes = math.ceil(rows * tokens / READ_TOKENS.gpu)
        return Work(shape, rows * tokens, passes=passes, context=tokens / 2, arithmetic=self.arithmetic)

    @staticmethod
    def _of(rows: float, tokens: float, work: Work) -> dict[str, Any]:
        return {"rows": rows, "tokens": tokens, "work": work}


def cut(mean: float, limit: int) -> float:
    """Mean tokens of texts that lose their ends at a limit: their lengths are taken to be distributed exponentially."""
    return mean * (1 - math.exp(-limit / mean)) if mean else 0.0
