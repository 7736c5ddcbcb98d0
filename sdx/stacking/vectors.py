"""The vectors that a model gives the training texts, stored by the texts' ids (MT-LLM, stage 2)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sdx.stacking.inference import InferenceStep, example_id, pooled_batches
from sdx.store.estimate import Estimate, Plan
from sdx.store.files import read_intact, read_json, read_rows, write_json
from sdx.store.step import Step, Workspace

SPLITS = ("train", "validation")
CHUNK = 4096
"""Texts between two points at which a killed step resumes."""


@dataclass(frozen=True, eq=False)
class VectorsStep(InferenceStep):
    """Publishes `<split>.npy` of train.jsonl and validation.jsonl, fp32 `[texts, spans, hidden]`, and `ids.json`."""

    name: ClassVar[str] = "vectors"

    training: Step
    """The labelled texts."""

    def estimate(self, plan: Plan) -> Estimate:
        count = sum(plan.rows(self.training, f"{name}.jsonl").count for name in SPLITS)
        rows, chooses = plan.rows(self.training, "train.jsonl"), not self.training.config.get("labels")
        return self.estimate_of(plan, rows, count, chooses)

    def run(self, work: Workspace) -> None:
        """Reads chunks in the order of the ids, each in batches by length, so a resumed step has the same batches."""
        import numpy as np

        model = self.load(work)
        progress = work.dir / "progress.json"
        done = dict.fromkeys(SPLITS, 0) | read_intact(progress)
        ids = {}
        for split in SPLITS:
            rows = read_rows(work.inputs["training"] / f"{split}.jsonl")
            ids[split] = [row["id"] for row in rows]
            shape = (len(rows), max(1, rows[0]["choices"]) if rows else 1, model.config.hidden_size)
            mode = "r+" if done[split] else "w+"
            stored = np.lib.format.open_memmap(work.dir / f"{split}.npy", mode, "<f4", shape)
            for first in range(done[split], len(rows), CHUNK):
                chunk = rows[first : first + CHUNK]
                batches = pooled_batches(model, chunk, self.read_as, self.max_tokens, f"vectors {split}")
                for indices, (vectors, _) in batches:
                    stored[[first + index for index in indices]] = vectors.cpu().numpy()
                stored.flush()
                done[split] = first + len(chunk)
                write_json(progress, done)
        write_json(work.dir / "ids.json", ids)
        progress.unlink(missing_ok=True)
        work.counts.update({split: len(ids[split]) for split in SPLITS})


class Vectors(Mapping[str, Any]):
    """`[spans, hidden]` by `inference.example_id`, read from disk on access."""

    def __init__(self, directory: Path) -> None:
        import numpy as np

        ids = read_json(directory / "ids.json")
        self._stored = {split: np.load(directory / f"{split}.npy", mmap_mode="r") for split in SPLITS}
        self._rows = {example_id(split, id_): (split, row) for split in SPLITS for row, id_ in enumerate(ids[split])}

    def __getitem__(self, id_: str) -> Any:
        import torch

        split, row = self._rows[id_]
        return torch.tensor(self._stored[split][row])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def variance(self) -> float:
        """Variance of the first 10,000 training vectors over texts and spans, averaged over the dimensions."""
        import numpy as np

        stored = self._stored["train"]
        return float(np.var(stored.reshape(-1, stored.shape[-1])[:10_000].astype(np.float64), axis=0).mean())
