"""Trainings in processes of their own, to be signalled and killed: heavy modules are imported once, each is a fork.

With two ranks, the environment says what torchrun's would say.
"""

import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import torch
import transformers.models.llama.modeling_llama  # noqa: F401
from tqdm import tqdm

from sdx.process.ranks import is_main
from sdx.training import checkpoints, loop, trainable
from tests.kit.training import fit

SLOW_S = 0.02
"""Added before and after the files of a checkpoint, its publishing and the removal of another, and the export."""

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__])


class Processes:
    """`function(*arguments)` on `ranks` ranks; what they print goes to `log`."""

    def __init__(self, log: Path, function: Callable[..., object], *arguments: object, ranks: int = 1) -> None:
        self.log = log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.ranks = [
            context.Process(target=_enter, args=(log, rank, ranks, port, function, arguments)) for rank in range(ranks)
        ]
        for process in self.ranks:
            process.start()

    def running(self) -> bool:
        return all(process.is_alive() for process in self.ranks)

    def signal(self, number: int, rank: int = 0) -> None:
        """Nothing where it has ended."""
        pid = self.ranks[rank].pid
        assert pid
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def end(self, timeout_s: float = 60) -> list[int | None]:
        """Waits for them; the exit status of each, negative for a signal. Ends the test if one hangs."""
        for process in self.ranks:
            process.join(timeout_s)
        statuses = [process.exitcode for process in self.ranks]
        for process in self.ranks:
            process.kill()
        return statuses


def _enter(
    log: Path, rank: int, ranks: int, port: int, function: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(written, 1)
    os.dup2(written, 2)
    if ranks > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is shared between processes, and a killed one would leave it behind
    try:
        function(*arguments)
    except SystemExit as stop:
        print(stop, flush=True)  # as sdx.cli.main does; multiprocessing says nothing
        sys.exit(stop.code)


def train(model_dir: Path, out: Path, options: dict[str, Any], pause: str | None = None, slow: bool = False) -> None:
    """Trains as `training.fit` does, and notes in `out`.busy what with: `training`, `writing` or `exporting`.

    Args:
        pause: where rank 0 makes the file `out/paused` and waits for `out/go_on`: `step N` when it is taken, `save N`
            when the first file of that checkpoint is written, `export` when it begins.
        slow: checkpoints and the export take long.
    """
    out.mkdir(parents=True, exist_ok=True)

    def wait_at(place: str) -> None:
        if is_main() and place == pause and not (out / "paused").exists():
            (out / "paused").touch()
            while not (out / "go_on").exists():
                time.sleep(0.005)

    def note(doing: str) -> None:
        if is_main():
            out.with_suffix(".note").write_text(doing)
            out.with_suffix(".note").replace(out.with_suffix(".busy"))

    note("training")
    write, save, update, export = torch.save, checkpoints.save, loop.update, trainable.export
    updates = count(1)

    def paused_update(*arguments: Any) -> Any:
        norm = update(*arguments)
        wait_at(f"step {next(updates)}")
        return norm

    def paused_export(*arguments: Any) -> None:
        note("exporting")
        wait_at("export")
        export(*arguments)

    def paused_save(engine: Any, folder: Path, progress: dict[str, Any]) -> int:
        def paused_write(*arguments: Any) -> None:
            wait_at(f"save {progress['step']}")
            write(*arguments)

        torch.save = paused_write
        note("writing")
        written = save(engine, folder, progress)
        note("training")
        return written

    loop.update, trainable.export, checkpoints.save = paused_update, paused_export, paused_save
    if slow:
        for name in ("_write", "publish"):
            setattr(checkpoints, name, _slowly(getattr(checkpoints, name)))
        trainable.export = _slowly(trainable.export)
    fit(model_dir, out, **options)


def _slowly(function: Callable[..., Any]) -> Callable[..., Any]:
    def slowly(*arguments: Any) -> Any:
        time.sleep(SLOW_S)
        result = function(*arguments)
        time.sleep(SLOW_S)
        return result

    return slowly


def interrupt(
    model_dir: Path, out: Path, pause: str, number: int, options: dict[str, Any], ranks: int = 1, rank: int = 0
) -> str:
    """Sends a signal while the training pauses; what it said when it left."""
    processes = Processes(out.with_suffix(".log"), train, model_dir, out, options, pause, ranks=ranks)
    while not (out / "paused").exists():
        assert processes.running(), processes.log.read_text()
        time.sleep(0.005)
    processes.signal(number, rank)
    processes.signal(number, rank)  # a second one changes nothing
    (out / "go_on").touch()
    assert processes.end() == [os.EX_TEMPFAIL] * ranks, processes.log.read_text()
    return processes.log.read_text()


def go_on(model_dir: Path, out: Path, options: dict[str, Any], ranks: int = 1) -> None:
    processes = Processes(out.with_suffix(".log"), train, model_dir, out, options, ranks=ranks)
    assert processes.end() == [0] * ranks, processes.log.read_text()
