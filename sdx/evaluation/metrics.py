"""chrF++ and BLEU against a reference, in sentence statistics whose sum gives the score of a corpus.

SacreBLEU's internal functions are called: its public ones cannot resample a corpus without counting n-grams again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdx.languages import Language

if TYPE_CHECKING:
    import numpy as np

CHRF = "chrF++"
BLEU = "BLEU"
COUNTS = {CHRF: 24, BLEU: 10}
"""Numbers in the statistics of a sentence. chrF++: n-grams of the hypothesis, of the reference, and in both, for
characters of orders 1 to 6 and words of orders 1 and 2. BLEU: length of the hypothesis and of the reference, then
n-grams in both and n-grams of the hypothesis, for n from 1 to 4."""


def corpus_statistics(
    name: str, hypotheses: Sequence[str], references: Sequence[str], tokenizer: str = "13a"
) -> np.ndarray:
    """[sentence, k], see `COUNTS`."""
    import numpy as np

    return np.array(_metric(name, tokenizer)._extract_corpus_statistics(list(hypotheses), [list(references)]))


def corpus_score(name: str, statistics: np.ndarray) -> np.ndarray:
    """0 to 100, of summed `corpus_statistics`; [..., k] gives [...]. It is not the mean of the sentences' scores.

    BLEU is that of sacreBLEU's default (`smooth:exp`, NIST's): the first order without a match counts half an n-gram,
    the second a quarter, and so on; if no word matches, or no hypothesis has four words, the score is 0.
    """
    import numpy as np

    metric = _metric(name)
    return np.apply_along_axis(lambda row: metric._compute_score_from_stats(row.tolist()).score, -1, statistics)


def bleu_tokenizer(language: Language) -> str:
    """SacreBLEU's tokeniser for a language: `13a`, for Chinese `zh`, for others without spaces between words `char`.

    SacreBLEU's own choices for Japanese and Korean (MeCab) and its `flores200` need packages or downloads, and sdx has
    to work offline. So Korean is split at its spaces, and a figure for Japanese or Thai compares characters: it is far
    higher than one of words, and the tables name the tokeniser.
    """
    if language.script in ("Hans", "Hant"):
        return "zh"
    return "13a" if language.spaces else "char"


def _metric(name: str, tokenizer: str = "13a") -> Any:
    from sacrebleu import metrics

    # `force`: no advice on texts that end in " ."
    return metrics.CHRF(word_order=2) if name == CHRF else metrics.BLEU(tokenize=tokenizer, force=True)
