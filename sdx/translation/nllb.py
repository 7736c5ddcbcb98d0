"""NLLB-200 (arXiv 2207.04672) and models fine-tuned from it: 202 languages, from the hub or a local directory.

Sentences are translated one by one by beam search. The tokenizer is the model's own tokenizer.json, read by the
tokenizers library: what transformers builds from the same file depends on its version, and turns a code it lacks into
<unk> without a word. In bf16, and on GPUs, results differ in the last bits with what shares a batch, so that of two
translations that are almost equally likely another may win; in fp32 on a CPU that was not seen.
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
from sdx.models.hub import (
    PYTORCH,
    SAFETENSORS,
    DirectoryStep,
    check_link,
    check_model,
    hub_step,
    local,
)
from sdx.models.hub import available as available  # where `auto` looks for it
from sdx.models.loading import dtype_of, named, pretrained, straight
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

WEIGHTS = (SAFETENSORS, PYTORCH)
ARCHITECTURE = "m2m_100"
OFFLINE = "offline, set translator.path to a local copy, or choose another translator"
ROOM_FACTOR, ROOM_TOKENS = 2, 32
"""A translation may have twice the tokens of its source and 32, rounded up to a power of two. Ours: a sentence goes
round in a loop now and then, and sentences that share a limit can share a batch without changing each other."""


@dataclass
class NLLBConfig(TranslatorConfig, Source):
    """Where the model comes from: exactly one of `hub_id` and `path`, NLLB-200 itself or fine-tuned from it."""

    batch_size: int | None = fields.number(None, at_least=1, at_most=10**6)
    """Sentences translated at once, at most; null: 32 on a CPU, on a GPU as many as its memory holds. Ours. Not part of
    cache keys."""
    precision: Precision = Precision.auto
    """Arithmetic of the forward pass."""
    num_beams: int = fields.number(4, at_least=1, at_most=100)
    """Translations of a sentence followed in parallel; 1 is greedy, faster and worse. Ours."""


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


class NLLB(Translator):
    """The options are those of `NLLBConfig`.

    Raises:
        InputError: they cannot work, or `path` holds no NLLB model. Nothing is loaded.
    """

    name = "nllb"

    def __init__(
        self,
        hub_id: str | None,
        revision: str | None,
        path: str | None,
        batch_size: int | None,
        precision: Precision,
        num_beams: int,
    ) -> None:
        check_model(Source(path=path, hub_id=hub_id, revision=revision), "translator")
        self.hub_id, self.revision = hub_id, revision
        self.directory = local(path) if path else None
        self.batch_size = batch_size
        self.precision = precision
        self.num_beams = num_beams
        self._model_dir: Path | None = None
        if self.directory:
            _check(self.directory)

    @property
    def batch_rows(self) -> int:  # type: ignore[override]
        """Enough sentences to fill batches of like length: on a GPU a batch is large enough by itself."""
        return self._most if device().type == "cuda" else 4 * self._most

    @property
    def version(self) -> str:
        """Origin and options; the files of a local directory count through `needs`, the batch size does not."""
        origin = f"{self.hub_id}@{self.revision}" if self.hub_id else "local"
        room = f"room {ROOM_FACTOR}n+{ROOM_TOKENS}"
        return f"{origin}, beams {self.num_beams}, {self.precision.value}, {room}, segments {segment.VERSION}"

    def supports(self, source: str, target: str) -> bool:
        return not self._unknown(source, target)

    def why_unsupported(self, source: str, target: str) -> str | None:
        if not (unknown := self._unknown(source, target)):
            return None
        names = " and ".join(f"{language(flores).name} ({flores})" for flores in unknown)
        what = f"translator.path={self.directory}" if self.directory else "NLLB-200"
        return f"cannot translate {names}: {what} has no code for it; give another translator or lang"

    def needs(self, source: str, target: str) -> Mapping[str, Step]:
        if self.directory:
            return {"translator": DirectoryStep(self.directory, name="translator", trial=_try)}
        assert self.hub_id
        assert self.revision
        return {"translator": hub_step("translator", self.hub_id, self.revision, WEIGHTS, OFFLINE, _try)}

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

    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        if reason := self.why_unsupported(source, target):
            raise InputError(f"translator={self.name} {reason}")
        return segment.translate_texts(texts, lambda sentences: self.translate_sentences(sentences, source, target))

    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        """Translations of single sentences, without regard to layout and protected spans."""
        from sdx.models.fit import pieces, room, row_bytes

        model, tokenizer = self._ready()
        source_id, target_id = (self._code(tokenizer, flores) for flores in (source, target))
        encoded = tokenizer.encode_batch(sentences, add_special_tokens=False)
        # The source's code first and </s> last, as in training (the tokenizer's own template may be another).
        ids = [[source_id, *sentence.ids, model.config.eos_token_id] for sentence in encoded]
        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))  # what fits then fits to the end
        sources, of = [ids[index] for index in order], row_bytes(model)
        sizes = [of.translated(len(one), _room(len(one)), self.num_beams) for one in sources]
        outputs = pieces(
            model,
            sizes,
            _batches([len(one) for one in sources], sizes, room(model), self._most),
            lambda some: _generate(model, sources[some], target_id, self.num_beams),
            lambda place: f"a sentence of {len(sources[place])} tokens",
            f"lower translator.num_beams={self.num_beams} or take a GPU with more memory",
        )
        translations = [""] * len(sentences)
        for some, output in outputs:
            texts = tokenizer.decode_batch(output, skip_special_tokens=True)
            for index, text in zip(order[some], texts, strict=True):
                translations[index] = text.strip()
        return translations

    @property
    def _most(self) -> int:
        """Sentences of a batch."""
        return ROWS.on(device().type == "cuda", self.batch_size)

    def _unknown(self, *flores: str) -> list[str]:
        """Those of the languages that have no code, or none in this model."""
        codes = {name: language(name).nllb for name in flores}
        return [name for name, code in codes.items() if not code or (self.directory and code not in self._codes)]

    @cached_property
    def _codes(self) -> set[str]:
        """The special tokens of a local model, language codes among them."""
        assert self.directory
        try:
            return {token["content"] for token in read_json(self.directory / "tokenizer.json")["added_tokens"]}
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"translator.path={self.directory}: tokenizer.json cannot be read; copy it again"
            ) from None

    def _ready(self) -> tuple[Any, Any]:
        model_dir = self._model_dir
        assert model_dir, "prepare() comes first"
        held = resident(("translator", model_dir, self.precision), lambda: _load_model(model_dir, self.precision))
        return held.model, held.keep("tokenizer", lambda: _load_tokenizer(model_dir))

    def _code(self, tokenizer: Any, flores: str) -> int:
        id_: int | None = tokenizer.token_to_id(language(flores).nllb)
        if id_ is None:  # a repository on the hub that is not quite NLLB-200
            raise InputError(f"translator.hub_id={self.hub_id} has no code for {language(flores).name} ({flores})")
        return id_


def _check(directory: Path) -> None:
    """Raises `InputError` for a directory, known to have a config.json, that is no NLLB model."""
    what = f"translator.path={directory}"
    kind = read_json(directory / "config.json").get("model_type")
    if kind != ARCHITECTURE:
        raise InputError(
            f"{what} holds a model of type {kind}; translator=path takes NLLB-200 and models fine-tuned from it, "
            f"of type {ARCHITECTURE}"
        )
    if not (directory / "tokenizer.json").is_file():
        raise InputError(
            f"{what} has no tokenizer.json; write one with AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )


def _try(model_dir: Path, what: str, again: str) -> None:
    """Raises InputError for a directory that gives no model and tokenizer. Weights are not loaded."""
    from transformers import M2M100ForConditionalGeneration

    from sdx.models import trial

    config = trial.check_kind(model_dir, what)
    model = trial.model_without_weights(M2M100ForConditionalGeneration, model_dir, what, again, told=False)
    needed = {name: getattr(config, name) for name in ("eos_token_id", "pad_token_id", "decoder_start_token_id")}
    rows = model.get_input_embeddings().weight.shape[0]
    for name, id_ in needed.items():
        if not (isinstance(id_, int) and 0 <= id_ < rows):
            raise InputError(f"{what}: config.json has {name}={id_}, which is no id of the model's {rows}; {again}")
    with named(what):
        tokenizer = _load_tokenizer(model_dir)
        special = {id_ for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        trial.check_ids(tokenizer.get_vocab(), special, needed.values(), rows, what)


def _load_model(model_dir: Path, precision: Precision) -> Any:
    """The encoder and decoder, for inference, on this process' GPU where there is one."""
    from transformers import GenerationConfig, M2M100ForConditionalGeneration

    check_link(model_dir)
    with unreported():  # old checkpoints carry position tables
        model, report = pretrained(
            M2M100ForConditionalGeneration,
            model_dir,
            dtype=dtype_of(precision),
            output_loading_info=True,
            **straight(),
        )
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{model_dir} lacks {len(missing)} weights, such as {missing[0]}; get its files again")
    model.generation_config = GenerationConfig()  # its own limits a translation to 200 tokens
    return model.eval()


