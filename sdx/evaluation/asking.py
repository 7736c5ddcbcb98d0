"""What lm-evaluation-harness asks of a model, without the model: its requests as rows, and its own evaluation of what
is answered.

`evaluate` is called instead of `simple_evaluate`, which asks the hub for the model, lists the installed packages and
reseeds the process.
"""

from __future__ import annotations

import logging
import random
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

from sdx.evaluation.log_probs import question
from sdx.models.loading import pretrained
from sdx.process.quiet import quiet
from sdx.store.batch_log import Row

ROLLING, WRITTEN = "loglikelihood_rolling", "generate_until"
WRITTEN_AT_ONCE = 8
"""Answers in a batch."""


class Asked:
    """All that the harness asks about some tasks: a row for each prompt, with all that is asked about it.

    A row is that of a question, see `log_probs`, or `{"prompt", "options"}` of an answer that is to be written. Its id
    tells the place in the order of the harness, and the content: what another version asked does not count as done.

    Args:
        lm: the result of `tokenizing_lm`.
        tasks: the result of `TaskManager.load`.
        limit: most items of each task; None: all.
    """

    def __init__(self, lm: Any, tasks: Mapping[str, Any], limit: int | None) -> None:
        self.lm, self.tasks, self._limit = lm, tasks, limit
        self._asked: list[tuple[Any, Any]] = []
        self._numbers: dict[bytes, int] = {}
        requests: dict[str, list[Any]] = {}
        for task in tasks["tasks"].values():
            task.build_all_requests(limit=limit)
            task.build_all_requests = lambda **_: None  # a second time, `evaluate` would draw other examples
            for one in task.instances:
                requests.setdefault(one.request_type, []).extend([one] * one.repeats)
        self._places = {kind: [[*self._ask(kind, one)] for one in each] for kind, each in requests.items()}
        """The values that make the result of each request: (row, number in the row)."""
        self.rows: list[Row] = [
            {
                "id": f"{number}-{sha256(repr(asked).encode()).hexdigest()[:8]}",
                **(question(*asked, lm.max_length) if isinstance(asked[0], array) else _to_write(*asked)),
            }
            for number, asked in enumerate(self._asked)
        ]

    def _ask(self, kind: str, request: Any) -> Iterator[tuple[int, int]]:
        if kind == WRITTEN:
            prompt, options = request.args
            self._asked.append((prompt, options))  # never shared: the answers of a repeated request may differ
            yield len(self._asked) - 1, 0
            return
        for context, answer in self.lm.pairs(kind, request):
            number = self._numbers.setdefault(context.tobytes(), len(self._asked))
            if number == len(self._asked):
                self._asked.append((context, []))
            self._asked[number][1].append(answer)
            yield number, len(self._asked[number][1]) - 1

    @property
    def shortened(self) -> tuple[int, int]:
        """How many prompts lose their beginning, and how many there are, of those with answers to score."""
        cut = [row["asked_tokens"] > len(row["context"]) for row in self.rows if "context" in row]
        return sum(cut), len(cut)

    def evaluate(self, done: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
        """The harness's samples of each task, from the `values` of all rows in order."""
        from lm_eval.evaluator import evaluate

        values = [[tuple(one) if isinstance(one, list) else one for one in row["values"]] for row in done]
        replay: dict[str, Any] = {}
        for kind, places in self._places.items():
            parts = [[values[row][number] for row, number in some] for some in places]
            results = [sum(value for value, _ in some) if kind == ROLLING else some[0] for some in parts]
            replay[kind] = lambda _, results=results: results
        lm = SimpleNamespace(rank=0, world_size=1, **replay)
        samples: dict[str, Any] = evaluate(lm, self.tasks, limit=self._limit, bootstrap_iters=0)["samples"]
        return samples


def _to_write(prompt: str, options: Mapping[str, Any]) -> Row:
    return {"prompt": prompt, "options": options}


def written(lm: Any, rows: Sequence[Row]) -> list[str]:
    """The answers that a model with weights writes to a batch. A seed of the batch's own decides those it samples."""
    import torch

    device = lm.model.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(crc32(rows[0]["id"].encode()))
        requests = [SimpleNamespace(args=(row["prompt"], row["options"])) for row in rows]
        answers: list[str] = lm.generate_until(requests, disable_tqdm=True)
        return answers


def written_batches(lm: Any, rows: Mapping[int, Row]) -> list[list[int]]:
    """The numbers of the rows in each batch as the harness would make them: with equal options, the longest first."""
    from lm_eval.models.utils import Collator

    requests = [(row["prompt"], row["options"], number) for number, row in rows.items()]

    def longest(request: tuple[str, Any, int]) -> tuple[int, str]:
        return -len(lm.tok_encode(request[0])), request[0]

    found = Collator(requests, longest, lambda request: request[1], "gen_kwargs").get_batched(WRITTEN_AT_ONCE)
    return [[number for *_, number in batch] for batch in found]


def tokenizing_lm(model_dir: Path, context_tokens: int) -> Any:
    """The model in `model_dir` in the class that the harness expects, without weights.

    `pairs(kind, request)` gives context and answer in tokens, as arrays, for each log-probability that a request asks
    for; `with_model` gives one with weights, to write.
    """
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoConfig, AutoTokenizer

    class TokenizingLM(HFLM):  # type: ignore[misc]
        def pairs(self, kind: str, request: Any) -> list[tuple[array[int], array[int]]]:
            self.found: list[tuple[array[int], array[int]]] = []
            getattr(self, kind)([request], disable_tqdm=True)
            return self.found

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            self.found += [(array("i", context), array("i", answer)) for _, context, answer in requests]
            return [(0.0, False)] * len(requests)

        def with_model(self, model: Any) -> TokenizingLM:
            lm = copy(self)
            lm._model, lm._device = model, model.device
            return lm

    config, tokenizer = pretrained(AutoConfig, model_dir), pretrained(AutoTokenizer, model_dir)
    # Gemma is lost without BOS, and a tokenizer made from GGUF may not add it.
    if config.model_type.startswith("gemma") and tokenizer("A").input_ids[0] != tokenizer.bos_token_id:
        tokenizer.add_bos_token = True
    limit = min(context_tokens, getattr(config, "max_position_embeddings", None) or context_tokens)
    model = SimpleNamespace(config=config, device="cpu")
    lm = TokenizingLM(model, tokenizer=tokenizer, max_length=limit, batch_size=WRITTEN_AT_ONCE)
    lm.tok_encode = lru_cache(maxsize=2)(lm.tok_encode)  # the harness encodes a question again for each answer
    return lm


@contextmanager
def as_in_every_process() -> Iterator[None]:
    """The global random numbers that the code of a task may draw, with the harness's own seeds."""
    import numpy as np

    states = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(1234)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def silence() -> None:
    """No messages of the harness and no progress bars of its libraries; sdx shows its own."""
    import datasets
    import lm_eval.api.task

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    lm_eval.api.task.tqdm = lambda docs, **_: docs  # this bar has no switch
    datasets.disable_progress_bars()
    quiet()
