"""An instruction model translates, by a prompt of its own: TranslateGemma, Hy-MT2, Tower+, or any model that chats.

Sentence by sentence, greedy, as with every other engine: the layout of a text, its code and its numbers are kept byte
for byte, an answer is one line, and a sentence that comes again is not translated again. The price is the context that
a paragraph would give. The engine of `generator` runs the model; backbone and translator take turns in memory.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

from sdx import InputError
from sdx.config import ShapeConfig, TemplateKind, TranslatorConfig
from sdx.languages import language
from sdx.models import backbone
from sdx.models.hub import SAFETENSORS, check_model, local, model_step
from sdx.models.shape import shape_in
from sdx.options import fields
from sdx.options.source import Source, fill
from sdx.store.estimate import Plan, Work
from sdx.store.step import Step
from sdx.text import segment
from sdx.text.lengths import fertility
from sdx.translation.base import Texts, TranslationContext, Translator
from sdx.translation.prompted import FRAME_TOKENS, engine_of, lines, room_of, work
from sdx.translation.seq2seq import OFFLINE

PLACEHOLDERS = ("source", "target", "source_code", "target_code", "text")
FRAME = 128.0
"""Tokens of a prompt without its sentence, for an estimate."""


@dataclass
class LLMConfig(TranslatorConfig, Source):
    """A causal LM: exactly one of `hub_id` and `path`."""

    prompt: str = "Translate the following text from {source} into {target}. Write only the translation.\n\n{text}"
    """What the model is told. {text} stands for the sentence, {source} and {target} for the English names of the
    languages, {source_code} and {target_code} for their codes."""
    end: str | None = fields.line()
    """For a model whose chat template takes no plain text: the special token that ends an answer. `prompt` then is all
    that the model reads, its special tokens included, but for BOS if the tokenizer adds that."""
    languages: dict[str, str] = field(default_factory=dict)
    """Code -> English name, both as in the prompt, of the languages that the model knows; none: all, with the codes and
    names of languages.csv."""
    served_as: str | None = fields.line()
    """What the endpoint of `generator=server` calls this model; none: this process runs the model."""
    parameters: int = fields.number(0, at_least=0, at_most=10**14)
    """Weights, for `plan=true` before the download; 0: read from the files."""


@dataclass(eq=False)
class LLM(Translator):
    """The options are those of `LLMConfig`.

    Raises:
        InputError: they cannot work, or `path` is no model. Nothing is loaded.
    """

    hub_id: str | None
    revision: str | None
    path: str | None
    prompt: str
    end: str | None
    languages: dict[str, str]
    served_as: str | None
    parameters: int

    name = "llm"

    def __post_init__(self) -> None:
        self._source = Source(path=self.path, hub_id=self.hub_id, revision=self.revision)
        check_model(self._source, "translator", tokenizers=backbone.TOKENIZERS, pickles=False)
        unknown = [name for name in re.findall(r"\{(\w+)\}", self.prompt) if name not in PLACEHOLDERS]
        if unknown or self.prompt.count("{text}") != 1:
            what = f"has {{{unknown[0]}}}" if unknown else "does not have {text} once"
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise InputError(f"translator.prompt={self.prompt!r} {what}; it may have {known}")
        try:
            self._known = {language(code).flores: (code, name) for code, name in self.languages.items()}
        except ValueError as error:
            raise InputError(f"translator.languages: {error}") from None
        self._template = TemplateKind.instruction if self.end else TemplateKind.auto

    def attach(self, context: TranslationContext) -> None:
        given = context.generator
        self._generator = given.serving(self.served_as) if self.served_as else given.local

    @property
    def batch_rows(self) -> int:  # type: ignore[override]
        """As in `SelfTranslation`."""
        return self._generator.most_rows

    @property
    def version(self) -> str:
        """Origin and options; the files of a local directory count through `needs`."""
        origin = f"{self.hub_id}@{self.revision}" if self.hub_id else "local"
        prompt = sha256(repr((self.prompt, self.end, sorted(self.languages.items()))).encode()).hexdigest()[:16]
        return f"{origin}, prompt {prompt}, {engine_of(self._generator)}, segments {segment.VERSION}"

    def why_unsupported(self, source: str, target: str) -> str | None:
        entries = (language(source), language(target))
        names = [f"{entry.name} ({entry.code})" for entry in entries if self._known and entry.flores not in self._known]
        fix = "the model is not made for it, by translator.languages; give another translator or lang"
        return f"cannot translate {' and '.join(names)}: {fix}" if names else None

    def needs(self, source: str, target: str) -> Mapping[str, Step]:
        trial = partial(backbone.trial, template=self._template)
        return {"translator": model_step(self._source, "translator", (SAFETENSORS,), OFFLINE, trial)}

    def work(self, plan: Plan, texts: Texts, needs: Mapping[str, Step]) -> Work:
        cached = plan.path(needs["translator"])
        places = [cached / "model"] if cached else [local(self.path)] if self.path else []
        found = next(filter(None, map(shape_in, places)), None)
        return work(plan, texts, self._generator, found or ShapeConfig(self.parameters), needs["translator"], FRAME)

    def prepare(self, inputs: Mapping[str, Path]) -> None:
        self._model_dir = inputs["translator"] / "model"

    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        generator = self._generator
        generator.load(self._model_dir, self._template)
        (source_code, source_name), (target_code, target_name) = map(self._named, (source, target))
        codes = {"source_code": source_code, "target_code": target_code}
        given = {"source": source_name, "target": target_name, **codes}
        tokens = generator.count_tokens(sentences)
        shape = shape_in(self._model_dir)
        growth = [fertility(flores, shape.vocab_size if shape else 0) for flores in (source, target)]
        complete = partial(generator.complete_lines, end=self.end) if self.end else generator.complete
        return lines(
            generator,
            sentences,
            [count + 2 * FRAME_TOKENS for count in tokens],
            room_of(tokens, growth[1] / growth[0]),
            lambda index: fill(self.prompt, {**given, "text": sentences[index]}),
            partial(complete, shared=fill(self.prompt.partition("{text}")[0], given)),
            (source_name, target_name),
        )

    def _named(self, flores: str) -> tuple[str, str]:
        entry = language(flores)
        return self._known.get(flores, (entry.code, entry.name))


SCHEMAS = {"llm": LLMConfig}