def _load_tokenizer(model_dir: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # a text with </s> in it means these four characters
    return tokenizer


def _room(tokens: int) -> int:
    """The most tokens that the translation of a source with so many may have."""
    return 1 << (ROOM_FACTOR * tokens + ROOM_TOKENS - 1).bit_length()


def _batches(lengths: Sequence[int], sizes: Sequence[float], memory: float, most: int) -> Iterator[slice]:
    """Neighbours with the same room for their translations.

    Args:
        lengths, sizes: of the sources, in tokens and in bytes.
        memory: bytes for a batch.
        most: sources of a batch.
    """
    start = 0
    for _, group in groupby(map(_room, lengths)):
        stop = start + len(list(group))
        for batch in cut(sizes[start:stop], memory, most):
            yield slice(start + batch.start, start + batch.stop)
        start = stop


def _generate(model: Any, sources: list[list[int]], target_id: int, beams: int) -> list[list[int]]:
    """The best translation of each source, special tokens included, by beam search.

    Args:
        sources: with the same room for a translation.
        target_id: the target language's code, the decoder's first word.
    """
    import torch
    from transformers import GenerationConfig

    longest = max(map(len, sources))
    pad = model.config.pad_token_id
    ids = torch.tensor([source + [pad] * (longest - len(source)) for source in sources])  # [batch, seq]
    sizes = torch.tensor([len(source) for source in sources])
    mask = (torch.arange(longest) < sizes[:, None]).long()  # [batch, seq]
    config = GenerationConfig(
        num_beams=beams,
        do_sample=False,
        max_new_tokens=_room(longest),
        forced_bos_token_id=target_id,
        decoder_start_token_id=model.config.decoder_start_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=pad,
    )
    with torch.inference_mode():
        outputs = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=config
        )
    return [[int(token) for token in row] for row in outputs.tolist()]


SCHEMAS = {"nllb": NLLBConfig}
