"""Code-switching: which words change, in which form, and that nothing else does."""

import time
from collections.abc import Mapping, Sequence

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sdx.data.code_switching import LONGEST_GRAPHEMES, LONGEST_WORDS, code_switch, code_switch_rows
from sdx.data.dictionary_formats import fold
from sdx.languages import language
from sdx.text.protect import blank, blanks
from sdx.text.segment import find_sentences

PT, TR, DE, TH, ZH, AR, HE, KA = map(language, ("pt", "tr", "de", "th", "zh", "ar", "he", "ka"))
ENGLISH = {
    "dog": ["cão"],
    "house": ["casa"],
    "ice": ["gelo"],
    "ice cream": ["sorvete"],
    "don't": ["não"],
    "e-mail": ["correio"],
    "café": ["cafeteria"],
    "word": ["palavra"],
    "a": ["um"],
    "import": ["importar"],
    "radio": ["radio"],
    "log": ["registo"],
    "\u5b66\u6821": ["escola"],
    "โรงเรียน": ["escola"],
    "แมว": ["gato"],
    "猫": ["gato"],
    "שלום": ["olá"],
    "سلام": ["olá"],
    "नमस्ते": ["olá"],
    "e\u0301t": ["verão"],
}
DICTIONARY = {fold(word): translations for word, translations in ENGLISH.items()}

# fmt: off
TOKENS = [
    *ENGLISH, "Dog", "DOG", "Dogs", "dog's", "dog’s", "ICE CREAM", "Ice cream", "don", "t", "x", "Word",
    "```", "```\n", "`", "``", "$", "$$", "<", ">", "<b>", "</b>", "<!--", "-->", "{", "}", "{dog}", "%s", "[", "](",
    ")",
    "http://", "www.", "a@b.co", "@dog", "#", "- ", "*", "**", "_", "__", "|", "1.", "3.14", "1", "2nd", "=", "+", ".",
    "...", "。", "\n", "\n\n", "\x1c", "!", "?", "।", "ไทย", "ตา", "你好", "のー", "か\u3099", "ｶﾞ", "בית", "بيت", "न",
    "😀", "👍🏽", "👩\u200d💻", "❤\ufe0f", "\u0301", "\u200d", "\u200c", "\u200f", "\ud800", "\ue000", "\x00", "\u2028",
    "\u00a0", "\r", "\r\n", "\t", "-", "'", "’", "/", "·",
]
# fmt: on
texts = st.one_of(st.text(max_size=200), st.lists(st.sampled_from([*TOKENS, " ", " ", "\n"]), max_size=60).map("".join))
ratios = st.floats(0, 1)
targets = st.sampled_from([PT, TR, DE, TH, ZH, AR])
MARK = "⟦⟧"


class Marking(Mapping[str, Sequence[str]]):
    """`DICTIONARY` with translations that no text contains and that show the word."""

    def __getitem__(self, key: str) -> list[str]:
        if key not in DICTIONARY:
            raise KeyError(key)
        return [f"{MARK[0]}{key}{MARK[1]}"]

    def __iter__(self):
        return iter(DICTIONARY)

    def __len__(self) -> int:
        return len(DICTIONARY)


def marked(text: str, ratio: float, seed: str = "1") -> list[str]:
    """The text cut at the replacements: kept, replaced word (folded), kept, ..."""
    switched, count = code_switch(text, Marking(), ratio, seed, PT)
    parts = regex.split(rf"{MARK[0]}([^{MARK}]*){MARK[1]}", switched)
    assert len(parts) == 2 * count + 1
    return [fold(part) if number % 2 else part for number, part in enumerate(parts)]


def replaced(text: str, parts: list[str]) -> list[tuple[int, int]]:
    """The spans of the replaced words in `text`; fails if anything between them was changed."""
    spans, position = [], 0
    for kept, word in zip(parts[::2], [*parts[1::2], None], strict=True):
        assert text.startswith(kept, position)
        position += len(kept)
        if word is not None:
            longest = min(len(text), position + 3 * len(word) + 3)
            end = max(end for end in range(position + 1, longest + 1) if fold(text[position:end]) == word)
            spans.append((position, end))
            position = end
    assert position == len(text)
    return spans


def switch(text: str, target=PT, dictionary: Mapping[str, Sequence[str]] = DICTIONARY) -> str:
    return code_switch(text, dictionary, 1.0, "1", target)[0]


