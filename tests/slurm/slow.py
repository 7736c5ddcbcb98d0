"""Python for jobs of tests: `python slow.py -u -m MODULE ...` runs the module, slowed at the seams so that a signal can
hit each stage, and notes in JOURNAL what it finished, see `tests/launcher.py`."""

import runpy
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

STEP_S = 0.3


def slow_down() -> None:
    from sdx.evaluation import harness
    from sdx.training import loop
    from tests.launcher import slow_down_and_note

    slow_down_and_note()
    update, answers = loop.update, harness._answer_log_probs

    def slow_update(*arguments):
        time.sleep(STEP_S)
        return update(*arguments)

    def slow_answers(*arguments):
        time.sleep(STEP_S)
        return answers(*arguments)

    loop.update = slow_update
    harness._answer_log_probs = slow_answers


if __name__ == "__main__":
    _, unbuffered, flag, module, *arguments = sys.argv
    assert (unbuffered, flag) == ("-u", "-m")
    sys.argv = [module, *arguments]
    slow_down()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
