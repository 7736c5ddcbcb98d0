"""Ctrl-C is never lost, not even in a finaliser, where Python swallows what a handler raises."""

import gc
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sdx.cli import main
from sdx.process import preemption
from sdx.process.preemption import finishing, interrupts_noted, listening
from sdx.process.progress import Progress
from sdx.store import locks

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _interrupts_end_a_program():
    """A test runner that a shell started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Dying:
    """Is interrupted while it is finalised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def in_a_finaliser() -> None:
    Dying()


def in_a_callback() -> None:
    class Plain: ...

    thrown_away = Plain()
    _kept = weakref.ref(thrown_away, lambda _: signal.raise_signal(signal.SIGINT))
    del thrown_away


def in_a_collection() -> None:
    cycle = Dying()
    cycle.itself = cycle  # type: ignore[attr-defined]
    del cycle
    gc.collect()


def swallowed() -> None:
    with suppress(BaseException):
        signal.raise_signal(signal.SIGINT)


def batch() -> None:
    with finishing():
        pass


def bar() -> None:
    Progress("stage", 2, "rows").update()


def run() -> None:
    with listening():
        pass


@pytest.mark.parametrize("lose", [in_a_finaliser, in_a_callback, in_a_collection, swallowed])
@pytest.mark.parametrize("work", [batch, bar, run, lambda: locks.wait_until(lambda: False)])
def test_an_interrupt_that_was_lost_is_raised_by_the_next_piece_of_work(
    lose: Callable[[], None], work: Callable[[], None], capsys: pytest.CaptureFixture[str]
):
    with interrupts_noted():
        lose()
        with pytest.raises(KeyboardInterrupt):
            work()
    work_again()
    assert "KeyboardInterrupt" not in capsys.readouterr().err


def work_again() -> None:
    """After the block, signals are as they were and nothing is remembered."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with interrupts_noted():
        batch()
        bar()


def test_a_piece_of_work_is_finished_first():
    done = []
    with interrupts_noted(), pytest.raises(KeyboardInterrupt), finishing():
        done += [in_a_finaliser(), bar()]
    assert len(done) == 2


def test_a_preemption_that_was_lost_is_raised_as_well():
    class Asked:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    with listening():
        Asked()
        with pytest.raises(preemption.Preempted):
            bar()
        preemption._noted.preemption = 0


def test_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def job() -> None:
        in_a_finaliser()
        batch()

    monkeypatch.setattr(sys, "argv", ["sdx"])
    monkeypatch.setattr(main, "job", job)
    monkeypatch.setattr(main.threads, "limit", lambda: None)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "")
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "sdx: interrupted; the same command goes on where this one stopped\n"


AGAIN = """
import signal, time
from sdx.process import preemption
preemption.ONE_PRESS_S = 0.2
with preemption.interrupts_noted():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGINT)  # a launcher's, of the same Ctrl-C
        print("cleans up", flush=True)
        time.sleep(0.3)
        signal.raise_signal(signal.SIGINT)
        print("goes on")
"""


def test_a_second_one_ends_at_once():
    done = subprocess.run([sys.executable, "-c", AGAIN], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "cleans up\n"), done.stderr
    assert done.stderr == "sdx: interrupted again; ended at once\n"


IGNORED = "import signal; from sdx.process.preemption import interrupts_noted; signal.signal(2, signal.SIG_IGN)\n"
IGNORED += "with interrupts_noted(): signal.raise_signal(2)"


def test_where_it_is_ignored_it_stays_so():
    """As in the background of a script, or after nohup."""
    assert subprocess.run([sys.executable, "-c", IGNORED], cwd=ROOT).returncode == 0
