"""Encoder-decoders that translate: NLLB-200 (arXiv 2207.04672), M2M-100, mBART-50, OPUS-MT, and what is made of them.

Each sentence is translated for itself, by beam search. `runtime` says whose: CTranslate2 is several times as fast as
transformers, and computes in int8 on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import Precision, Runtime, ShapeConfig, TranslatorConfig
from sdx.languages import language
from sdx.models.batches import ROWS, Most, RowBytes, number_bytes
from sdx.models.hub import PYTORCH, SAFETENSORS, check_model, local, model_step
from sdx.models.loading import load_errors
from sdx.models.residency import resident
from sdx.models.shape import shape_in
from sdx.models.work import ModelWork, most_rows
from sdx.options import fields
from sdx.options.source import Source
from sdx.process.ranks import device
from sdx.store.estimate import Plan, Work
from sdx.store.files import read_json
from sdx.store.step import Step
from sdx.text import segment
from sdx.text.lengths import SENTENCE_TOKENS
from sdx.translation import ctranslate2_runtime, transformers_runtime
from sdx.translation.base import Texts, Translator, arithmetic_of
from sdx.translation.ctranslate2_child import PATIENCE
from sdx.translation.pairs import check_kind, frame, why_not
from sdx.translation.search import ROOM_FACTOR, ROOM_TOKENS, Search
from sdx.translation.vocabulary import PIECES, TokenizerJson, Vocabulary, load_vocabulary

OFFLINE = "offline, set translator.path to a local copy, or choose another translator"
BATCHES, CONVERTED_BATCHES = Most(cpu=4, gpu=1), Most(cpu=16, gpu=4)
"""Translated between two writes to disk, with transformers and with CTranslate2. Ours."""
TOKENIZERS = ("tokenizer.json", *(source for source, _ in PIECES))


@dataclass
class Seq2SeqConfig(TranslatorConfig, Source):
    """NLLB-200 from the hub, or any model of `sdx.translation.pairs` in a directory: one of `hub_id` and `path`."""

    batch_size: int | None = fields.number(None, at_least=1, at_most=10**6)
    """Sentences translated at once, at most; null: 32 on a CPU, as many as its memory holds on a GPU. Ours. CTranslate2
    counts tokens, 25 for each sentence. Not part of cache keys."""
    precision: Precision = Precision.auto
    """Arithmetic of the forward pass."""
    num_beams: int = fields.number(4, at_least=1, at_most=100)
    """Beam width; 1 is greedy, faster and worse. Ours."""
    runtime: Runtime = Runtime.auto
    """Whose beam search: that of CTranslate2, if it is installed, or of transformers."""


SHAPES = {
    "nllb_600m": ShapeConfig(615_073_792, 12, 1024, 4096, 1024, 256_206),
    "nllb_1b": ShapeConfig(1_370_638_336, 24, 1024, 8192, 1024, 256_206),
    "nllb_3b": ShapeConfig(3_344_863_232, 24, 2048, 8192, 2048, 256_206),
}
"""Of the NLLB-200 models, layers of the decoder. For an estimate an unknown model counts as the smallest."""
MULTILINGUAL_FERTILITY = 1.3
"""Tokens of NLLB's vocabulary for each token of English."""
USUAL_ROOM = 4.0
"""What a translation may have, in lengths of the usual one."""


