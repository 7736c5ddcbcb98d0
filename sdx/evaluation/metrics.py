"""chrF++ of free answers against a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CHRF_ORDERS = 8
"""Characters 1 to 6, words 1 and 2."""
CHRF_BETA = 2


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """chrF++ of a corpus, 0 to 100: sacreBLEU's, characters to order 6, words to order 2, beta 2."""
    return float(chrf_score(chrf_statistics(hypotheses, references).sum(0)))


def chrf_statistics(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """[sentence, 24]: n-grams of the hypothesis, of the reference, and in both, for each of the 8 orders."""
    import numpy as np
    from sacrebleu.metrics import CHRF

    if len(hypotheses) != len(references) or not references:
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references; chrF++ pairs them")
    # Internal, but the only way to resample a corpus without counting its n-grams again.
    return np.array(CHRF(word_order=2)._extract_corpus_statistics(list(hypotheses), [list(references)]))


def chrf_score(statistics: np.ndarray) -> np.ndarray:
    """chrF++, 0 to 100, of summed `chrf_statistics`; [..., 24] gives [...].

    The corpus score is that of the sum over all sentences, not the mean of the sentences' scores.
    """
    import numpy as np

    hypothesis, reference, match = np.moveaxis(
        statistics.reshape(*statistics.shape[:-1], CHRF_ORDERS, 3).astype(float), -1, 0
    )
    usable = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(usable.sum(-1), 1)
    precision = np.divide(match, hypothesis, out=np.zeros_like(match), where=usable).sum(-1) / orders
    recall = np.divide(match, reference, out=np.zeros_like(match), where=usable).sum(-1) / orders
    weight = CHRF_BETA**2
    below = weight * precision + recall
    share = np.divide(precision * recall, below, out=np.zeros_like(below), where=below > 0)
    return np.asarray(100 * (1 + weight) * share)
