"""The arithmetic of batches, worked by hand; no GPU is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdx.config import ShapeConfig
from sdx.models.batches import QUESTIONS, READ_TOKENS, ROWS, Most, RowBytes, cut, room_bytes

GIB = 2**30
LLAMA2_7B = ShapeConfig(6_738_415_616, 32, 4096, 11008, 4096, 32000)
NLLB_600M = ShapeConfig(615_073_792, 12, 1024, 4096, 1024, 256_206)
WEIGHTS = 2 * LLAMA2_7B.parameters


def test_llama2_7b_at_2560_tokens():
    of = RowBytes(LLAMA2_7B, 2)
    assert of.cached == 2 * (2 * 32 * 4096 + 2 * 4096) == 528 * 1024
    assert of.read == 2 * (3 * 11008 + 6 * 4096) == 112.5 * 1024
    longest = 2560 * 528 * 1024 + 2432 * 112.5 * 1024 + 5 * 2432**2 + 6 * 32000
    assert of.completed(2432, 128) == longest
    rows = {gib: room_bytes(gib * GIB, WEIGHTS) // longest for gib in (24, 40, 80, 141)}
    assert rows == {24: 4, 40: 13, 80: 35, 141: 68}
    assert room_bytes(80 * GIB, WEIGHTS) // of.completed(100, 128) > 256
    assert RowBytes(LLAMA2_7B, 4).completed(2432, 128) == pytest.approx(2 * longest, rel=5e-3)


def test_a_sentence_that_beam_search_translates():
    of = RowBytes(NLLB_600M, 2)
    cached, read = 2 * (2 * 12 * 1024 + 2 * 1024), 2 * (3 * 4096 + 6 * 1024)
    sentence = of.translated(30, 128, beams=4)
    assert sentence == 4 * 158 * cached + 4 * 18 * 256_206 + 30 * read
    assert room_bytes(24 * GIB, 2 * NLLB_600M.parameters) // sentence == 388
    assert of.translated(30, 128, beams=1) < sentence / 3


def test_a_question_whose_longer_answers_each_copy_its_cache():
    of = RowBytes(LLAMA2_7B, 2)
    assert of.scored(500, [1, 1, 1, 1]) == 500 * of.read + 6 * 32000  # letters: no cache is kept
    tokens = 2 * 9
    both = (3 * 500 + tokens) * of.cached + (500 + tokens) * of.read + 2 * tokens * 32000 + 6 * 32000
    assert of.scored(500, [1, 5, 9]) == both


def test_the_largest_batch_by_device_and_by_user():
    assert (ROWS.on(False), ROWS.on(True), ROWS.on(True, 7), ROWS.on(False, 7)) == (32, 256, 7, 7)
    assert (QUESTIONS.on(False), READ_TOKENS.on(False)) == (8, 2048)
    assert Most(1, 2).on(True) == 2


@given(st.lists(st.integers(0, 600), max_size=40), st.integers(0, 2000), st.integers(1, 9))
def test_cut(sizes: list[int], room: int, most: int):
    batches = [sizes[some] for some in cut(sizes, room, most)]
    assert [size for batch in batches for size in batch] == sizes
    for batch, after in zip(batches, [*batches[1:], None], strict=False):
        assert 0 < len(batch) <= most
        assert len(batch) == 1 or len(batch) * max(batch) <= room
        if after:  # as many as there can be
            more = [*batch, after[0]]
            assert len(more) > most or len(more) * max(more) > room