@dataclass(eq=False)
class Seq2Seq(Translator):
    """The options are those of `Seq2SeqConfig`, precision and runtime resolved.

    Raises:
        InputError: they cannot work, or `path` is no model that translates. Nothing is loaded.
    """

    hub_id: str | None
    revision: str | None
    path: str | None
    batch_size: int | None
    precision: Precision
    num_beams: int
    runtime: Runtime = Runtime.transformers

    name = "nllb"

    def __post_init__(self) -> None:
        self._source = Source(path=self.path, hub_id=self.hub_id, revision=self.revision)
        self._model_dir: Path | None = None
        self._converted: Path | None = None
        check_model(self._source, "translator", tokenizers=TOKENIZERS)
        if self.path:
            check_kind(local(self.path), self._what)

    @property
    def batch_rows(self) -> int:  # type: ignore[override]
        """Enough sentences to fill batches of similar length, and all cores. The same on machines of one kind, which
        may share a step."""
        batches = CONVERTED_BATCHES if self._is_converted else BATCHES
        return batches.on(device().type == "cuda") * self._max_sentences

    @property
    def version(self) -> str:
        """Origin and options; the files of a local directory count through `needs`, the batch size does not."""
        origin = f"{self.hub_id}@{self.revision}" if self.hub_id else "local"
        room = f"room {ROOM_FACTOR}n+{ROOM_TOKENS}"
        given = f"{origin}, beams {self.num_beams}, {self.precision.value}, {room}, segments {segment.VERSION}"
        return f"{given}, ctranslate2, patience {PATIENCE}" if self._is_converted else given

    def why_unsupported(self, source: str, target: str) -> str | None:
        sides = language(source), language(target)
        if self.path:
            found = frame(local(self.path), self._what, *sides)
            return found if isinstance(found, str) else None
        missing = [entry for entry in sides if not entry.nllb]
        return why_not(missing, "NLLB-200") if missing else None

    def needs(self, source: str, target: str) -> Mapping[str, Step]:
        model = model_step(self._source, "translator", (SAFETENSORS, PYTORCH), OFFLINE, _try)
        if not self._is_converted:
            return {"translator": model}
        return {"translator": model, "converted": ctranslate2_runtime.Converted(model, self.precision)}

    def work(self, plan: Plan, texts: Texts, needs: Mapping[str, Step]) -> Work:
        model = plan.path(needs["translator"])
        shape = (shape_in(model / "model") if model else None) or SHAPES.get(self.name, SHAPES["nllb_600m"])
        arithmetic = arithmetic_of(plan, self.name, self.precision)
        sentence = texts.each(texts.english) * MULTILINGUAL_FERTILITY
        row_bytes = RowBytes(shape, number_bytes(arithmetic.gpu))
        return ModelWork(
            loads=1,
            resident=f"{needs['translator'].key} {self.precision.value}",
            shape=shape,
            read=texts.rows * texts.english,
            generated=texts.rows * texts.english * MULTILINGUAL_FERTILITY * self.num_beams,
            rows=texts.sentences,
            most=most_rows(self.batch_size),
            row_bytes=row_bytes.translated(round(sentence), round(USUAL_ROOM * sentence), self.num_beams),
            beams=self.num_beams,
            decode_steps=2 * sentence,  # until the longest of a batch ends
            passes=1,
            context=SENTENCE_TOKENS + texts.each(texts.target) / 2,
            arithmetic=arithmetic,
            engine=self.runtime.value if self._is_converted else "",
        )

    def prepare(self, inputs: Mapping[str, Path]) -> None:
        self._model_dir = inputs["translator"] / "model"
        self._converted = inputs["converted"] / "model" if self._is_converted else None

    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        """A sentence with more tokens than the model has positions gets no translation."""
        engine, vocabulary = self._ready()
        config = read_json(self._directory / "config.json")
        before, prefix = self._ids(source, target, vocabulary)
        # The code of NLLB's source first and </s> last, as in training; the tokenizer's own template may differ.
        ids = [[*before, *row, config["eos_token_id"]] for row in vocabulary.encode(sentences)]
        limit = _positions(config, self._is_converted)
        search = Search(self.num_beams, prefix, limit and limit - 1)
        fitting = [index for index, row in enumerate(ids) if not limit or len(row) <= limit]
        outputs = self._search(engine, [ids[index] for index in fitting], search, vocabulary)
        translations = [""] * len(sentences)
        for index, text in zip(fitting, vocabulary.decode(outputs), strict=True):
            translations[index] = text
        return translations

    def _search(self, engine: Any, sources: list[list[int]], search: Search, vocabulary: Vocabulary) -> list[list[int]]:
        if self._is_converted:
            translated: list[list[int]] = engine.translate(sources, search, vocabulary)
            return translated
        return transformers_runtime.translate(engine, sources, search, self._max_sentences)

    @property
    def _is_converted(self) -> bool:
        assert self.runtime is not Runtime.auto
        return self.runtime is Runtime.ctranslate2

    @property
    def _what(self) -> str:
        return f"translator.path={self.path}" if self.path else f"translator.hub_id={self.hub_id}"

    @property
    def _max_sentences(self) -> int:
        """Sentences of a batch, at most."""
        return ROWS.on(device().type == "cuda", self.batch_size)

    @property
    def _directory(self) -> Path:
        assert self._model_dir, "prepare() comes first"
        return self._model_dir

    def _ready(self) -> tuple[Any, Vocabulary]:
        """The model, of transformers or in the process of CTranslate2."""
        model_dir, converted, precision = self._directory, self._converted, self.precision
        if converted:
            tokens = round(self._max_sentences * SENTENCE_TOKENS)
            kind = ("translator", converted, tokens)
            loaded = resident(kind, lambda: ctranslate2_runtime.CTranslate2(converted, tokens))
        else:
            model = ("translator", model_dir, precision)
            loaded = resident(model, lambda: transformers_runtime.load_model(model_dir, precision))
        return loaded.model, loaded.cached("vocabulary", lambda: load_vocabulary(model_dir))

    def _ids(self, source: str, target: str, vocabulary: Vocabulary) -> tuple[list[int], int | None]:
        """What stands before a source, and what a translation begins with."""
        sides = language(source), language(target)
        found = frame(self._directory, self._what, *sides)
        if isinstance(found, str):  # a repository on the hub that is not quite NLLB-200
            raise InputError(f"translator={self.name} {found}")
        tokens = [token for token in (found.before, found.prefix) if token and token not in vocabulary.ids]
        if tokens:
            raise InputError(f"{self._what} names {tokens[0]} among its special tokens, and its vocabulary lacks it")
        before = [vocabulary.ids[found.before]] if found.before else []
        return before, vocabulary.ids[found.prefix] if found.prefix else None


