"""How an encoder is told a text's language, and how texts become its ids.

NLLB-200, M2M-100 and mBART want a code among the ids; their tokenizers turn a code they lack into <unk> without a
word. The others read any language that they were trained on.
"""

import re
from collections.abc import Collection, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import EncoderConfig
from sdx.languages import Language
from sdx.models.hub import local
from sdx.stacking.encoder import context_tokens, load_tokenizer
from sdx.stacking.segments import Segments
from sdx.store.files import read_json

INSTEAD = "leave it out of lang, or take encoder=nllb_600m (202 languages) or one without codes, as encoder=e5_small"
ADDED = ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json")
"""Files in which a tokenizer names tokens beside those that it has learnt."""
ADDED_KEYS = ("additional_special_tokens", "extra_special_tokens")


class Coding(Enum):
    """The form of a model's language codes; the value is the pattern of such a token."""

    none = ""
    nllb = r"[a-z]{3}_[A-Z][a-z]{3}"
    m2m100 = r"__[a-z]{2,3}__"
    mbart = r"[a-z]{2,3}_[A-Z]{2}"

    def codes(self, tokens: Collection[str]) -> set[str]:
        """Those of the tokens that name a language."""
        return {token for token in tokens if re.fullmatch(self.value, token)} if self.value else set()

    def code(self, tokens: Collection[str], language: Language) -> str | None:
        """The token of the tokens that names the language, if any."""
        known = self.codes(tokens)
        if self is Coding.mbart:  # `th_TH`, `en_XX`: the second part says nothing that the first does not
            wanted = {code for code in known if code.split("_")[0] == language.code}
            return min(wanted, default=None)
        code = language.nllb if self is Coding.nllb else f"__{language.code}__"
        return code if code in known else None


def coding(kind: str, tokens: Collection[str]) -> Coding:
    """By a model's type and its tokenizer's tokens. NLLB-200 and M2M-100 have one type and two forms of codes."""
    if kind == "mbart":
        return Coding.mbart
    if kind == "m2m_100":
        return Coding.nllb if Coding.nllb.codes(tokens) else Coding.m2m100
    return Coding.none


def encoder_segments(model_dir: Path, prefix: str, language: Language) -> Segments:
    """Encodes sequences of texts of one language for the encoder, as it was trained and as its tokenizer would.

    Between two texts stands what the tokenizer itself puts there; where it puts nothing, EOS (ours: NLLB's, M2M-100's
    and Marian's run a premise and a hypothesis together).

    Args:
        prefix: in front of the first text, such as "query: ".

    Raises:
        InputError: the encoder has no code for the language.
    """
    tokenizer = load_tokenizer(model_dir)
    vocabulary = tokenizer.get_vocab()
    vocabulary |= getattr(tokenizer, "lang_token_to_id", {})  # M2M-100's tokenizer keeps its codes apart
    form = coding(str(read_json(model_dir / "config.json").get("model_type")), vocabulary)
    before, between, after = _template(tokenizer)
    between = between or _end(tokenizer, model_dir)
    if form is not Coding.none:
        code = form.code(vocabulary, language)
        if code is None:
            raise InputError(f"the encoder in {model_dir} has no code for {_named([language])}; {INSTEAD}")
        known = {vocabulary[token] for token in form.codes(vocabulary)}
        id_ = vocabulary[code]
        if form is Coding.mbart and known & set(after):  # mBART-25's stands behind the text
            after = [id_ if token in known else token for token in after]
        else:  # where training had it; a tokenizer.json may be of a time that put it behind the text
            before, after = [id_], _end(tokenizer, model_dir)
    return Segments(tokenizer, [*before, *_prefix(tokenizer, prefix)], between, after, context_tokens(model_dir))


def check_languages(config: EncoderConfig, model_dir: Path | None, languages: Sequence[Language]) -> None:
    """Raises InputError for languages that the encoder has no code for. Loads nothing and asks no network.

    What cannot be known without the model's files, or is not said in them, `encoder_segments` finds.

    Args:
        model_dir: the encoder, where it is there already.
    """
    directory = model_dir or (local(config.path) if config.path else _cached(config))
    if directory is not None:
        tokens = _added_tokens(directory)
        form = coding(str(read_json(directory / "config.json").get("model_type")), tokens)
        known = form.codes(tokens)
        missing = [language for language in languages if known and not form.code(tokens, language)]
    elif "nllb" in (config.hub_id or "").lower():
        missing = [language for language in languages if not language.nllb]
    else:
        return
    if missing:
        raise InputError(f"encoder={config.name} has no code for {_named(missing)}; {INSTEAD}")


def _template(tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """The ids that the tokenizer puts in front of a text, between two of a pair, and behind the last."""
    text = tokenizer("a", add_special_tokens=False)["input_ids"]
    pair, size = tokenizer("a", "a")["input_ids"], len(text)
    places = [place for place in range(len(pair) - size + 1) if pair[place : place + size] == text]
    first, second = places[0], places[-1]
    return pair[:first], pair[first + size : second], pair[second + size :]


def _end(tokenizer: Any, model_dir: Path) -> list[int]:
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer in {model_dir} names no EOS token; set eos_token in its config")
    return [tokenizer.eos_token_id]


def _prefix(tokenizer: Any, prefix: str) -> list[int]:
    """The prefix' ids: without its last space where a text that follows brings its own, as `▁text`."""
    if not prefix:
        return []

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    bare = ids(prefix.rstrip(" "))
    return bare if bare + ids("a") == ids(f"{prefix}a") else ids(prefix)


def _named(languages: Sequence[Language]) -> str:
    return ", ".join(f"{language.name} ({language.flores})" for language in languages)


def _added_tokens(directory: Path) -> set[str]:
    """The tokens that a tokenizer's files name beside those that it has learnt, language codes among them."""
    found: list[Any] = []
    for name in ADDED:
        try:
            content = read_json(directory / name)
        except FileNotFoundError:
            continue
        except ValueError:
            raise InputError(f"{directory / name} cannot be read; get it again") from None
        if name == "added_tokens.json":
            found += content
            continue
        for key in ADDED_KEYS:
            found += content.get(key) or []
        found += content.get("added_tokens", [])
        found += content.get("added_tokens_decoder", {}).values()
    return {str(token["content"]) if isinstance(token, dict) else str(token) for token in found}


def _cached(config: EncoderConfig) -> Path | None:
    """The commit in the hub's local cache, with its tokenizer."""
    if not config.hub_id:
        return None
    from huggingface_hub import try_to_load_from_cache

    names = ("config.json", "tokenizer_config.json")
    files = [try_to_load_from_cache(config.hub_id, name, revision=config.revision) for name in names]
    return Path(files[0]).parent if all(isinstance(file, str) for file in files) else None
