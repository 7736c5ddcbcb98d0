"""`python -m sdx` many times quickly: each run is a fork of one process that has imported all, `launcher.py`."""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "HF_HUB_CACHE": "/nonexistent",
}
"""Nothing listens there: what is not on disk cannot be had."""
START_S, RUN_S = 120, 300


class Forks:
    """A process that starts runs, one at a time."""

    def __init__(self) -> None:
        self.log = Path(tempfile.mkdtemp()) / "launcher.log"
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/kit/launcher.py")],
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            bufsize=0,  # a line that waits in a buffer would be invisible to select
        )
        self.number = 0
        self._hear("ready", START_S)

    def start(
        self,
        arguments: Sequence[str],
        cwd: Path,
        out: Path,
        err: Path,
        environment: Mapping[str, str],
        stop: tuple[str, int] | None = None,
    ) -> int:
        """The process' number, which is its process group, too; it stops at that seam of a step, to be killed."""
        order = {"cwd": str(cwd), "out": str(out), "err": str(err), "arguments": arguments, "stop": stop}
        order["environment"] = {**os.environ, **ENVIRONMENT, **environment}
        assert self.process.stdin
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.number = int(self._hear("started")[0])
        return self.number

    def reach(self) -> None:
        """Waits until the run is at the seam where it stops."""
        self._hear("reached")

    def end(self) -> int:
        """Waits for the run; its exit status, negative for a signal."""
        return int(self._hear("done")[1])

    def close(self) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=60)

    def _hear(self, word: str, timeout_s: float = RUN_S) -> list[str]:
        answers: Any = self.process.stdout
        found, *rest = [f"nothing after {timeout_s} s"]
        if select.select([answers], [], [], timeout_s)[0]:
            found, *rest = answers.readline().decode().split() or ["nothing"]
        if found != word:
            self._give_up()
            raise AssertionError(f"{found} instead of {word}; {self.log.read_text()}")
        return rest

    def _give_up(self) -> None:
        """The next test shall not hear what this one did not wait for."""
        if self.number:
            with suppress(ProcessLookupError):
                os.killpg(self.number, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        forks.cache_clear()


@cache
def forks() -> Forks:
    """The one of this process."""
    made = Forks()
    atexit.register(made.close)
    return made


def sdx(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """What `python -m sdx` with these arguments does."""
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place, "out"), Path(place, "err")
        forks().start(arguments, cwd, out, err, environment or {})
        status = forks().end()
        return subprocess.CompletedProcess(arguments, status, out.read_text(), err.read_text())
