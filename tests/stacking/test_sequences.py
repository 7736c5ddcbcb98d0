"""Sequences of texts: the tokens of each text, their characters, and what is cut."""

from pathlib import Path

import pytest

from sdx.languages import language
from sdx.stacking.encoder_languages import encoder_tokenizer
from sdx.stacking.sequences import SequenceTokenizer, llm_tokenizer, truncated_sizes
from tests.kit.tiny import tiny_encoder, tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SequenceTokenizer:
    return encoder_tokenizer(tiny_encoder(tmp_path_factory.mktemp("bert"), "bert"), "", language("th"))


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
    assert sorted(truncated_sizes(sizes, room)) == sorted(expected)
    assert [size == 0 for size in truncated_sizes(sizes, room)] == [size == 0 for size in sizes]


def test_a_row_alone_and_among_others(tokenizer: SequenceTokenizer):
    rows = [("a premise", "b"), ("ค",), ("one", "two", "three"), ("",)]
    together = tokenizer.encode(rows, 64)
    assert [tokenizer.encode([row], 64)[0] for row in rows] == together
    assert [len(encoded.spans) for encoded in together] == [2, 1, 3, 1]
    assert together[3].ids == [*tokenizer.before, *tokenizer.after]
    assert tokenizer.encode([], 64) == []


def test_offsets_are_the_characters_of_each_text(tokenizer: SequenceTokenizer):
    texts = ("ab cd", "ก é")
    [encoded] = tokenizer.encode([texts], 64)
    for text, (start, end), places in zip(texts, encoded.spans, encoded.offsets, strict=True):
        tokens = tokenizer.tokenizer.convert_ids_to_tokens(encoded.ids[start:end])
        assert len(places) == len(tokens)
        for token, (first, last) in zip(tokens, places, strict=True):
            assert text[first:last].replace(" ", "▁") in (token, "", token.strip("▁")) or token == "▁"
        assert places[-1][1] == len(text)


def test_truncation_takes_the_ends_of_the_longest(tokenizer: SequenceTokenizer):
    row = ("a" * 50, "bcd")
    [encoded] = tokenizer.encode([row], 20)
    assert len(encoded.ids) == 20
    (_, first), (start, end) = encoded.spans
    assert encoded.ids[: len(tokenizer.before)] == tokenizer.before
    assert encoded.ids[first:start] == tokenizer.between
    assert encoded.ids[end:] == tokenizer.after
    assert end - start == 4  # all of `▁bcd`
    assert [len(places) for places in encoded.offsets] == [last - begin for begin, last in encoded.spans]


@pytest.mark.parametrize("chat", [True, False])
def test_llm_segments(chat: bool):
    tokenizer = tiny_tokenizer(chat)
    sequences = llm_tokenizer(tokenizer)
    assert sequences.before == ([] if chat else [tokenizer.bos_token_id])
    assert sequences.after == []
    pair, one = sequences.encode([("How many?", "Four."), ("How many?",)], 64)
    assert tokenizer.decode(pair.ids[len(sequences.before) :]) == "How many?\nFour."
    assert one.ids == tokenizer("How many?").input_ids
    assert tokenizer.decode(sequences.between) == "\n"


def test_the_line_break_of_a_sentencepiece_llm(tmp_path: Path):
    """Llama 2's tokenizer puts `▁` in front of a line break that stands alone."""
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: id_ for id_, token in enumerate(("<unk>", "<s>", "▁", "a", "\n"))}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = llm_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>"))
    assert tokenizer.tokenizer("\n").input_ids == [2, 4]
    assert (tokenizer.before, tokenizer.between, tokenizer.after) == ([], [4], [])
