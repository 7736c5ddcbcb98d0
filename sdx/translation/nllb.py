"""NLLB-200 (arXiv 2207.04672) and models fine-tuned from it: 202 languages, from the hub or a local directory.

Each sentence is translated for itself, by beam search. The tokenizers library reads the model's own tokenizer.json:
what transformers makes of that file depends on its version and silently turns an unknown code into <unk>. In bf16, and
on GPUs, the last bits depend on what shares a batch, and may decide between two translations that are almost equally
likely; in fp32 on a CPU this was not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import Precision, ShapeConfig, TranslatorConfig
from sdx.languages import language
from sdx.models.batches import ROWS, RowBytes, cut, number_bytes
from sdx.models.hub import PYTORCH, SAFETENSORS, check_model, local, model_step
from sdx.models.loading import dtype_of, gpu_options, load_errors, padded, pretrained
from sdx.models.residency import resident
from sdx.models.shape import shape_in
from sdx.models.work import ModelWork, most_rows
from sdx.options import fields
from sdx.options.source import Source
from sdx.process.quiet import unreported
from sdx.process.ranks import device
from sdx.store.estimate import Plan, Work
from sdx.store.files import read_json
from sdx.store.step import Step
from sdx.text import segment
from sdx.text.lengths import SENTENCE_TOKENS
from sdx.translation.base import Texts, Translator, arithmetic_of

ARCHITECTURE = "m2m_100"
OFFLINE = "offline, set translator.path to a local copy, or choose another translator"
ROOM_FACTOR, ROOM_TOKENS = 2, 32
"""A translation may have twice the tokens of its source plus 32, rounded up to a power of two. Ours: the model may
loop, and sentences with the same limit can share a batch without changing each other."""


@dataclass
class NLLBConfig(TranslatorConfig, Source):
    """NLLB-200 itself or a model fine-tuned from it: exactly one of `hub_id` and `path`."""

    batch_size: int | None = fields.number(None, at_least=1, at_most=10**6)
    """Sentences translated at once, at most; null: 32 on a CPU, as many as its memory holds on a GPU. Ours. Not part of
    cache keys."""
    precision: Precision = Precision.auto
    """Arithmetic of the forward pass."""
    num_beams: int = fields.number(4, at_least=1, at_most=100)
    """Beam width; 1 is greedy, faster and worse. Ours."""


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
class NLLB(Translator):
    """The options are those of `NLLBConfig`.

    Raises:
        InputError: they cannot work, or `path` is no NLLB model. Nothing is loaded.
    """

    hub_id: str | None
    revision: str | None
    path: str | None
    batch_size: int | None
    precision: Precision
    num_beams: int

    name = "nllb"

    def __post_init__(self) -> None:
        self._source = Source(path=self.path, hub_id=self.hub_id, revision=self.revision)
        self._model_dir: Path | None = None
        check_model(self._source, "translator", tokenizers=("tokenizer.json",))
        kind = read_json(local(self.path) / "config.json")["model_type"] if self.path else ARCHITECTURE
        if kind != ARCHITECTURE:
            raise InputError(
                f"translator.path={self.path} holds a model of type {kind}; translator=path takes NLLB-200 and models "
                f"fine-tuned from it, of type {ARCHITECTURE}"
            )

    @property
    def batch_rows(self) -> int:  # type: ignore[override]
        """Enough sentences to fill batches of similar length; on a GPU one batch is large enough."""
        return self._max_sentences if device().type == "cuda" else 4 * self._max_sentences

    @property
    def version(self) -> str:
        """Origin and options; the files of a local directory count through `needs`, the batch size does not."""
        origin = f"{self.hub_id}@{self.revision}" if self.hub_id else "local"
        room = f"room {ROOM_FACTOR}n+{ROOM_TOKENS}"
        return f"{origin}, beams {self.num_beams}, {self.precision.value}, {room}, segments {segment.VERSION}"

    def why_unsupported(self, source: str, target: str) -> str | None:
        entries = (language(source), language(target))
        known = self._special_tokens
        unknown = (entry for entry in entries if not entry.nllb or (known is not None and entry.nllb not in known))
        names = [f"{entry.name} ({entry.flores})" for entry in unknown]
        what = f"translator.path={self.path}" if self.path else "NLLB-200"
        fix = f"{what} has no code for it; give another translator or lang"
        return f"cannot translate {' and '.join(names)}: {fix}" if names else None

    def needs(self, source: str, target: str) -> Mapping[str, Step]:
        return {"translator": model_step(self._source, "translator", (SAFETENSORS, PYTORCH), OFFLINE, _try)}

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
        )

    def prepare(self, inputs: Mapping[str, Path]) -> None:
        self._model_dir = inputs["translator"] / "model"

    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        from sdx.models.fit import pieces, room, row_bytes

        model, tokenizer = self._ready()
        source_id, target_id = (self._code(tokenizer, flores) for flores in (source, target))
        encoded = tokenizer.encode_batch(sentences, add_special_tokens=False)
        # The source's code first and </s> last, as in training; the tokenizer's own template may differ.
        ids = [[source_id, *sentence.ids, model.config.eos_token_id] for sentence in encoded]
        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))  # if the first batch fits, all do
        sources, row = [ids[index] for index in order], row_bytes(model)
        lengths = [len(tokens) for tokens in sources]
        sizes = [row.translated(length, _room(length), self.num_beams) for length in lengths]
        outputs = pieces(
            model,
            sizes,
            _batches(lengths, sizes, room(model), self._max_sentences),
            lambda some: _generate(model, sources[some], target_id, self.num_beams),
            lambda index: f"a sentence of {lengths[index]} tokens",
            f"lower translator.num_beams={self.num_beams} or take a GPU with more memory",
        )
        translations = [""] * len(sentences)
        for some, output in outputs:
            texts = tokenizer.decode_batch(output, skip_special_tokens=True)
            for index, text in zip(order[some], texts, strict=True):
                translations[index] = text.strip()
        return translations

    @property
    def _max_sentences(self) -> int:
        """Sentences of a batch, at most."""
        return ROWS.on(device().type == "cuda", self.batch_size)

    @cached_property
    def _special_tokens(self) -> set[str] | None:
        """Those of a local model, language codes among them; None for a model on the hub."""
        if not self.path:
            return None
        try:
            return {token["content"] for token in read_json(local(self.path) / "tokenizer.json")["added_tokens"]}
        except (KeyError, TypeError):
            raise InputError(
                f"translator.path={self.path}: tokenizer.json has no list of added_tokens; copy it again"
            ) from None

    def _ready(self) -> tuple[Any, Any]:
        model_dir = self._model_dir
        assert model_dir, "prepare() comes first"
        loaded = resident(("translator", model_dir, self.precision), lambda: _load_model(model_dir, self.precision))
        return loaded.model, loaded.cached("tokenizer", lambda: _load_tokenizer(model_dir))

    def _code(self, tokenizer: Any, flores: str) -> int:
        id_: int | None = tokenizer.token_to_id(language(flores).nllb)
        if id_ is None:  # a repository on the hub that is not quite NLLB-200
            raise InputError(f"translator.hub_id={self.hub_id} has no code for {language(flores).name} ({flores})")
        return id_


def _try(model_dir: Path, what: str, again: str) -> None:
    """Raises InputError if model and tokenizer cannot be loaded. Weights are not loaded."""
    from transformers import M2M100ForConditionalGeneration as M2M100
    from transformers import PreTrainedTokenizerFast

    from sdx.models import load_check

    config = load_check.check_model_type(model_dir, what)
    model = load_check.load_without_weights(M2M100, model_dir, what, again, warns_of_unused=False)
    rows = model.get_input_embeddings().weight.shape[0]
    for name in ("eos_token_id", "pad_token_id", "decoder_start_token_id"):
        if not (isinstance(id_ := getattr(config, name), int) and 0 <= id_ < rows):
            raise InputError(f"{what}: config.json has {name}={id_}, which is no id of the model's {rows}; {again}")
    with load_errors(what):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=_load_tokenizer(model_dir))
    load_check.check_vocabulary(tokenizer, rows, what)


def _load_model(model_dir: Path, precision: Precision) -> Any:
    """The encoder and decoder, for inference, on this process' GPU if it has one."""
    from transformers import GenerationConfig, M2M100ForConditionalGeneration

    with unreported():  # old checkpoints carry position tables
        model = pretrained(M2M100ForConditionalGeneration, model_dir, dtype=dtype_of(precision), **gpu_options())
    model.generation_config = GenerationConfig()  # the model's own limits a translation to 200 tokens
    return model.eval()


