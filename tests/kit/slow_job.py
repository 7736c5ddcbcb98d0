"""Python for jobs of tests: `python slow_job.py -u -m MODULE ...` runs the module, slowed so that a signal can hit each
stage, and notes in JOURNAL which rows it has put on disk: `logged <path> <ids>`."""

import json
import os
import runpy
import sys
import time

BATCH_S = 0.3


def slow_down() -> None:
    from sdx.store.batch_log import BatchLog
    from sdx.training import loop

    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    append, update = BatchLog.append, loop.update

    def noted_append(self, rows):
        time.sleep(BATCH_S)
        places = append(self, rows)
        os.write(journal, f"logged {self.path} {json.dumps([row['id'] for row in rows])}\n".encode())
        return places

    def slow_update(*arguments):
        time.sleep(BATCH_S)
        return update(*arguments)

    BatchLog.append = noted_append
    loop.update = slow_update


if __name__ == "__main__":
    _, unbuffered, flag, module, *arguments = sys.argv
    assert (unbuffered, flag) == ("-u", "-m")
    sys.argv = [module, *arguments]
    slow_down()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
