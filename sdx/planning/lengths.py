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

from sdx.languages import ENGLISH, language
from sdx.store.files import MANIFEST, read_json, rows_in
from sdx.store.store import Store

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


ASSUMED_SHARE = 0.6
"""Of `max_new_tokens`, the mean length of an answer of which nothing is known: what SmolLM2-135M uses of 128. Longer
limits are used up less. Ours."""


@dataclass(frozen=True)
class Answers:
    """Greedy answers of one model with one limit.

    Args:
        tokens: mean, the end of turn counted.
        cut: share that ran into the limit.
        finished_tokens: mean of the others.
    """

    tokens: float
    cut: float
    finished_tokens: float


def assumed(max_new_tokens: int) -> Answers:
    """For a model that has not answered yet. That none is cut bounds what a filter keeps from above."""
    tokens = ASSUMED_SHARE * max_new_tokens
    return Answers(tokens, 0.0, tokens)


def answers(store: Store) -> dict[tuple[str, int], Answers]:
    """By (key of the model's step, `max_new_tokens`): what the manifests of the cache say."""
    sums: dict[tuple[str, int], list[int]] = {}
    for path in store.root.glob(f"generate/*/{MANIFEST}"):
        try:
            manifest = read_json(path)
            counts = [int(manifest["counts"][name]) for name in ("rows", "tokens", "cut")]
            key = (str(manifest["inputs"]["model"]), int(manifest["config"]["max_new_tokens"]))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
        ):  # deleted, damaged, or of another version
            continue
        sums[key] = [total + count for total, count in zip(sums.get(key, [0, 0, 0]), counts, strict=True)]
    found = {}
    for (model, limit), (rows, tokens, cut) in sums.items():
        if rows:
            finished = (tokens - cut * limit) / (rows - cut) if rows > cut else limit
            found[model, limit] = Answers(tokens / rows, cut / rows, finished)
    return found


BENCHMARKS = {
    "arc_easy": (2376, 43.0),
    "mmlu_human": (285, 85.0),
    "mmlu_subject": (285, 63.0),
    "belebele": (900, 190.0),
    "belebele_mc": (900, 190.0),
    "flores": (1012, 45.0),
    "xlsum": (11_535, 600.0),  # in English, see XLSUM
    "mkqa": (6620, 25.0),  # of its 10,000 those with an entity, a date, a number or a short phrase
    "arc_easy_full": (2376, 43.0),
    "xnli": (5010, 45.0),
    "americas_nli": (750, 45.0),
    "kardes_nlu": (2000, 45.0),
    "nusax": (400, 30.0),  # tokens guessed
    "xquad": (1190, 190.0),
    "mgsm": (250, 75.0),
    "gsm8k": (614, 75.0),
}
"""Items of a language, and tokens of one in English."""
XLSUM = {
    "amharic": 719,
    "arabic": 4689,
    "azerbaijani": 809,
    "bengali": 1012,
    "burmese": 570,
    "chinese_simplified": 4670,
    "chinese_traditional": 4670,
    "english": 11_535,
    "french": 1086,
    "gujarati": 1139,
    "hausa": 802,
    "hindi": 8847,
    "igbo": 522,
    "indonesian": 4780,
    "japanese": 889,
    "kirundi": 718,
    "korean": 550,
    "kyrgyz": 500,
    "marathi": 1362,
    "nepali": 725,
    "oromo": 757,
    "pashto": 1794,
    "persian": 5906,
    "portuguese": 7175,
    "punjabi": 1026,
    "russian": 7780,
    "scottish_gaelic": 500,
    "serbian_cyrillic": 909,
    "sinhala": 500,
    "somali": 745,
    "spanish": 4763,
    "swahili": 987,
    "tamil": 2027,
    "telugu": 1302,
    "thai": 826,
    "tigrinya": 681,
    "turkish": 3397,
    "ukrainian": 5399,
    "urdu": 8458,
    "uzbek": 590,
    "vietnamese": 4013,
    "welsh": 1216,
    "yoruba": 793,
}
"""Articles of XL-Sum's test split, by its names of languages (its authors' table, version 2.0)."""
UNKNOWN_BENCHMARK = (1000, 100.0)
NLI = {"premise": 27.0, "hypothesis": 13.0, "answer": 1.0}
LABELLED: dict[str, tuple[int, dict[str, float]]] = {
    "arc_easy": (570, {"question": 26.0, "answer": 5.0}),
    "arc_easy_full": (2251, {"question": 26.0, "answer": 5.0}),
    "gsm8k": (705, {"question": 55.0, "answer": 58.0}),
    "mgsm": (7473, {"question": 55.0, "answer": 58.0}),
    "xnli": (392_702, NLI),
    "americas_nli": (392_702, NLI),
    "kardes_nlu": (392_702, NLI),
    "xquad": (87_599, {"context": 160.0, "question": 14.0, "answer": 4.0}),
    "mmlu_subject": (13_823, {"question": 63.0, "answer": 4.0}),
    "nusax": (500, {"text": 30.0, "answer": 1.0}),
    "belebele_mc": (67_500, {"passage": 250.0, "question": 14.0, "answer": 8.0}),  # RACE is most of it
}
"""Rows of labelled training data, and tokens of each field in English. The tokens of xnli, xquad, nusax and belebele_mc
are guessed."""


def items(task: str, flores: str) -> tuple[int, float]:
    """Items of a benchmark in a language, and tokens of one in English."""
    count, tokens = BENCHMARKS.get(task, UNKNOWN_BENCHMARK)
    return (XLSUM.get(language(flores).xlsum, count), tokens) if task == "xlsum" else (count, tokens)
