"""The vectors that a model gives the training texts, stored by the texts' ids (MT-LLM, stage 2)."""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

from sdx.stacking.inference import InferenceStep, example_id, pooled_batches, warn_of_cut
from sdx.stacking.sequences import Encoded
from sdx.store.batch_log import Row
from sdx.store.estimate import Estimate, Plan
from sdx.store.files import read_json, write_json
from sdx.store.row_file import RowFile
from sdx.store.shared_log import SharedLog
from sdx.store.step import Step, Workspace

SPLITS = ("train", "validation")
NUMBERS = "<f4"


@dataclass(frozen=True, eq=False)
class VectorsStep(InferenceStep):
    """Publishes `<split>.npy` of train.jsonl and validation.jsonl, fp32 `[texts, spans, hidden]`, and `ids.json`."""

    name: ClassVar[str] = "vectors"
    unit: ClassVar[str] = "texts"

    training: Step
    """The labelled texts."""

    def estimate(self, plan: Plan) -> Estimate:
        count = sum(plan.rows(self.training, f"{name}.jsonl").count for name in SPLITS)
        rows, chooses = plan.rows(self.training, "train.jsonl"), not self.training.config.get("labels")
        return self.estimate_of(plan, rows, count, chooses)

    def read(self, work: Workspace) -> Sequence[Row]:
        return _Splits(work.inputs["training"])

    def answers(self, model: Any, rows: Sequence[Row], encoded: Sequence[Encoded]) -> Iterator[tuple[int, Row]]:
        for indices, (vectors, _) in pooled_batches(model, rows, encoded):
            for index, values in zip(indices, vectors.cpu().numpy().astype(NUMBERS), strict=True):
                text = b64encode(values.tobytes()).decode()
                yield index, {"id": rows[index]["id"], "spans": len(values), "vectors": text}

    def publish(self, log: SharedLog, work: Workspace) -> None:
        """Writes text by text, because memory may not hold all vectors."""
        import numpy as np

        warn_of_cut(log.rows(), self.max_tokens)
        splits, done = _Splits(work.inputs["training"]).files, log.rows()
        first: Row = next(log.rows(), {"spans": 1, "vectors": ""})
        hidden = len(b64decode(first["vectors"])) // np.dtype(NUMBERS).itemsize // first["spans"]
        ids = {}
        for split, rows in splits.items():
            ids[split] = [row["id"].removeprefix(example_id(split, "")) for row in rows]
            shape = (len(rows), first["spans"] if len(rows) else 1, hidden)
            stored = np.lib.format.open_memmap(work.dir / f"{split}.npy", "w+", NUMBERS, shape)
            for number, row in enumerate(islice(done, len(rows))):
                stored[number] = np.frombuffer(b64decode(row["vectors"]), NUMBERS).reshape(shape[1:])
            stored.flush()
        write_json(work.dir / "ids.json", ids)
        work.counts.update({split: len(ids[split]) for split in SPLITS})


class _Splits(Sequence[Row]):
    """The rows of both splits, with ids by `example_id`."""

    def __init__(self, directory: Path) -> None:
        def named(split: str, row: Row) -> Row:
            return {**row, "id": example_id(split, row["id"])}

        self.files = {split: RowFile(directory / f"{split}.jsonl", partial(named, split)) for split in SPLITS}

    def __len__(self) -> int:
        return sum(map(len, self.files.values()))

    def __iter__(self) -> Iterator[Row]:
        return chain(*self.files.values())

    def __getitem__(self, index: Any) -> Any:
        train, validation = self.files.values()
        return train[index] if index < len(train) else validation[index - len(train)]


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
