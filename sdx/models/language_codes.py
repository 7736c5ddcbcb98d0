"""The tokens that name a language in the vocabularies of NLLB-200, M2M-100 and mBART."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.languages import Language
from sdx.store.files import read_json

TOKEN_FILES = ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json")
"""Files in which a tokenizer names tokens beside those of its trained vocabulary."""
MBART = r"[a-z]{2,3}_[A-Z]{2}"
CODES = {"mbart": (MBART,), "m2m_100": (r"[a-z]{3}_[A-Z][a-z]{3}", r"__[a-z]{2,3}__")}
"""Patterns of the tokens that name a language, by the model's type: NLLB-200 and M2M-100 have the same."""


def language_codes(model_dir: Path, tokens: Collection[str]) -> set[str] | None:
    """The tokens that name a language; None if a model of this type has none."""
    patterns = CODES.get(str(read_json(model_dir / "config.json").get("model_type")))
    if patterns is None:
        return None
    found = ({token for token in tokens if re.fullmatch(pattern, token)} for pattern in patterns)
    return next(filter(None, found), set())


def language_code(codes: Collection[str], language: Language) -> str | None:
    """The code that names the language, if any. mBART's `th_TH`, `en_XX` name it in the first part."""
    mbart = (code for code in codes if re.fullmatch(MBART, code) and code.split("_")[0] == language.code)
    return next((code for code in (language.nllb, f"__{language.code}__", *sorted(mbart)) if code in codes), None)


def added_tokens(directory: Path) -> set[str]:
    """The tokens in `TOKEN_FILES`, language codes among them."""
    found: list[Any] = []
    for name in TOKEN_FILES:
        try:
            content = read_json(directory / name)
        except FileNotFoundError:
            continue
        except ValueError:
            raise InputError(f"{directory / name} cannot be read; get it again") from None
        if name == "added_tokens.json":
            found += content
            continue
        for key in ("additional_special_tokens", "extra_special_tokens", "added_tokens"):
            found += content.get(key) or []
        found += content.get("added_tokens_decoder", {}).values()
    return {str(token["content"]) if isinstance(token, dict) else str(token) for token in found}
