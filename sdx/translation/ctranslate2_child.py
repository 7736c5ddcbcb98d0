"""The process that converts models for CTranslate2 and translates with it.

    python -m sdx.translation.ctranslate2_child

Its wheels bring CUDA libraries of another version than torch's. Reads requests from its input, a line of JSON each,
`{"do": name, ...arguments}`, and answers each with a line, `{"result": ...}` or `{"error": text}`. It ends when its
input does: with the process that started it, however that ended. Imports nothing of sdx.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from itertools import groupby
from queue import SimpleQueue
from threading import Thread
from types import SimpleNamespace
from typing import Any

PATIENCE = 2
"""Beam search ends when this many times the beams are finished. CTranslate2's own, 1, costs NLLB-3.3B 0.38 chrF++."""
LEAST_TOKENS = 64
"""Fewer are no batch worth splitting."""
SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
"""Sent to all processes of a job, whose parent decides what they mean."""

state = SimpleNamespace(translator=None, batch_tokens=0, threads=1)


def convert(model_dir: str, out: str, weights: str, tokens: list[str], names: dict[str, str]) -> None:
    """Writes the model for CTranslate2.

    Args:
        weights: their type, as CTranslate2 names it.
        tokens: by id.
        names: attributes of a tokenizer of transformers: `bos_token`, `eos_token`, `unk_token`.
    """
    from ctranslate2.converters import TransformersConverter
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    set_verbosity_error()
    disable_progress_bar()
    ids = {token: id_ for id_, token in enumerate(tokens)}
    tokenizer = SimpleNamespace(
        **names,
        unk_token_id=ids[names["unk_token"]],
        special_tokens_map={},
        get_vocab=lambda: ids,
        convert_ids_to_tokens=lambda id_: tokens[id_],
    )

    class Converter(TransformersConverter):  # type: ignore[misc]
        def load_tokenizer(self, *_: Any, **__: Any) -> Any:
            return tokenizer

    Converter(model_dir, low_cpu_mem_usage=True).convert(out, quantization=weights, force=True)


def load(directory: str, device: str, index: int, threads: int, batch_tokens: int) -> None:
    import ctranslate2

    ctranslate2.set_log_level(logging.ERROR)  # it warns of weights in bf16 on a CPU
    state.batch_tokens, state.threads = batch_tokens, threads
    options = {"device": device, "device_index": index, "inter_threads": threads, "intra_threads": 1}
    state.translator = ctranslate2.Translator(directory, **options)


def translate(sources: list[list[str]], rooms: list[int], prefix: str | None, beams: int) -> list[list[str]]:
    """The best translation of each source, all with the same prefix, if any; `rooms` are their most tokens."""
    order = sorted(range(len(sources)), key=lambda index: -rooms[index])
    share = sum(map(len, sources)) // state.threads  # of a thread: none is to wait for another's large batch
    while True:
        waiting = []
        for room, group in groupby(order, lambda index: rooms[index]):
            some = [sources[index] for index in group]
            waiting += state.translator.translate_batch(
                some,
                target_prefix=[[prefix]] * len(some) if prefix else None,
                asynchronous=True,
                max_batch_size=max(LEAST_TOKENS, min(share, state.batch_tokens)),
                batch_type="tokens",
                beam_size=beams,
                patience=PATIENCE,
                max_decoding_length=room,
                max_input_length=0,
            )
        try:
            found = dict(zip(order, (one.result().hypotheses[0] for one in waiting), strict=True))
            return [found[index] for index in range(len(sources))]
        except RuntimeError as error:
            if "out of memory" not in str(error) or state.batch_tokens <= LEAST_TOKENS:
                raise
            state.batch_tokens //= 2


COMMANDS: dict[str, Callable[..., Any]] = {"convert": convert, "load": load, "translate": translate}


def _read(requests: "SimpleQueue[dict[str, Any]]") -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)  # also in the middle of a translation


def main() -> None:
    for name in SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    Thread(target=_read, args=(requests,), daemon=True).start()
    while True:
        request = requests.get()
        try:
            answer = {"result": COMMANDS[request.pop("do")](**request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
