"""How many tokens a text has, without its tokenizer: bytes for a text that is there, factors for one that is not.

Measured on 285 MMLU questions in eight languages and the seed corpus with the tokenizers of SmolLM2 (49k tokens,
English) and Gemma 3 (262k, multilingual). Ours; a tokenizer of 32k that spells out a script may need half as many
again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sdx.artifacts import rows_in
from sdx.languages import ENGLISH, language

LATIN = "_Latn"
MULTILINGUAL_VOCABULARY = 100_000
"""A vocabulary from this size on is taken to know all languages."""
BYTES_PER_TOKEN = {"english": (4.4, 4.4), "latin": (2.75, 4.0), "other": (2.0, 8.0)}
"""UTF-8 bytes of a token with a small and with a multilingual vocabulary."""
FERTILITY = {"english": (1.0, 1.0), "latin": (1.8, 1.3), "other": (5.5, 1.3)}
"""Tokens of a text for each token of its English version."""
SAMPLE_ROWS = 200
INSTRUCTION_TOKENS = 25.0
"""In English: SmolLM2's tokenizer on the seed corpus; Alpaca's are as long."""
ANSWER_TOKENS = 60.0
"""A gold answer in English, about that of Alpaca; the seed corpus has 36."""
SENTENCE_TOKENS = 25.0
"""A sentence in English."""
TEMPLATE_TOKENS = 30.0
"""What a chat template adds to an example: SmolLM2's with its system prompt."""


@dataclass(frozen=True)
class Rows:
    """What a file of rows holds, in expectation."""

    count: float
    tokens: Mapping[str, float] = field(default_factory=dict)
    """Mean tokens of a field, a list of texts counted as one."""

    def of(self, name: str) -> float:
        """Mean tokens of a field; of the longest one where the file does not name it."""
        return self.tokens.get(name, max(self.tokens.values(), default=0.0))


def _kind(flores: str) -> str:
    return "english" if flores == ENGLISH else "latin" if flores.endswith(LATIN) else "other"


def fertility(flores: str, vocab_size: int) -> float:
    """Tokens of a text in a language for each token of its English version.

    Args:
        vocab_size: of the tokenizer.
    """
    return FERTILITY[_kind(flores)][vocab_size >= MULTILINGUAL_VOCABULARY]


def tokens_in(text: str, flores: str, vocab_size: int) -> float:
    """Estimated tokens of a text in a language."""
    return len(text.encode()) / BYTES_PER_TOKEN[_kind(flores)][vocab_size >= MULTILINGUAL_VOCABULARY]


def measure(path: Path, flores: str, vocab_size: int) -> Rows:
    """What a published file of rows holds: all rows counted, the first `SAMPLE_ROWS` measured.

    Args:
        flores: the language of the texts, where a row says nothing else in `<field>_language`.
    """
    sums: dict[str, float] = {}
    sample = list(islice(rows_in(path), SAMPLE_ROWS))
    with path.open("rb") as lines:
        count = sum(1 for _ in lines)
    for row in sample:
        for name, value in row.items():
            if (tokens := _tokens(row, name, value, flores, vocab_size)) is not None:
                sums[name] = sums.get(name, 0.0) + tokens
    return Rows(count, {name: total / len(sample) for name, total in sums.items()})


def _tokens(row: Mapping[str, Any], name: str, value: Any, flores: str, vocab_size: int) -> float | None:
    if name == "text" and isinstance(row.get("tokens"), int):  # counted when it was generated
        return float(row["tokens"])
    texts = [value] if isinstance(value, str) else value
    if name.endswith(("id", "_language", "_origin")) or not isinstance(texts, list):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    spoken = language(row[f"{name}_language"]).flores if f"{name}_language" in row else flores
    return sum(tokens_in(text, spoken, vocab_size) for text in texts)
