"""How many tokens a text has, without its tokenizer: from its bytes, or from the tokens of its English version.

Measured on 285 MMLU questions in eight languages and the seed corpus with the tokenizers of SmolLM2 (49k tokens,
English) and Gemma 3 (262k, multilingual). Ours; a tokenizer of 32k that spells out a script may need half as many
again.
"""

from sdx.languages import ENGLISH

MULTILINGUAL_VOCABULARY = 100_000
"""A vocabulary of this size or more is taken to know all languages."""
BYTES_PER_TOKEN = {"english": (4.4, 4.4), "latin": (2.75, 4.0), "other": (2.0, 8.0)}
"""UTF-8 bytes of a token with a small and with a multilingual vocabulary."""
FERTILITY = {"english": (1.0, 1.0), "latin": (1.8, 1.3), "other": (5.5, 1.3)}
"""Tokens of a text for each token of its English version."""
INSTRUCTION_TOKENS = 25.0
"""In English: SmolLM2's tokenizer on the seed corpus; Alpaca's are as long."""
ANSWER_TOKENS = 60.0
"""A gold answer in English, about that of Alpaca; the seed corpus has 36."""
SENTENCE_TOKENS = 25.0
"""A sentence in English."""
TEMPLATE_TOKENS = 30.0
"""What a chat template adds to an example: SmolLM2's with its system prompt."""


def _kind(flores: str) -> str:
    return "english" if flores == ENGLISH else "latin" if flores.endswith("_Latn") else "other"


def fertility(flores: str, vocab_size: int) -> float:
    """Tokens of a text in a language, by a tokenizer of `vocab_size`, for each token of its English version."""
    return FERTILITY[_kind(flores)][vocab_size >= MULTILINGUAL_VOCABULARY]


def tokens_in(text: str, flores: str, vocab_size: int) -> float:
    """Estimated tokens of a text in a language."""
    return len(text.encode()) / BYTES_PER_TOKEN[_kind(flores)][vocab_size >= MULTILINGUAL_VOCABULARY]
