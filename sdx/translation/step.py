"""The step that translates the texts of another step into one language."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sdx.languages import Language
from sdx.store.batch_log import Row
from sdx.store.estimate import ROWS, Estimate, Plan, Rows
from sdx.store.files import SENTENCES
from sdx.store.row_file import RowFile
from sdx.store.row_step import RowStep, in_order
from sdx.store.shared_log import SharedLog
from sdx.store.step import Step, Workspace, runtime
from sdx.text.lengths import fertility
from sdx.translation.base import Texts, Translator
from sdx.translation.memory import Memory, memory_in


@dataclass(frozen=True, eq=False)
class Translate(RowStep[Memory | None]):
    """Publishes `rows.jsonl`: `{"id", "source", "text"}` for each row of `rows`/`file`, in its order."""

    name = "translate"
    text_fields = ("source",)

    rows: Step
    """Publishes `file`, whose rows have `id` and `field`."""
    file: str
    field: str
    """The text, or the list of texts, to translate; `text` has the same form."""
    source: Language
    target: Language
    translator: Translator = runtime()
    """Replaced by its `for_pair`."""
    needs: Mapping[str, Step] = dataclasses.field(init=False)
    """Of the translator, for the pair."""
    purpose: Language | None = runtime(default=None)
    """`purpose_language`, if that is not the target."""

    def __post_init__(self) -> None:
        pair = self.source.flores, self.target.flores
        engine = self.translator.for_pair(*pair)
        self.__dict__.update(translator=engine, needs=engine.needs(*pair))

    @property
    def config(self) -> Mapping[str, Any]:
        return {**super().config, "translator": self.translator.name, "translator_version": self.translator.version}

    @property
    def about(self) -> str:
        return f"{self.about_field('', '')} by {self.translator.name}"

    def about_field(self, file: str, field: str) -> str:
        return self.rows.about_field(self.file, self.field)

    @property
    def language(self) -> Language:
        return self.target

    @property
    def purpose_language(self) -> Language:
        return self.purpose or self.target

    @property
    def label(self) -> str:
        return f"to {self.target.code}"

    def estimate(self, plan: Plan) -> Estimate:
        given = plan.rows(self.rows, self.file)
        tokens = given.of(self.field)
        before, after = (fertility(side.flores, plan.shape.vocab_size) for side in (self.source, self.target))
        texts = Texts(given.count, tokens / before, tokens / before * after)
        files = {ROWS: Rows(given.count, {"source": tokens, "text": texts.target})}
        work, bound = self.translator.work(plan, texts, self.needs), plan.of(self.rows).bound
        return Estimate(given.count, given.count * tokens, files, work, bound, counts_as="translated")

    def read(self, work: Workspace) -> Sequence[Row]:
        return RowFile(work.inputs["rows"] / self.file, lambda row: {"id": row["id"], "source": row[self.field]})

    def load(self, work: Workspace) -> Memory | None:
        self.translator.prepare(work.inputs)
        return self._memory(work)

    def _memory(self, work: Workspace) -> Memory | None:
        """The memory of all that decides a sentence's translation: what the key is of, without the rows."""
        if work.cache_dir is None or not self.translator.is_remembered:
            return None
        names = self.translator.name, self.source.flores, self.target.flores
        needs = {name: step.key for name, step in self.needs.items()}
        key = sha256(json.dumps([*names, self.translator.version, needs], sort_keys=True).encode()).hexdigest()[:16]
        return memory_in(work.cache_dir / SENTENCES / "-".join(names) / key)

    def batches(self, rows: Sequence[Row], loaded: Memory | None) -> list[range]:
        return in_order(rows, self.translator.batch_rows)

    def publish(self, log: SharedLog, work: Workspace) -> None:
        super().publish(log, work)
        if memory := self._memory(work):
            work.counts["known"] = memory.report()

    def process(self, batch: Sequence[Row], loaded: Memory | None) -> list[Row]:
        texts = [row["source"] for row in batch]
        flat = [text for some in texts for text in ([some] if isinstance(some, str) else some)]
        done = iter(self.translator.translate(flat, self.source.flores, self.target.flores, loaded))
        translated = (next(done) if isinstance(some, str) else [next(done) for _ in some] for some in texts)
        return [{**row, "text": text} for row, text in zip(batch, translated, strict=True)]
