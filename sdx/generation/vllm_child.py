"""vLLM in a process of its own, started by `sdx.generation.vllm` with the interpreter of another environment.

It imports the standard library and vLLM only. Requests come as lines of JSON on standard input, answers go as lines of
JSON to the file descriptor that the argument names, so that nothing that a library prints is taken for an answer:

    {"model": ..., ...}                     options of `vllm.LLM`            -> {"context": tokens}
    {"prompts": [[id, ...], ...],           of one batch                     -> [[id, ...], ...]
     "params": [{...}, ...]}                `SamplingParams` of each prompt
"""

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

GRACE_S = 10.0
"""To end in order after the last request."""


def requests() -> Iterator[Any]:
    """What the parent asks, until it closes the pipe or dies; the process then ends even in the middle of a batch."""
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            asked.put(json.loads(line))
        asked.put(None)
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return iter(asked.get, None)


def main() -> None:
    asked = requests()
    with os.fdopen(int(sys.argv[1]), "w") as answers:
        options = next(asked)

        from vllm import LLM, SamplingParams

        llm = LLM(**options)
        print(json.dumps({"context": llm.model_config.max_model_len}), file=answers, flush=True)
        for batch in asked:
            prompts = [{"prompt_token_ids": ids} for ids in batch["prompts"]]
            params = [SamplingParams(**each) for each in batch["params"]]
            outputs = llm.generate(prompts, params, use_tqdm=False)
            print(json.dumps([list(one.outputs[0].token_ids) for one in outputs]), file=answers, flush=True)


if __name__ == "__main__":  # not in the workers that vLLM starts
    main()
