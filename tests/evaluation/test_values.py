"""Values of items: their scores, their differences, and what counts as a value when read from a file."""

from typing import Any

import pytest

from sdx.evaluation.metrics import corpus_statistics
from sdx.evaluation.values import SHARES, Value, are_values, decided, difference, estimate

REFERENCES = ["the cat sleeps on the mat", "a dog barks at the moon", "it rains all day long"]
CLOSE = ["the cat sleeps on a mat", "a dog barks at the moon", "it rains"]
FAR = ["a mat", "the moon and the dog", "it is dry"]


@pytest.mark.parametrize("metric", [*SHARES, "exact match (MKQA)"])
def test_shares(metric: str):
    one: list[Value] = [True, False, False, False]
    other: list[Value] = [True, True, True, False]
    assert (estimate(metric, one).value, estimate(metric, other).value) == (25, 75)
    assert difference(metric, one, other).value == 50


def test_a_metric_of_the_harness_is_what_its_values_are():
    right: list[Value] = [True, False, False, False]
    half: list[Value] = [0.5, 0.0, 0.0, 0.0]
    assert estimate("acc", right) == estimate("accuracy", right)
    assert estimate("em", half) == estimate("F1", half)
    assert difference("em", right, half) == difference("F1", right, half)


@pytest.mark.parametrize("metric", ["F1", "F1 (MLQA)", "ROUGE-L"])
def test_means(metric: str):
    one: list[Value] = [0.0, 0.5, 1, 0.1]
    other: list[Value] = [0.5, 0.5, 1.0, 1.0]
    found = estimate(metric, one)
    assert (found.value, found.n) == (pytest.approx(40), 4)
    assert found.low < found.value < found.high
    assert difference(metric, one, other).value == pytest.approx(35)
    assert difference(metric, one, one).value == 0


def test_corpora():
    values: dict[str, list[Any]] = {
        "chrF++": [corpus_statistics("chrF++", texts, REFERENCES).tolist() for texts in (FAR, CLOSE)],
        "BLEU": [corpus_statistics("BLEU", texts, REFERENCES).tolist() for texts in (FAR, CLOSE)],
        "BLEU (char)": [corpus_statistics("BLEU", texts, REFERENCES, "char").tolist() for texts in (FAR, CLOSE)],
    }
    for metric, (far, close) in values.items():
        assert are_values(metric, far)
        gap = difference(metric, far, close)
        assert gap.value == pytest.approx(estimate(metric, close).value - estimate(metric, far).value)
        assert gap.value > 0


def test_the_undecided_are_left_out_of_all():
    assert decided("abc", [True, None, False], [None, True, True]) == (["c"], [[False], [True]])
    assert decided("ab", [None, True]) == (["b"], [[True]])
    assert decided("a", [None], [True]) == decided([], []) == ([], [])


@pytest.mark.parametrize(
    ("metric", "values", "fits"),
    [
        ("accuracy", [True, False, None], True),
        ("accuracy", [1, 0], False),
        ("answer language", ["true"], False),
        ("F1", [0, 0.5, 1.0], True),
        ("F1", [1.5], False),
        ("F1 (MLQA)", [0, 0.5, 1.0], True),
        ("F1 (MKQA)", [1.5], False),
        ("exact match (SQuAD)", [True, False], True),
        ("exact match (SQuAD)", [0.5], False),
        ("ROUGE-L", [float("nan")], False),
        ("ROUGE-L", [None], False),
        ("chrF++", [[0] * 24], True),
        ("chrF++", [[0] * 10], False),
        ("BLEU (zh)", [[0] * 10], True),
        ("BLEU", [[0.5] * 10], False),
        ("BLEU", [[10**30] * 10], False),
        ("BLEU", 3, False),
        ("acc of the harness", [True, False, None], True),
        ("f1 of the harness", [0.25, 1, None], True),
        ("f1 of the harness", [2.5], False),
        ("another", ["true"], False),
    ],
)
def test_what_is_read_is_checked(metric: str, values: Any, fits: bool):
    assert are_values(metric, values) is fits
