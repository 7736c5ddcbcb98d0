"""`workers=ray`: actors of a Ray cluster process the batches of a row step. All nodes see the cache directory."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from sdx.process.ranks import WORKER
from sdx.store.batch_log import Row
from sdx.store.shared_log import SharedLog
from sdx.store.step import Step, Workspace


class Worker:
    """An actor, which loads once; Ray starts it again if it dies, and repeats its batch."""

    def __init__(self, step: Any, work: Workspace) -> None:
        self._step, self._rows, self._loaded = step, step.read(work), step.load(work)

    def batches(self) -> list[list[int]]:
        return [list(batch) for batch in self._step.batches(self._rows, self._loaded)]

    def __call__(self, block: dict[str, Any]) -> dict[str, list[str]]:
        """One batch, by the numbers of its rows; the processed rows as JSON, which keeps their types."""
        [numbers] = block["numbers"]
        return {"rows": [json.dumps(self._step.process([self._rows[int(one)] for one in numbers], self._loaded))]}


def processed(step: Step, work: Workspace, log: SharedLog) -> Iterator[list[Row]]:
    """The batches with rows that are left of a row step, in the order in which actors finish them.

    An actor has a GPU, or as many cores as this process has threads if the cluster has no GPUs. The first actor cuts
    the rows into batches, because their sizes may depend on its device.
    """
    import ray

    _connect()
    has = ray.cluster_resources()
    threads, gpus = int(os.environ.get("OMP_NUM_THREADS", "1")), int(has.get("GPU", 0))
    one, most = ({"num_gpus": 1}, gpus) if gpus else ({"num_cpus": threads}, int(has["CPU"]) // threads)
    cutter = ray.remote(**one)(Worker).remote(step, work)
    batches: Sequence[list[int]] = ray.get(cutter.batches.remote())
    ray.kill(cutter)
    blocks = [{"numbers": left} for batch in batches if (left := log.left(batch))]
    given = ray.data.from_items(blocks, override_num_blocks=len(blocks))
    options = {"fn_constructor_args": (step, work), "concurrency": max(1, min(most, len(blocks))), **one}
    for row in given.map_batches(Worker, batch_size=1, **options).iter_rows():
        yield json.loads(row["rows"])


def _connect() -> None:
    """To the cluster of RAY_ADDRESS. Without one, a cluster of this machine starts, and ends with this process."""
    import ray

    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        silent = {"env_vars": {WORKER: str(os.getpid())}}
        ray.init(log_to_driver=False, logging_level="warning", runtime_env=silent)
        ray.data.DataContext.get_current().enable_progress_bars = False
