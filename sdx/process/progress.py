"""One progress bar for every long stage: live on a terminal, a line every 15 s in a log file."""

import math
import sys
import time

from tqdm import tqdm

from sdx.process.events import Reading, progressed
from sdx.process.preemption import leave_if_asked
from sdx.process.ranks import is_main

LOG_INTERVAL_S = 15.0
REPORT_INTERVAL_S = 1.0


class Progress(tqdm):  # type: ignore[misc]
    """A tqdm bar that prints whole lines if the output is not a terminal, and nothing on ranks > 0.

    Args:
        stage: name in front of the bar.
        total: amount of work, in `unit`s.
        done: work found finished on resume; the rate does not count it.
        delay_s: a shorter stage shows no bar.
    """

    def __init__(self, stage: str, total: int, unit: str, done: int = 0, delay_s: float = 0.0) -> None:
        live = sys.stderr.isatty()
        super().__init__(
            total=total,
            initial=done,
            desc=f"{stage:<12}",
            unit=f" {unit}",
            disable=not is_main(),
            delay=delay_s,
            mininterval=0.5 if live else LOG_INTERVAL_S,
            maxinterval=LOG_INTERVAL_S,
            dynamic_ncols=live,
            ncols=None if live else 110,
            bar_format="{desc} {percentage:3.0f}% {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}{postfix}]",
            file=None if live else _Lines(),
        )
        self._stage, self._unit = stage, unit
        self._began_s, self._reported_s = time.monotonic(), -math.inf
        self._report()

    def update(self, n: float | None = 1) -> bool | None:
        drawn: bool | None = super().update(n)
        if time.monotonic() - self._reported_s >= REPORT_INTERVAL_S:
            self._report()
        leave_if_asked()
        return drawn

    def close(self) -> None:
        self._report()
        super().close()

    def _report(self) -> None:
        if self.disable:  # on ranks > 0, and after the first of the two times that tqdm closes a bar
            return
        self._reported_s = time.monotonic()
        made = self.n - self.initial
        rate = made / (self._reported_s - self._began_s) if made else None
        eta_s = (self.total - self.n) / rate if rate else None
        progressed(Reading(self._stage, int(self.n), int(self.total), self._unit, rate, eta_s))


class _Lines:
    """Turns tqdm's carriage returns into lines and drops repeated ones."""

    def __init__(self) -> None:
        self.last = ""

    def write(self, text: str) -> None:
        text = text.strip("\r\n")
        if text.strip() and text != self.last:
            self.last = text
            sys.stderr.write(text + "\n")

    def flush(self) -> None:
        sys.stderr.flush()
