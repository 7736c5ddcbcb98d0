"""chrF++ and BLEU against a reference, in sentence statistics whose sum gives the score of a corpus.

SacreBLEU's internal functions are called: its public ones cannot resample a corpus without counting n-grams again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdx.languages import Language

if TYPE_CHECKING:
    import numpy as np

CHRF_ORDERS = 8
"""Characters 1 to 6, words 1 and 2."""
BLEU_ORDERS = 4


def chrf_statistics(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """[sentence, 24]: n-grams of the hypothesis, of the reference, and in both, for each of the 8 orders."""
    return _statistics(_chrf(), hypotheses, references)


def chrf_score(statistics: np.ndarray) -> np.ndarray:
    """chrF++, 0 to 100, of summed `chrf_statistics`; [..., 24] gives [...].

    SacreBLEU's, with beta 2. The score of a corpus is not the mean of the sentences' scores.
    """
    return _scores(_chrf(), statistics)


def bleu_tokenizer(language: Language) -> str:
    """SacreBLEU's tokeniser for a language: `13a`, for Chinese `zh`, for others without spaces between words `char`.

    SacreBLEU's own choices for Japanese and Korean (MeCab) and its `flores200` need packages or downloads, and sdx has
    to work offline. So Korean is split at its spaces, and a figure for Japanese or Thai compares characters: it is far
    higher than one of words, and the tables name the tokeniser.
    """
    if language.script in ("Hans", "Hant"):
        return "zh"
    return "13a" if language.spaces else "char"


def bleu_statistics(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str) -> np.ndarray:
    """[sentence, 10]: length of the hypothesis and of the reference, then n-grams in both and n-grams of the
    hypothesis, for n from 1 to 4."""
    return _statistics(_bleu(tokenizer), hypotheses, references)


def bleu_score(statistics: np.ndarray) -> np.ndarray:
    """BLEU, 0 to 100, of summed `bleu_statistics`; [..., 10] gives [...].

    As sacreBLEU's default has it (`smooth:exp`, NIST's): the first order without a match counts half an n-gram, the
    second a quarter, and so on; if no word matches, or no hypothesis has four words, the score is 0.
    """
    return _scores(_bleu("13a"), statistics)


def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=2)


def _bleu(tokenizer: str) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenizer, force=True)  # `force`: no advice on texts that end in " ."


def _statistics(metric: Any, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    import numpy as np

    return np.array(metric._extract_corpus_statistics(list(hypotheses), [list(references)]))


def _scores(metric: Any, statistics: np.ndarray) -> np.ndarray:
    """[..., k] -> [...]."""
    import numpy as np

    return np.apply_along_axis(lambda row: metric._compute_score_from_stats(row.tolist()).score, -1, statistics)
