"""Weights of subsets, provenance of rows, language hints."""

import pytest

from sdx.data.mixture import pair, weigh, with_language_hint
from sdx.languages import language

ROWS = [{"id": str(n)} for n in range(1000)]


@pytest.mark.parametrize(("weight", "low", "high"), [(0, 0, 0), (1, 1000, 1000), (2, 2000, 2000), (0.5, 450, 550)])
def test_weight_is_the_expected_number_of_times_each_row_is_taken(weight: float, low: int, high: int):
    taken = [*weigh(ROWS, weight, seed=1)]
    assert low <= len(taken) <= high
    assert len({row["id"] for row in taken}) == len(taken)


def test_fractions_are_nested_so_that_ablations_share_their_rows():
    small, large = ({row["id"] for row in weigh(ROWS, weight, seed=1)} for weight in (0.2, 0.6))
    assert small < large
    assert small != {row["id"] for row in weigh(ROWS, 0.2, seed=2)}


def test_a_pair_has_its_origin():
    en, th = language("en"), language("th")
    row = pair("q1", "lt", ("Why?", en, "corpus"), ("เพราะ", th, "nllb"))
    assert row["id"] == "q1/lt/en-th"
    assert (row["prompt_origin"], row["response_origin"]) == ("corpus", "nllb")
    assert (row["prompt_language"], row["response_language"]) == ("eng_Latn", "tha_Thai")
    assert with_language_hint(row["prompt"], th) == "Why?\n\nAnswer in Thai."
