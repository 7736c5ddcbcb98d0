"""A model's text does nothing to a terminal, and no script loses a character."""

import io
import unicodedata

import pytest

from sdx.cli.command import one_line
from sdx.process.console import Console, plain
from sdx.process.printable import escaped
from sdx.reporting import markdown
from sdx.tracking.content import _table

HOSTILE = "a\x1b[2Jb\x07c\rd\x08e\x00f\u202eg\x9bh\u2028i\ud800"
SHOWN = r"a\x1b[2Jb\x07c\rd\x08e\x00f\u202eg\x9bh\u2028i\ud800"
SCRIPTS = (
    "می\u200cخواهم",
    "ශ්\u200dරී ලංකාව",
    "क्\u200dष",
    "👩\u200d🔬",
    "שלום\u200f!",
    "ไทย",
    "中文　空白",
    "a\tb\nc\r\nd",
    "x\u00a0y\ufeff",
)


def test_what_a_terminal_obeys_is_written_out():
    assert escaped(HOSTILE) == SHOWN
    every = "".join(map(chr, range(0x110000)))
    left = {letter for letter in escaped(every) if unicodedata.category(letter) in ("Cc", "Cs")}
    assert left == {"\t", "\n"}


@pytest.mark.parametrize("text", SCRIPTS)
def test_texts_in_any_script_stay(text: str):
    assert escaped(text) == text


def test_in_markdown_and_on_dashboards():
    assert plain(HOSTILE) == SHOWN.replace("\\", "\\\\")
    sample = {"language": "pt", "id": "1", "instruction": "x\ry", "before": HOSTILE, "after": "क्\u200dष"}
    shown = markdown._sample(sample)
    assert f"> {SHOWN}" in shown
    assert "> x\\ry" in shown
    assert "> क्\u200dष" in shown
    assert _table([{"text": HOSTILE, "n": 1, "texts": ["a", "\x1b"]}]) == [{"text": SHOWN, "n": 1, "texts": "a\n\\x1b"}]


def test_on_the_terminal():
    out = io.StringIO()
    console = Console(file=out, width=100, highlight=False, markup=False)
    console.print(HOSTILE, style="dim")
    assert out.getvalue() == f"{SHOWN}\n"
    assert one_line(f"{HOSTILE}\n[red]") == f"{SHOWN.replace(chr(92) + 'r', ' ')} [red]"
