"""Rows of labelled data to learn from: none twice, none that is in the test, in the order of a hash of their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.languages import Language
from sdx.tasks.labelled_files import Files, Record

log = getLogger("sdx")

Texts = tuple[str, ...]


def learnable(
    files: Files,
    directory: Path,
    language: Language,
    example: Callable[[Record], Mapping[str, Any] | str],
    asked: Callable[[Mapping[str, Any]], Texts],
    taken: Mapping[str, set[bytes]],
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Rows with their ids, and how many were left out by reason.

    Args:
        directory: the output of `files.step` for `language`.
        example: a row, or under what it is counted where it cannot be used.
        asked: the texts of a row, by which it is known again.
        taken: reason -> `digest` of texts that are left out for it.

    Raises:
        InputError: an id twice; more than half of the rows cannot be used; none is left.
    """
    left_out = Counter(dict.fromkeys((*taken, "dropped", "repeated"), 0))
    count = 0
    seen: set[bytes] = set()
    ids: set[str] = set()
    kept: list[dict[str, Any]] = []
    where = files.opened(language)
    for id_, record in files.records(directory, language):
        count += 1
        if id_ in ids:
            raise InputError(
                f"{record.place} has the id {id_} again; name another column as {files.key}.columns.id=..., or have "
                f"the rows numbered with ~{files.key}.columns.id"
            )
        ids.add(id_)
        row = example(record)
        if isinstance(row, str):
            left_out[row] += 1
            continue
        texts = digest(asked(row))
        reason = next((reason for reason, known in taken.items() if texts in known), None)
        if reason or texts in seen:
            left_out[reason or "repeated"] += 1
            continue
        seen.add(texts)
        kept.append({"id": id_, **row})
    reasons = ", ".join(f"{name} {number}" for name, number in left_out.items() if number)
    if not count:
        raise InputError(f"{where} has no rows; give the benchmark's own data")
    unfit = count - len(kept) - sum(left_out[name] for name in (*taken, "repeated"))
    if 2 * unfit > count or not kept:
        raise InputError(
            f"{where}: of {count} rows {len(kept)} are left ({reasons}); name the right columns as "
            f"{files.key}.columns.NAME=..., or give another file"
        )
    kept.sort(key=lambda row: sha256(row["id"].encode()).digest())
    return kept, left_out


def warn_of_absent(where: str, labels: Sequence[str], seen: Iterable[int]) -> None:
    """Says which labels no row of a file has."""
    there = set(seen)
    if absent := [label for number, label in enumerate(labels) if number not in there]:
        log.warning("%-12s %s has no row with the label %s", "labels", where, " or ".join(absent))


def digest(texts: Texts) -> bytes:
    """Of texts without their case and their spaces: half a million of them take little memory."""
    return sha256("\n".join(" ".join(text.casefold().split()) for text in texts).encode()).digest()