def _load_tokenizer(model_dir: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "</s>" in a text means these four characters
    return tokenizer


def _room(tokens: int) -> int:
    """The most tokens that the translation of a source of `tokens` may have."""
    return 1 << (ROOM_FACTOR * tokens + ROOM_TOKENS - 1).bit_length()


def _batches(lengths: Sequence[int], sizes: Sequence[float], memory: float, max_rows: int) -> Iterator[slice]:
    """Batches of neighbouring sources with the same `_room`, given their lengths in tokens and their sizes in bytes."""
    for _, group in groupby(range(len(lengths)), lambda index: _room(lengths[index])):
        rows = list(group)
        for batch in cut([sizes[row] for row in rows], memory, max_rows):
            yield slice(rows[0] + batch.start, rows[0] + batch.stop)


def _generate(model: Any, sources: list[list[int]], target_id: int, beams: int) -> list[list[int]]:
    """The best translation of each source, special tokens included. All sources have the same `_room`."""
    import torch
    from transformers import GenerationConfig

    config = GenerationConfig(
        num_beams=beams,
        do_sample=False,
        max_new_tokens=_room(max(map(len, sources))),
        forced_bos_token_id=target_id,
        decoder_start_token_id=model.config.decoder_start_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    batch = {name: tensor.to(model.device) for name, tensor in padded(sources, model.config.pad_token_id).items()}
    with torch.inference_mode():
        outputs: list[list[int]] = model.generate(**batch, generation_config=config).tolist()
    return outputs


SCHEMAS = {"nllb": NLLBConfig}
