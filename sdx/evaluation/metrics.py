"""chrF++ and BLEU of free answers and translations against a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdx.languages import Language

if TYPE_CHECKING:
    import numpy as np

CHRF_ORDERS = 8
"""Characters 1 to 6, words 1 and 2."""
BLEU_ORDERS = 4


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
    from sacrebleu.metrics import CHRF

    return _scored(CHRF(word_order=2), statistics)


def bleu_tokenizer(language: Language) -> str:
    """SacreBLEU's tokeniser for a language: `13a`, for Chinese `zh`, for others without spaces between words `char`.

    SacreBLEU's own choices for Japanese and Korean (MeCab) and its `flores200` need packages or downloads, and this has
    to work offline. So Korean is split at its spaces, and a figure for Japanese or Thai compares characters: it is
    far higher than one of words, and the tables name the tokeniser.
    """
    if language.script in ("Hans", "Hant"):
        return "zh"
    return "13a" if language.spaces else "char"


def bleu_statistics(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str) -> np.ndarray:
    """[sentence, 10]: length of the hypothesis and of the reference, then n-grams in both and n-grams of the
    hypothesis, for n from 1 to 4."""
    import numpy as np
    from sacrebleu.metrics import BLEU

    if len(hypotheses) != len(references) or not references:
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references; BLEU pairs them")
    # Internal, as for chrF++. `force`: no advice on texts that end in " .".
    bleu = BLEU(tokenize=tokenizer, force=True)
    return np.array(bleu._extract_corpus_statistics(list(hypotheses), [list(references)]))


def bleu_score(statistics: np.ndarray) -> np.ndarray:
    """BLEU, 0 to 100, of summed `bleu_statistics`; [..., 10] gives [...].

    As sacreBLEU's default has it (`smooth:exp`, NIST's): the first order without a match counts half an n-gram, the
    second a quarter, and so on; where no word matches, or no hypothesis has four words, the score is 0.
    """
    from sacrebleu.metrics import BLEU

    return _scored(BLEU(force=True), statistics)


def _scored(metric: Any, statistics: np.ndarray) -> np.ndarray:
    """[..., k] -> [...]: sacreBLEU's score of summed statistics; internal, as there is no other way to resample."""
    import numpy as np

    rows = statistics.reshape(-1, statistics.shape[-1]).tolist()
    scores = [metric._compute_score_from_stats(row).score for row in rows]
    return np.array(scores).reshape(statistics.shape[:-1])
