"""The vectors that a model gives the training texts, stored by the texts' ids (MT-LLM, stage 2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sdx.stacking.reader import ReadingStep, key, read_batches
from sdx.store.estimate import Estimate, Plan
from sdx.store.files import read_intact, read_json, read_rows, write_json
from sdx.store.step import Step, Workspace

FILES = ("train", "validation")
CHUNK = 4096
"""Texts between two points at which a killed step goes on."""


@dataclass(frozen=True, eq=False)
class VectorsStep(ReadingStep):
    """Publishes, of train.jsonl and validation.jsonl, `<name>.npy`, fp32 `[texts, spans, hidden]`, and `ids.json`."""

    name: ClassVar[str] = "vectors"

    training: Step
    """The labelled texts."""

    def estimate(self, plan: Plan) -> Estimate:
        count = sum(plan.rows(self.training, f"{name}.jsonl").count for name in FILES)
        rows, chooses = plan.rows(self.training, "train.jsonl"), not self.training.config.get("labels")
        return self.estimate_of(plan, rows, count, chooses)

    def run(self, work: Workspace) -> None:
        """In chunks of the order of the ids, each in batches of like lengths: a resumed step reads the same batches."""
        import numpy as np

        model = self.load(work)
        progress = work.dir / "progress.json"
        found = read_intact(progress)
        done = {name: found[name] if isinstance(found.get(name), int) else 0 for name in FILES}
        ids = {}
        for name in FILES:
            rows = read_rows(work.inputs["training"] / f"{name}.jsonl")
            ids[name] = [row["id"] for row in rows]
            path = work.dir / f"{name}.npy"
            spans = max(1, rows[0]["choices"]) if rows else 1
            shape = (len(rows), spans, model.config.hidden_size)
            stored = np.lib.format.open_memmap(path, "r+" if done[name] else "w+", "<f4", shape)
            for first in range(done[name], len(rows), CHUNK):
                chunk = rows[first : first + CHUNK]
                for places, (vectors, _) in read_batches(model, chunk, self.told, self.max_tokens, f"vectors {name}"):
                    stored[[first + place for place in places]] = vectors.cpu().numpy()
                stored.flush()
                done[name] = first + len(chunk)
                write_json(progress, done)
        write_json(work.dir / "ids.json", ids)
        progress.unlink(missing_ok=True)
        work.counts.update({name: len(its) for name, its in ids.items()})


class Vectors(Mapping[str, Any]):
    """`[spans, hidden]` by `examples.key`; read from the disk when they are asked for."""

    def __init__(self, directory: Path) -> None:
        import numpy as np

        ids = read_json(directory / "ids.json")
        self._stored = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in FILES}
        self._places = {key(name, id_): (name, place) for name in FILES for place, id_ in enumerate(ids[name])}

    def __getitem__(self, of: str) -> Any:
        import torch

        name, place = self._places[of]
        return torch.tensor(self._stored[name][place])

    def __iter__(self) -> Any:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def variance(self) -> float:
        """The mean over the dimensions of the training vectors' variance over texts and spans; of the first 10,000."""
        import numpy as np

        stored = self._stored[FILES[0]]
        return float(np.var(stored.reshape(-1, stored.shape[-1])[:10_000].astype(np.float64), axis=0).mean())