@given(texts, ratios, targets)
@settings(max_examples=100, deadline=None)
def test_without_a_ratio_or_a_dictionary_nothing_changes(text: str, ratio: float, target) -> None:
    assert code_switch(text, DICTIONARY, 0.0, "1", target) == (text, 0)
    assert code_switch(text, {}, ratio, "1", target) == (text, 0)


@given(texts, ratios)
@example("ｶﾞ猫", 1.0)
@example("猫\u0301 猫", 1.0)
@example("dog\u200d💻 dog", 1.0)
@settings(max_examples=400, deadline=None)
def test_all_but_whole_known_words_is_kept_byte_for_byte(text: str, ratio: float) -> None:
    spans = replaced(text, marked(text, ratio))
    edges = {0, *(grapheme.end() for grapheme in regex.finditer(r"\X", text))}
    for start, end in spans:
        assert {start, end} <= edges
        assert not regex.search(r"[\p{N}_]", text[start:end])


@given(texts)
@settings(max_examples=300, deadline=None)
def test_protected_spans_and_what_is_not_prose_survive(text: str) -> None:
    spans = replaced(text, marked(text, 1.0))
    sentences, kept = find_sentences(text), blanks(blank(text))
    for start, end in spans:
        assert any(left <= start and end <= right for left, right in sentences)
        assert all(end <= left or right <= start for left, right in kept)


@given(texts, ratios, st.text(max_size=3))
@settings(max_examples=200, deadline=None)
def test_the_number_of_words_follows_the_ratio_and_more_takes_the_same(text: str, ratio: float, seed: str) -> None:
    known = replaced(text, marked(text, 1.0, seed))
    some = replaced(text, marked(text, ratio, seed))
    assert set(some) <= set(known)
    if ratio and known:
        assert len(some) == max(1, round(ratio * len(known)))
    assert code_switch(text, DICTIONARY, ratio, seed, PT) == code_switch(text, dict(DICTIONARY), ratio, seed, PT)


@given(st.lists(st.sampled_from(["dog", "house", "Word", "DOG", "other", "x1", "naïve", ",", ".", "(", '"', "—"])))
def test_the_inverse_dictionary_restores_the_text(words: list[str]) -> None:
    there = {"dog": ["cão"], "house": ["casa"], "word": ["palavra"]}
    back = {"cão": ["dog"], "casa": ["house"], "palavra": ["word"]}
    text = "  ".join(words)
    assert switch(switch(text, dictionary=there), dictionary=back) == text


@pytest.mark.parametrize(
    ("text", "switched"),
    [
        ("The dog, the Dog; THE DOG!", "The cão, the Cão; THE CÃO!"),
        ("I like ice cream, and ice.", "I like sorvete, and gelo."),
        ("Ice cream or ICE  CREAM?", "Sorvete or GELO  CREAM?"),
        ("I don't and I don’t, but don t.", "I não and I não, but don t."),
        ("The dog's e-mail-like e-mail", "The dog's e-mail-like correio"),
        ("**dog** <b>dog</b> (dog) _dog_", "**cão** <b>cão</b> (cão) _cão_"),
        ("Cafe\u0301 and café", "Cafeteria and cafeteria"),
        ("dog2 and dog_house, 2dog", "dog2 and dog_house, 2dog"),
        ("radio", "radio"),
        ("the .log of a.log, log.", "the .log of a.log, registo."),
        ("Run `dog` at http://dog.org/dog for {dog} 🐕dog", "Run `dog` at http://dog.org/dog for {dog} 🐕cão"),
        ("# The dog\n\n- a dog\n```\ndog = 1\n```\n\tdog\r\n", "# The cão\n\n- um cão\n```\ndog = 1\n```\n\tcão\r\n"),
        ("import dog\nThe import is a dog.", "import dog\nThe importar is um cão."),
        ("שלום, سلام؟ नमस्ते।", "olá, olá؟ olá।"),
    ],
)
def test_examples(text: str, switched: str) -> None:
    assert switch(text) == switched


@pytest.mark.parametrize(
    ("text", "switched"),
    [
        # Longest match; unknown words, and a lone sign among others, stay.
        ("แมวไปโรงเรียน", "gato ไป escola"),
        ("我的学校。", "我的 escola。"),
        ("猫在学校, 猫", "猫在 escola, gato"),
        ("โรงเรียนแมว", "escola gato"),
        ("(แมว) 12แมว", "(gato) 12 gato"),
    ],
)
def test_scripts_without_spaces_are_matched_and_spaced(text: str, switched: str) -> None:
    assert switch(text) == switched


