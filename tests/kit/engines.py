"""Texts, spans and engines to try the splitter with."""

from hypothesis import strategies as st

from sdx.text.protect import Engine, cut
from sdx.text.segment import find_sentences, translate_texts

# Whatever the splitter looks at, in any order, besides arbitrary Unicode.
# fmt: off
MARKUP = [
    "```", "```\n", "~~~", "`", "``", "$", "$$", "\\[", "\\]", "\\(", "\\begin{a}",
    "\\end{a}", "<", ">", "<b>", "</b>", "<br>", "<!--", "-->", "<pre>", "{", "}", "{x}",
    "{{", "%s", "%(a)s", "[", "](", ")", "http://", "www.", "a@b.co", "@a", "#", "- ", "*",
    "**", "_", "__", "~~", "|", "1.", "2)", "Dr.", "1", "3.14", "1,000", "$5", "X1", "=",
    "+", ".", "...", "。", "\n", "\x1c",
]
TOKENS = [
    *MARKUP, "!", "?", "…", "」", "।", "؟", "۔", "။", "។", "a", "Word", "word.", "Olá", "né",
    "e.g.", "U.S.", "שלום", "سلام", "ไทย", "你好", "नमस्ते", "😀", "👍🏽", "❤️", "e\u0301",
    "\ud800", "\ue000", "\x00", "\x1f", "\u2028", "\u00a0", "\r", "\r\n", "\t", "X2", "def",
    "if", "import",
]
# fmt: on
texts = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from([*TOKENS, " ", " ", "\n"]), max_size=60).map("".join),
)


def identity(sentences: list[str]) -> list[str]:
    return list(sentences)


def upper(sentences: list[str]) -> list[str]:
    return [sentence.upper() for sentence in sentences]


def backwards(sentences: list[str]) -> list[str]:
    """Destroys every placeholder, so that all protection falls to cutting."""
    return [sentence[::-1] for sentence in sentences]


def sentences_of(text: str) -> list[str]:
    return cut(text, find_sentences(text))[1::2]


def translate_text(text: str, engine: Engine) -> str:
    return translate_texts([text], engine)[0]


SPANS = (
    "`some code`",
    "``a ` b``",
    "$x_1 + y$",
    "\\(a b\\)",
    "<em>",
    "</em>",
    "<a href='u v'>",
    "&nbsp;",
    "https://a.org/b_(c)?d=e#f",
    "www.some.net",
    "a.person@mail.example.com",
    "{name}",
    "{{ name }}",
    "%s",
    "%(count)d",
    "snake_case",
    "main.py",
    "run()",
    "/usr/local/bin",
    "@somebody",
    "#topic",
    "😀",
    "1,234.5",
    "2021",
)
