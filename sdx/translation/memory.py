"""What an engine has translated from one language into another, sentence by sentence, for all runs of a cache.

The directory of a memory has numbered files, and a line of JSON for each sentence: checksum and hash, sentence,
translation. A process appends to the first file that nobody else appends to, as long as it lives. There are thus as
many files as there were writers at once, nothing is ever rewritten, and what others append is found by reading on.
Lines that a kill or a bad disk damaged do not count.

An engine in bf16 or on a GPU may translate a sentence differently in another batch: which of the translations a run
gets then depends on what was translated before.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from itertools import count, groupby
from logging import getLogger
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from sdx.process.disk import writing
from sdx.text.protect import Engine

log = getLogger("sdx")

SUFFIX = ".jsonl"
OFFSET_BITS = 44
"""Of a place, a number of 64 bits: the line's start in its file. The others are the file's number."""
FOLD = 2**16
"""New places that a dict holds, at 150 bytes each, before they go into the sorted arrays, at 16 bytes."""
CHECKED = 10
"""Where the part of a line begins that the checksum is of."""


class Memory:
    """The translations in a directory, which need not exist. RAM holds where each lies, not the texts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own: BinaryIO | None = None
        self._ends: dict[int, int] = {}
        """Number of a file -> how far it was read."""
        self._new: dict[int, int] = {}
        """Hash of a sentence -> its place."""
        import numpy as np

        self._hashes, self._places = np.zeros((2, 1), np.uint64)  # sorted; a sentinel is first
        self._asked = self._known = 0

    def through(self, engine: Engine) -> Engine:
        """The engine with this memory: only unknown sentences reach it, and their translations are kept."""

        def translate(sentences: list[str]) -> list[str]:
            found = self._find(sentences)
            new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in found]
            self._asked, self._known = self._asked + len(sentences), self._known + len(sentences) - len(new)
            if new:
                pairs = list(zip(new, engine(new), strict=True))
                self._append(pairs)
                found.update(pairs)
            return [found[sentence] for sentence in sentences]

        return translate

    def report(self) -> float:
        """Logs how many sentences were known since the last report, and returns their share."""
        share = self._known / self._asked if self._asked else 0.0
        if self._asked:
            log.info("%-12s %s of %s sentences known", "translate", f"{self._known:,}", f"{self._asked:,}")
        self._asked = self._known = 0
        return round(share, 3)

    def _find(self, sentences: Sequence[str]) -> dict[str, str]:
        import numpy as np

        self._read_on()
        hashes = np.fromiter(map(_hash, sentences), np.uint64, len(sentences))
        at = np.searchsorted(self._hashes, hashes, side="right") - 1
        places = self._places[at[self._hashes[at] == hashes]].tolist()
        places += [self._new[hash_] for hash_ in hashes.tolist() if hash_ in self._new]
        found: dict[str, str] = {}
        for number, some in groupby(sorted(places), lambda place: place >> OFFSET_BITS):
            with suppress(FileNotFoundError), self._path(number).open("rb") as file:  # deleted meanwhile
                for place in some:
                    file.seek(place % 2**OFFSET_BITS)
                    if _hash_in(line := file.readline()) is not None:
                        _, sentence, translation = json.loads(b'["' + line[CHECKED:])
                        found[sentence] = translation
        return {sentence: found[sentence] for sentence in sentences if sentence in found}

    def _read_on(self) -> None:
        """Notes the places of the lines that were appended since the last call, by this process or another."""
        for number in [int(path.stem) for path in self._directory.glob(f"*{SUFFIX}") if path.stem.isdecimal()]:
            with suppress(FileNotFoundError), self._path(number).open("rb") as lines:
                end = lines.seek(self._ends.get(number, 0))
                for line in lines:
                    if not line.endswith(b"\n"):  # torn, or not yet written to its end
                        break
                    if (hash_ := _hash_in(line)) is not None:
                        self._new[hash_] = number << OFFSET_BITS | end
                    end += len(line)
                    if len(self._new) == FOLD:
                        self._fold()
                self._ends[number] = end

    def _fold(self) -> None:
        import numpy as np

        hashes = np.concatenate([self._hashes, np.fromiter(self._new.keys(), np.uint64, len(self._new))])
        places = np.concatenate([self._places, np.fromiter(self._new.values(), np.uint64, len(self._new))])
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._places = hashes[order], places[order]
        self._new.clear()

    def _append(self, pairs: Iterable[tuple[str, str]]) -> None:
        if self._own is None:
            self._own = self._open()
        with writing(Path(self._own.name)):
            self._own.write(b"".join(_line(*pair) for pair in pairs))
            self._own.flush()
            os.fsync(self._own.fileno())

    def _open(self) -> BinaryIO:
        """The first file that no living process appends to, locked until this process ends."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for number in count():
            file = self._path(number).open("a+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                file.close()
                continue
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # a kill tore the last line
                    file.write(b"\n")
            return file
        raise AssertionError

    def _path(self, number: int) -> Path:
        return self._directory / f"{number}{SUFFIX}"


@cache
def memory_in(directory: Path) -> Memory:
    """The memory of a directory, whose index is read once per process."""
    return Memory(directory)


def _hash(sentence: str) -> int:
    return int.from_bytes(blake2b(sentence.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def _line(sentence: str, translation: str) -> bytes:
    texts = json.dumps([f"{_hash(sentence):016x}", sentence, translation], ensure_ascii=False)
    checked = f"{texts[2:]}\n".encode(errors="surrogatepass")
    return f'["{crc32(checked):08x}'.encode() + checked


def _hash_in(line: bytes) -> int | None:
    """The sentence's hash in a line; None if the line is torn or damaged."""
    try:
        return int(line[CHECKED:26], 16) if int(line[2:CHECKED], 16) == crc32(line[CHECKED:]) else None
    except ValueError:
        return None