@pytest.mark.parametrize(
    ("text", "dictionary", "target", "switched"),
    [
        ("The cat sat.", {"cat": ["แมว"]}, TH, "The แมว sat."),
        ("THE CAT, Cat", {"cat": ["قطة"]}, AR, "THE قطة, قطة"),
        ("学校と猫", {"学校": ["學校"]}, language("zho_Hant"), "學校と猫"),
        ("A house. HOUSE", {"house": ["Haus"], "a": ["ein"]}, DE, "Ein Haus. HAUS"),
        ("the house", {"house": ["Haus"]}, DE, "the Haus"),
        ("STREET", {"street": ["Straße"]}, DE, "STRASSE"),
        ("Work WORK work", {"work": ["iş"]}, TR, "İş İŞ iş"),
        ("LIGHT", {"light": ["ışık"]}, TR, "IŞIK"),
        ("CAT Cat", {"cat": ["კატა"]}, KA, "კატა კატა"),
        ("iPod McDog", {"ipod": ["ipode"], "mcdog": ["mccão"]}, PT, "ipode Mccão"),
    ],
)
def test_capitals_and_scripts_of_the_target(text: str, dictionary, target, switched: str) -> None:
    assert switch(text, target, dictionary) == switched


@given(texts, ratios, targets)
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_switched_into_any_target(text: str, ratio: float, target) -> None:
    dictionary = {word: ["ñandú iß"] for word in DICTIONARY}
    switched, count = code_switch(text, dictionary, ratio, "1", target)
    assert (switched == text) == (count == 0)


@pytest.mark.parametrize(
    "token",
    [
        *(
            "dog ",
            "dog",
            "ice cream ",
            "the dog's house. ",
            "แมว",
            "猫",
            "学",
            "ไปไหน",
            "שלום ",
            "a-",
            "`",
            "$",
            "<b>dog",
        ),
        *("\n", "http://", "👩\u200d💻", "e\u0301", "🐕dog", "```\n", "dog\n", "_", "."),
    ],
)
def test_a_hundred_kilobytes_take_linear_time(token: str) -> None:
    text = token * (100_000 // len(token.encode()))
    start_s = time.process_time()
    code_switch(text, DICTIONARY, 0.5, "1", PT)
    assert time.process_time() - start_s < 4


def test_rows_are_picked_by_id_and_seed_and_returned_only_when_changed() -> None:
    rows = [{"id": f"r{number}", "text": f"The dog {number}.", "answer": "dog"} for number in range(400)]
    rows.append({"id": "none", "text": "Nothing known.", "answer": ""})

    def ids(ratio: float, seed: str) -> set[str]:
        return {row["id"] for row in code_switch_rows(rows, "text", DICTIONARY, ratio, 0.5, seed, PT)}

    everything = [*code_switch_rows(rows, "text", DICTIONARY, 1.0, 0.5, "1", PT)]
    assert [row["id"] for row in everything] == [row["id"] for row in rows[:-1]]
    assert everything[3] == {"id": "r3", "text": "The cão 3.", "answer": "dog", "switched_words": 1}
    assert rows[3]["text"] == "The dog 3."
    assert 80 < len(ids(0.25, "1")) < 120
    assert ids(0.25, "1") < ids(0.5, "1")
    assert ids(0.25, "1") != ids(0.25, "2")
    assert [*code_switch_rows(rows[::-1], "text", DICTIONARY, 1.0, 0.5, "1", PT)] == everything[::-1]
    assert not ids(0.0, "1")


def test_the_seed_chooses_the_words() -> None:
    text = "dog house word " * 5
    assert len({code_switch(text, DICTIONARY, 0.3, str(seed), PT)[0] for seed in range(10)}) > 5
    assert code_switch("dog " * 100, DICTIONARY, 0.3, "1", PT)[1] == 30
    assert code_switch("dog " * 100, DICTIONARY, 0.001, "1", PT)[1] == 1


def test_entries_longer_than_the_limits_are_not_looked_for() -> None:
    words = " ".join(["dog"] * (LONGEST_WORDS + 1))
    signs = "แมว" * LONGEST_GRAPHEMES
    assert switch(words, dictionary={words: ["x"]}) == words
    assert switch(signs, dictionary={signs: ["x"]}) == signs
