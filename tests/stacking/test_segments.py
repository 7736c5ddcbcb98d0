"""Sequences of texts: places of each text's tokens, the characters behind them, and what is cut."""

from pathlib import Path

import pytest

from sdx.languages import language
from sdx.stacking.encoder_languages import encoder_segments
from sdx.stacking.segments import Segments, fitted, llm_segments
from tests.kit.tiny import tiny_encoder, tiny_tokenizer


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Segments:
    return encoder_segments(tiny_encoder(tmp_path_factory.mktemp("bert"), "bert"), "", language("th"))


@pytest.mark.parametrize(
    ("sizes", "room", "expected"),
    [
        ([5, 3], 8, [5, 3]),
        ([9, 3], 8, [5, 3]),
        ([9, 9], 8, [4, 4]),
        ([9, 0, 9], 9, [4, 0, 5]),
        ([100, 1, 1, 1], 10, [7, 1, 1, 1]),
        ([4, 4], 0, [1, 1]),
        ([4, 4], -5, [1, 1]),
        ([], 5, []),
    ],
)
def test_the_longest_are_cut(sizes: list[int], room: int, expected: list[int]):
    assert sorted(fitted(sizes, room)) == sorted(expected)
    assert [size == 0 for size in fitted(sizes, room)] == [size == 0 for size in sizes]


def test_a_row_alone_and_among_others(segments: Segments):
    rows = [("a premise", "b"), ("ค",), ("one", "two", "three"), ("",)]
    together = segments.encode(rows, 64)
    assert [segments.encode([row], 64)[0] for row in rows] == together
    assert [len(encoded.spans) for encoded in together] == [2, 1, 3, 1]
    assert together[3].ids == [*segments.before, *segments.after]
    assert segments.encode([], 64) == []


def test_offsets_are_the_characters_of_each_text(segments: Segments):
    texts = ("ab cd", "ก é")
    assert segments.has_offsets
    [encoded] = segments.encode([texts], 64)
    for text, (start, end), places in zip(texts, encoded.spans, encoded.offsets, strict=True):
        tokens = segments.tokenizer.convert_ids_to_tokens(encoded.ids[start:end])
        assert len(places) == len(tokens)
        for token, (first, last) in zip(tokens, places, strict=True):
            assert text[first:last].replace(" ", "▁") in (token, "", token.strip("▁")) or token == "▁"
        assert places[-1][1] == len(text)


def test_truncation_takes_the_ends_of_the_longest(segments: Segments):
    row = ("a" * 50, "bcd")
    [encoded] = segments.encode([row], 20)
    assert len(encoded.ids) == 20
    (_, first), (start, end) = encoded.spans
    assert encoded.ids[: len(segments.before)] == segments.before
    assert encoded.ids[first:start] == segments.between
    assert encoded.ids[end:] == segments.after
    assert end - start == 4  # all of `▁bcd`
    assert [len(places) for places in encoded.offsets] == [last - begin for begin, last in encoded.spans]


@pytest.mark.parametrize("chat", [True, False])
def test_llm_segments(chat: bool):
    tokenizer = tiny_tokenizer(chat)
    segments = llm_segments(tokenizer)
    assert segments.before == ([] if chat else [tokenizer.bos_token_id])
    assert segments.after == []
    pair, one = segments.encode([("How many?", "Four."), ("How many?",)], 64)
    assert tokenizer.decode(pair.ids[len(segments.before) :]) == "How many?\nFour."
    assert one.ids == tokenizer("How many?").input_ids
    assert tokenizer.decode(segments.between) == "\n"


def test_the_line_break_of_a_sentencepiece_llm(tmp_path: Path):
    """Llama 2's tokenizer puts `▁` in front of a line break that stands alone."""
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: id_ for id_, token in enumerate(("<unk>", "<s>", "▁", "a", "\n"))}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    segments = llm_segments(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>"))
    assert segments.tokenizer("\n").input_ids == [2, 4]
    assert (segments.before, segments.between, segments.after) == ([], [4], [])