def _positions(config: dict[str, Any], is_converted: bool) -> int | None:
    """The positions that the model has; transformers computes more of M2M-100's when they are needed."""
    if config["model_type"] == "m2m_100" and not is_converted:
        return None
    return int(config.get("max_position_embeddings") or 1024)


def _try(model_dir: Path, what: str, again: str) -> None:
    """Raises InputError if model and tokenizer cannot be loaded. Weights are not loaded."""
    from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    from sdx.models import load_check

    config = load_check.check_model_type(model_dir, what)
    model = load_check.load_without_weights(AutoModelForSeq2SeqLM, model_dir, what, again, warns_of_unused=False)
    rows = model.get_input_embeddings().weight.shape[0]
    for name in ("eos_token_id", "pad_token_id", "decoder_start_token_id"):
        if not (isinstance(id_ := getattr(config, name), int) and 0 <= id_ < rows):
            raise InputError(f"{what}: config.json has {name}={id_}, which is no id of the model's {rows}; {again}")
    with load_errors(what):
        vocabulary = load_vocabulary(model_dir)
        if isinstance(vocabulary, TokenizerJson):
            load_check.check_vocabulary(PreTrainedTokenizerFast(tokenizer_object=vocabulary.tokenizer), rows, what)
        elif (most := max(vocabulary.tokens)) >= rows:
            raise InputError(f"{what}: the token {vocabulary.tokens[most]!r} has the id {most} of {rows}; {again}")


SCHEMAS = {"seq2seq": Seq2SeqConfig}
