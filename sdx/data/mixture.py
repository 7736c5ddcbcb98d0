"""From subsets of (prompt, response) pairs to one training mix."""

import math
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

from sdx.languages import Language


def pair(
    source_id: str,
    subset: str,
    prompt: tuple[str, Language, str],
    response: tuple[str, Language, str],
    variant: str = "",
) -> dict[str, Any]:
    """A training row with its origin.

    Args:
        source_id: the corpus row behind it; the rows of one source share a batch if they can.
        subset: the part of the mix.
        prompt, response: (text, language, origin: corpus, backbone or translator).
        variant: distinguishes rows that have all of these in common.
    """
    return {
        "id": "/".join(filter(None, [source_id, subset, f"{prompt[1].code}-{response[1].code}", variant])),
        "source_id": source_id,
        "subset": subset,
        "prompt": prompt[0],
        "prompt_language": prompt[1].flores,
        "prompt_origin": prompt[2],
        "response": response[0],
        "response_language": response[1].flores,
        "response_origin": response[2],
    }


def draw(key: str) -> float:
    """A number from 0 to 1 that depends on the key alone: a larger share takes the same rows, and more."""
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") / 2**64


def weigh(rows: Iterable[dict[str, Any]], weight: float, seed: int) -> Iterator[dict[str, Any]]:
    """Takes each row `weight` times: 0.5 takes a random half, 2 repeats all, 1.5 repeats a random half.

    Which rows the fraction takes depends on the row's id and the seed alone, so ablations share their rows.
    """
    for row in rows if weight else ():
        times = math.floor(weight) + (draw(f"{seed}/{row['id']}") < weight % 1)
        yield from (row if copy == 0 else {**row, "id": f"{row['id']}#{copy}"} for copy in range(times))


def with_language_hint(prompt: str, language: Language) -> str:
    """The prompt with an answer-language directive in English on a line of its own. Ours."""
    return f"{prompt}\n\nAnswer in {language.name}."
