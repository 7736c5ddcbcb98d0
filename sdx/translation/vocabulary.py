"""Texts to the ids of a translation model, and back.

The tokenizers library reads a model's own tokenizer.json: what transformers makes of that file depends on its version
and silently turns an unknown code into <unk>. OPUS-MT and M2M-100 come as SentencePiece files and a vocabulary instead.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sdx.store.files import read_json

PIECES = (("source.spm", "target.spm"), ("sentencepiece.bpe.model", "sentencepiece.bpe.model"))
"""SentencePiece files of OPUS-MT and M2M-100, for source and target."""
SPECIAL = re.compile("</?s>|<pad>|<unk>|>>.+<<|__[a-z]{2,3}__")


class Vocabulary(ABC):
    """A model's tokens, without the special ones that stand around a text."""

    ids: Mapping[str, int]
    """Token -> id."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text. `</s>` in a text means these four characters."""

    @abstractmethod
    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of ids, without special tokens."""

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Id -> token."""
        return {id_: token for token, id_ in self.ids.items()}


class TokenizerJson(Vocabulary):
    """Of a tokenizer.json."""

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer: Any = Tokenizer.from_file(str(file))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True
        self.ids = self.tokenizer.get_vocab()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoded.ids for encoded in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [text.strip() for text in self.tokenizer.decode_batch(rows, skip_special_tokens=True)]


class Pieces(Vocabulary):
    """Of SentencePiece files for source and target, whose pieces have the ids of a shared vocab.json."""

    def __init__(self, source: Path, target: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        self._source, self._target = (SentencePieceProcessor(model_file=str(file)) for file in (source, target))
        pieces = read_json(source.with_name("vocab.json"))
        codes = _codes(source.parent) if source == target else []
        self.ids = pieces | {code: len(pieces) + number for number, code in enumerate(codes)}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        unknown, rows = self.ids["<unk>"], self._source.encode(list(texts), out_type=str)
        return [[self.ids.get(piece, unknown) for piece in row] for row in rows]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        pieces = ([self.tokens.get(id_, "<unk>") for id_ in row] for row in rows)
        return [self._target.decode([one for one in row if not SPECIAL.fullmatch(one)]).strip() for row in pieces]


def load_vocabulary(model_dir: Path) -> Vocabulary:
    """Raises an error of the library that reads the files if they cannot be read."""
    if (file := model_dir / "tokenizer.json").is_file():
        return TokenizerJson(file)
    source, target = next(pair for pair in PIECES if (model_dir / pair[0]).is_file())
    return Pieces(model_dir / source, model_dir / target)


def _codes(model_dir: Path) -> list[str]:
    """M2M-100's codes, which follow the vocabulary in this order."""
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    settings = model_dir / "tokenizer_config.json"
    content = read_json(settings) if settings.is_file() else {}
    return [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES[content.get("language_codes", "m2m100")]]
