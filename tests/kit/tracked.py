"""A run for trackers, without running it, and what they left read back.

wandb's own record of a run, `run-<id>.wandb`, is LevelDB's log (blocks of 32 KiB, records in pieces, each with
checksum, length and kind) behind seven bytes of wandb's, with a protobuf `Record` in each record.
"""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdx.config import Config
from sdx.store.files import write_rows
from tests.kit.configs import composed

BEGINNING = 7
"""Bytes before the first block's first record; they are part of the block."""
BLOCK = 32 * 1024
HEAD = struct.Struct("<IHB")
"""Of a piece: checksum, bytes, kind."""
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def config(tmp_path: Path, *overrides: str) -> Config:
    return composed("method=sft", "lang=[pt,sw]", "seed=3", f"cache_dir={tmp_path}", *overrides)


def results(run_dir: Path, name: str = "x", score: float = 40.0) -> dict[str, Any]:
    """Of a finished run that trained one step, with its files in the run directory."""
    (run_dir / "trained").mkdir(exist_ok=True)
    write_rows(run_dir / "trained/log.jsonl", [row(1)])
    (run_dir / "report.md").write_text(f"# {name}\n")
    write_rows(run_dir / "samples.jsonl", [{"id": str(n), "language": "pt", "prompt": name} for n in range(300)])
    write_rows(run_dir / "translations.jsonl", [])
    estimate = {"value": score, "low": 30.0, "high": 50.0, "n": 10}
    about = {"task": "t", "benchmark": "", "language": "pt", "metric": "accuracy", "origin": "original", "system": ""}
    return {
        "scores": [{**about, "before": estimate, "after": None, "difference": None}],
        "filters": [{"what": "own", "language": "pt", "rows": 9, "kept": 6, "dropped": {"empty": 3, "long": 0}}],
        "steps": [
            {"name": "score", "what": "t", "language": "pt", "seconds": 1.5, "path": str(run_dir)},
            {"name": "train", "what": "x", "language": None, "seconds": 1.5, "path": str(run_dir / "trained")},
        ],
        "seconds": time.monotonic(),
        "peak_memory_bytes": 10,
    }


def row(step: int) -> dict[str, float]:
    """A line of the training log."""
    return {"step": step, "loss": 10.0 - step, "useful_tokens_per_s": 100.0}


def history(path: Path) -> list[dict[str, Any]]:
    """The rows of a `.wandb` file."""
    rows = [record.history for record in records(path) if record.HasField("history")]
    return [{item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in one.item} for one in rows]


def whole_history(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of all processes that worked on a run."""
    return [one for path in files(run_dir) for one in history(path)]


def beginning(path: Path) -> Any:
    """What a `.wandb` file says of its run."""
    return next(record.run for record in records(path) if record.HasField("run"))


def summary(path: Path) -> dict[str, Any]:
    """What a `.wandb` file says in the end."""
    updates = [one for record in records(path) for one in record.summary.update]
    return {one.key or ".".join(one.nested_key): json.loads(one.value_json) for one in updates}


def files(run_dir: Path) -> list[Path]:
    """The records of a run directory, in the order in which they began."""
    return sorted(run_dir.glob("wandb/*run-*/run-*.wandb"), key=lambda path: path.parent.name.rpartition("run-")[2])


def records(path: Path) -> Iterator[Any]:
    """The whole records, each a `wandb.proto.wandb_internal_pb2.Record`."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    at, pieces = BEGINNING, b""
    while at < len(content):
        room = BLOCK - at % BLOCK
        if room < HEAD.size:  # too small for a piece, and left empty
            at += room
            continue
        if at + HEAD.size > len(content):
            return
        _, size, kind = HEAD.unpack_from(content, at)
        at += HEAD.size
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or at + size > len(content):
            return
        pieces += content[at : at + size]
        at += size
        if kind in (WHOLE, LAST):
            record = Record()
            try:
                record.ParseFromString(pieces)
            except DecodeError:
                return
            pieces = b""
            yield record
