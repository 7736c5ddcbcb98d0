"""How long the answers of a model were, where the cache has some already."""

from dataclasses import dataclass

from sdx.artifacts import MANIFEST, Store, read_json

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
