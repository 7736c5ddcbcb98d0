"""The instruction corpus: rows of `{"id", "instruction", "answer"}` in the source language, split once.

The held-out rows are the same for every method, so that they are never trained on by any of them.
"""

import json
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from sdx.artifacts import Step, Workspace, write_rows
from sdx.config import CorpusConfig, InputError, ScaleConfig

SEED_CORPUS = Path(__file__).with_name("seed_instructions.jsonl")


def corpus_file(config: CorpusConfig) -> Path:
    """The file to read: the user's, or the corpus shipped with sdx."""
    if config.path is None:
        return SEED_CORPUS
    path = Path(config.path).expanduser()
    if not path.is_file():
        raise InputError(f"corpus.path={config.path}: there is no such file; give a JSONL file, one row a line")
    return path


def read_corpus(path: Path) -> list[dict[str, Any]]:
    """Rows with `id`, `instruction`, `answer`. A row without `id` is named by the hash of its instruction."""
    rows: dict[str, dict[str, Any]] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            row = _parse(line, f"corpus.path={path}, line {number}")
            rows.setdefault(row["id"], row)
    if not rows:
        raise InputError(f"corpus.path={path} has no rows; each line is a JSON object with instruction and answer")
    return list(rows.values())


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON ({error.msg}, column {error.colno}); mend or delete the line") from None
    for column in ("instruction", "answer"):
        value = row.get(column) if isinstance(row, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{where} has no text in `{column}`; a row is {{'instruction': ..., 'answer': ...}}")
    name = str(row.get("id") or sha256(row["instruction"].encode()).hexdigest()[:12])
    return {"id": name, "instruction": row["instruction"].strip(), "answer": row["answer"].strip()}


def split(rows: list[dict[str, Any]], scale: ScaleConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(train, held-out) in the order of a hash of the ids: independent of seed and of the file's order."""
    rows = sorted(rows, key=lambda row: sha256(row["id"].encode()).digest())
    heldout, rest = rows[: scale.heldout_rows], rows[scale.heldout_rows :]
    if not rest:
        raise InputError(
            f"scale.heldout_rows={scale.heldout_rows} leaves none of the corpus's {len(rows)} rows to train on; "
            "lower it or give a larger corpus.path"
        )
    return rest[: scale.corpus_rows or None], heldout


def corpus_step(config: CorpusConfig, scale: ScaleConfig) -> Step:
    """Publishes `train.jsonl` and `heldout.jsonl`."""
    path = corpus_file(config)
    content = sha256(path.read_bytes()).hexdigest()
    sizes = {"corpus_rows": scale.corpus_rows, "heldout_rows": scale.heldout_rows}
    return Step("corpus", partial(_run, path=path, scale=scale), config={"sha256": content, **sizes})


def _run(workspace: Workspace, path: Path, scale: ScaleConfig) -> None:
    train, heldout = split(read_corpus(path), scale)
    write_rows(workspace.dir / "train.jsonl", train)
    write_rows(workspace.dir / "heldout.jsonl", heldout)
    workspace.counts.update(train=len(train), heldout=len(heldout))
