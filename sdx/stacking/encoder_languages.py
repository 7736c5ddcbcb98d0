"""How an encoder is told a text's language, and how texts become its ids.

NLLB-200, M2M-100 and mBART need a code among the ids; their tokenizers silently turn an unknown code into <unk>. Other
encoders read any language they were trained on.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import EncoderConfig
from sdx.languages import Language
from sdx.models.hub import local
from sdx.models.language_codes import MBART, added_tokens, language_code, language_codes
from sdx.stacking.encoder import context_tokens, load_tokenizer
from sdx.stacking.sequences import SequenceTokenizer

INSTEAD = (
    "leave it out of lang, or take encoder=nllb_600m (202 languages) or one without codes, such as encoder=e5_small"
)


def encoder_tokenizer(model_dir: Path, prefix: str, language: Language) -> SequenceTokenizer:
    """Encodes sequences of texts in one language as in the encoder's training, and as its tokenizer would.

    Two texts are separated as the tokenizer separates them; if it puts nothing between them, by EOS (ours: NLLB's,
    M2M-100's and Marian's tokenizers join a premise and a hypothesis).

    Args:
        prefix: before the first text, such as "query: ".

    Raises:
        InputError: the encoder has no code for the language.
    """
    tokenizer = load_tokenizer(model_dir)
    vocabulary = tokenizer.get_vocab()
    vocabulary |= getattr(tokenizer, "lang_token_to_id", {})  # M2M-100's tokenizer keeps its codes apart
    codes = language_codes(model_dir, vocabulary)
    before, between, after = _template(tokenizer)
    between = between or _eos(tokenizer, model_dir)
    if codes is not None:
        code = language_code(codes, language)
        if code is None:
            raise InputError(f"the encoder in {model_dir} has no code for {_named([language])}; {INSTEAD}")
        id_, ids = vocabulary[code], {vocabulary[other] for other in codes}
        if re.fullmatch(MBART, code) and ids & set(after):  # mBART-25 has the code after the text
            after = [id_ if token in ids else token for token in after]
        else:  # as in training; an older tokenizer.json may put it after the text
            before, after = [id_], _eos(tokenizer, model_dir)
    return SequenceTokenizer(
        tokenizer, [*before, *_prefix(tokenizer, prefix)], between, after, context_tokens(model_dir)
    )


def check_languages(config: EncoderConfig, languages: Sequence[Language]) -> None:
    """Raises InputError for languages that the encoder has no code for. Loads nothing and asks no network.

    `encoder_tokenizer` finds what cannot be known without the model's files, or is not in them.
    """
    directory = local(config.path) if config.path else _cached(config)
    if directory is not None:
        codes = language_codes(directory, added_tokens(directory))
        missing = [language for language in languages if codes and not language_code(codes, language)]
    elif "nllb" in (config.hub_id or "").lower():
        missing = [language for language in languages if not language.nllb]
    else:
        return
    if missing:
        raise InputError(f"encoder={config.name} has no code for {_named(missing)}; {INSTEAD}")


def _template(tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """The ids that the tokenizer puts before a text, between two of a pair, and after the last."""
    text = tokenizer("a", add_special_tokens=False)["input_ids"]
    pair, size = tokenizer("a", "a")["input_ids"], len(text)
    starts = [start for start in range(len(pair) - size + 1) if pair[start : start + size] == text]
    return pair[: starts[0]], pair[starts[0] + size : starts[-1]], pair[starts[-1] + size :]


def _eos(tokenizer: Any, model_dir: Path) -> list[int]:
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer in {model_dir} names no EOS token; set eos_token in its config")
    return [tokenizer.eos_token_id]


def _prefix(tokenizer: Any, prefix: str) -> list[int]:
    """The prefix's ids, without the last space if the next text has its own, as in `▁text`."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    bare = ids(prefix.rstrip(" "))
    return bare if bare + ids("a") == ids(f"{prefix}a") else ids(prefix)


def _named(languages: Sequence[Language]) -> str:
    return ", ".join(f"{language.name} ({language.flores})" for language in languages)


def _cached(config: EncoderConfig) -> Path | None:
    """The commit in the hub's local cache, with its tokenizer."""
    if not config.hub_id:
        return None
    from huggingface_hub import try_to_load_from_cache

    names = ("config.json", "tokenizer_config.json")
    files = [try_to_load_from_cache(config.hub_id, name, revision=config.revision) for name in names]
    return Path(files[0]).parent if all(isinstance(file, str) for file in files) else None
