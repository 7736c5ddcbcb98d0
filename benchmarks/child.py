"""A function in a process of its own, so that memory peaks, compiled kernels and a crash are its own.

    python -m benchmarks.child benchmarks.ceiling matmul arguments.json result.json

Imports no torch before the function does.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
OUT_OF_MEMORY = "out of memory"
SHOWN_LINES = 12
"""Of a failed child's output."""
LIMIT_S = 1800
"""No run takes longer, compilation included."""


class Failed(RuntimeError):
    """The child ended without a result; the message says why."""


def call(function: Callable[..., dict[str, Any]], threads: int, /, **arguments: Any) -> dict[str, Any]:
    """`function(**arguments)` in a new process; arguments and result are JSON.

    The process finds no model hub, no compiled kernel and no prepared data set of an earlier one.

    Args:
        function: at the top level of its module, which the child imports.
        threads: of its CPU kernels.

    Raises:
        Failed: it raised, was killed, ran out of memory, or took too long.
    """
    with TemporaryDirectory(prefix="sdx-benchmark-") as folder:
        place = Path(folder)
        (place / "arguments.json").write_text(json.dumps(arguments), encoding="utf-8")
        names = (function.__module__, function.__qualname__)
        command = [sys.executable, "-m", __name__, *names, *map(str, (place / "arguments.json", place / "result.json"))]
        try:
            done = subprocess.run(
                command,
                cwd=place,
                env=_environment(place, threads),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"took more than {LIMIT_S // 60} minutes") from None
        if done.returncode == 0:
            result: dict[str, Any] = json.loads((place / "result.json").read_text(encoding="utf-8"))
            return result
    output = done.stdout.decode(errors="replace")
    if done.returncode == -signal.SIGKILL or f"{OUT_OF_MEMORY}\n" in output[-100:]:
        raise Failed(OUT_OF_MEMORY)
    shown = "\n".join(output.rstrip().splitlines()[-SHOWN_LINES:])
    raise Failed(f"exit status {done.returncode}\n{shown}")


def _environment(place: Path, threads: int) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": str(threads),
        "TORCHINDUCTOR_CACHE_DIR": str(place / "inductor"),
        "HF_DATASETS_CACHE": str(place / "datasets"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def main(module: str, name: str, arguments: str, result: str) -> int:
    import torch

    function = getattr(import_module(module), name)
    try:
        value = function(**json.loads(Path(arguments).read_text(encoding="utf-8")))
    except (torch.OutOfMemoryError, MemoryError):
        print(OUT_OF_MEMORY, flush=True)
        return 1
    Path(result).write_text(json.dumps(value), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
