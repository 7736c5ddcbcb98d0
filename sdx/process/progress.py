"""One progress bar for every long stage: live on a terminal, a line every 15 s in a log file."""

import math
import sys
import time
from typing import Any

from tqdm import tqdm

from sdx.process.events import Reading, progressed
from sdx.process.preemption import leave_if_asked
from sdx.process.ranks import is_main

LOG_INTERVAL_S = 15.0
TELL_INTERVAL_S = 1.0


class Progress(tqdm):  # type: ignore[misc]
    """A tqdm bar that prints whole lines where the output is not a terminal, and nothing on ranks > 0.

    Args:
        stage: name in front of the bar.
        total: amount of work, in `unit`s.
        done: work found finished on resume; the rate does not count it.
    """

    def __init__(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        live = sys.stderr.isatty()
        super().__init__(
            total=total,
            initial=done,
            desc=f"{stage:<12}",
            unit=f" {unit}",
            disable=not is_main(),
            mininterval=0.5 if live else LOG_INTERVAL_S,
            maxinterval=LOG_INTERVAL_S,
            dynamic_ncols=live,
            ncols=None if live else 110,
            bar_format="{desc} {percentage:3.0f}% {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}{postfix}]",
            file=None if live else _Lines(),
        )
        self._stage, self._unit, self._found, self._done = stage, unit, done, done
        self._began, self._told = time.monotonic(), -TELL_INTERVAL_S
        self._tell()

    def update(self, n: float | None = 1) -> bool | None:
        drawn: bool | None = super().update(n)
        self._done += int(n or 0)
        self._tell()
        leave_if_asked()
        return drawn

    def close(self) -> None:
        self._tell(last=True)
        self._told = math.inf  # tqdm closes a bar once more when it is thrown away
        super().close()

    def _tell(self, last: bool = False) -> None:
        """What the bar shows, to whoever watches. The bar's own counts stand still where it is not shown."""
        now = time.monotonic()
        if not is_main() or (now - self._told < TELL_INTERVAL_S and not (last and self._told <= now)):
            return
        self._told = now
        made = self._done - self._found
        rate = made / (now - self._began) if made else None
        eta_s = (self.total - self._done) / rate if rate else None
        progressed(Reading(self._stage, self._done, int(self.total), self._unit, rate, eta_s))


class _Lines:
    """Turns tqdm's carriage returns into lines, each once."""

    def __init__(self) -> None:
        self.last = ""

    def write(self, text: str) -> Any:
        text = text.strip("\r\n")
        if not text.strip() or text == self.last:
            return 0
        self.last = text
        return sys.stderr.write(text + "\n")

    def flush(self) -> None:
        sys.stderr.flush()
