"""Lengths of cached texts, and of a model's earlier answers."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sdx.languages import language
from sdx.store.estimate import Answers, Rows
from sdx.store.files import MANIFEST, read_json, rows_in
from sdx.store.store import Store
from sdx.text.lengths import tokens_in

SAMPLE_ROWS = 200


def measure(path: Path, flores: str, vocab_size: int) -> Rows:
    """Counts all rows of a published file and measures the first `SAMPLE_ROWS`.

    Args:
        flores: the language of texts without a `<field>_language` in their row.
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
"""Mean length of an answer as a share of `max_new_tokens`: SmolLM2-135M with a limit of 128; less with a higher limit.
Ours."""


def assumed(max_new_tokens: int) -> Answers:
    """For a model that has not answered yet. No answer is cut: an upper bound of what a filter keeps."""
    tokens = ASSUMED_SHARE * max_new_tokens
    return Answers(tokens, 0.0, tokens)


def answers(store: Store) -> dict[tuple[str, int], Answers]:
    """From the manifests of the cache, by (key of the model's step, `max_new_tokens`)."""
    sums: dict[tuple[str, int], list[int]] = {}
    for path in store.root.glob(f"generate/*/{MANIFEST}"):
        try:
            manifest = read_json(path)
            counts = [int(manifest["counts"][name]) for name in ("rows", "tokens", "cut")]
            key = (str(manifest["inputs"]["model"]), int(manifest["config"]["max_new_tokens"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError):  # deleted, damaged or of another version
            continue
        sums[key] = [total + count for total, count in zip(sums.get(key, [0, 0, 0]), counts, strict=True)]
    found = {}
    for (model, limit), (rows, tokens, cut) in sums.items():
        if rows:
            finished = (tokens - cut * limit) / (rows - cut) if rows > cut else limit
            found[model, limit] = Answers(tokens / rows, cut / rows, finished)
    return found
