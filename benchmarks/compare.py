"""A comparison: the contestants take turns on the same job, each run in a process of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import contestants, peers
from benchmarks.child import Failed, call
from benchmarks.measure import Job
from benchmarks.peers import Choice
from sdx.store.files import write_json

NAMES = ("sdx", "trl_default", "trl_best", "hf_default", "hf_best")
TRL = ("trl_default", "trl_best")
SEARCH_STEPS = 1
"""Measured steps of a candidate, after as many of warm-up."""


@dataclass(frozen=True)
class Comparison:
    """What stays the same in all runs.

    Args:
        model: its name, for the record.
        device: `CPU` or a GPU's name.
        engine: fields of sdx's `EngineConfig`.
        threads: of each run's CPU kernels.
    """

    model: str
    device: str
    job: Job
    engine: Mapping[str, Any]
    threads: int

    def run(self, names: Sequence[str], rounds: int, search: bool) -> dict[str, Any]:
        """All contestants of `names` in each of `rounds`, which differ in the order of the examples.

        Args:
            search: measure TRL's candidates even where their best is recorded.

        Returns:
            `adapter`, `job`, `trl_best`, `searched`: speed by candidate, and `runs`: for each its
            `contestant`, `round` and either the result or `failed`, the reason.
        """
        searched: dict[str, float] = {}
        best = None
        if "trl_best" in names:
            best = peers.BEST.get((self.device, self.model, self.job.adapter))
            if search or best is None:
                searched = self.search()
                best = Choice(max(searched, key=searched.__getitem__), f"searched in this command, {date.today()}")
        runs = []
        for number in range(rounds):
            for name in names:
                run = self._measure(f"round {number + 1} of {rounds}", name, best, seed=number)
                runs.append({"contestant": name, "round": number + 1, **run})
        shared = {key: value for key, value in asdict(self.job).items() if key not in ("model_dir", "data", "seed")}
        return {
            "adapter": self.job.adapter,
            "job": shared,
            "trl_best": best and asdict(best),
            "searched": searched,
            "runs": runs,
        }

    def search(self) -> dict[str, float]:
        """Useful tokens/s of each of TRL's candidates that runs here, one short run each.

        Raises:
            Failed: none of them does.
        """
        found = {}
        for name, options in peers.candidates(self.device).items():
            job = asdict(self.job) | {"warmup_steps": SEARCH_STEPS, "steps": SEARCH_STEPS}
            run = self._call(f"search    {name}", contestants.trl, job=job, options=dict(options))
            if "failed" not in run:
                found[name] = run["tokens_per_s"]
        if not found:
            raise Failed("none of TRL's candidates ran; leave trl_best out of --contestants")
        return found

    def _measure(self, label: str, name: str, best: Choice | None, seed: int) -> dict[str, Any]:
        job = asdict(self.job) | {"seed": seed}
        label = f"{label}  {self.job.adapter}  {name}"
        options: dict[str, tuple[Any, Any]] = {
            "trl_default": (contestants.trl, peers.TRL_DEFAULT),
            "trl_best": (contestants.trl, best and peers.candidates(self.device)[best.name]),
            "hf_default": (contestants.hf, peers.HF_DEFAULT),
            "hf_best": (contestants.hf, peers.HF_BEST),
        }
        if name == "sdx":
            return self._call(label, contestants.sdx, job=job, engine=dict(self.engine))
        trainer, given = options[name]
        return self._call(label, trainer, job=job, options=dict(given))

    def _call(self, label: str, function: Any, **arguments: Any) -> dict[str, Any]:
        """The function's result, or why there is none; either is shown."""
        try:
            run = call(function, self.threads, **arguments)
        except Failed as error:
            print(f"{label}: failed: {error}", flush=True)
            return {"failed": str(error)}
        shown = f"{run['tokens_per_s']:8,.1f} tokens/s, {run['peak_bytes'] / 2**30:.2f} GiB"
        print(f"{label:<60} {shown}, loss {run['loss']:.3f}", flush=True)
        return run


def write_examples(folder: Path, rows: Sequence[Any]) -> str:
    """The file that every run reads."""
    path = folder / "examples.json"
    write_json(path, rows)
    return str(path)
