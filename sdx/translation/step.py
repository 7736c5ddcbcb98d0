"""The step that translates the texts of another step into one language."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdx.languages import Language
from sdx.store.batch_log import Row
from sdx.store.estimate import ROWS, Estimate, Plan, Rows
from sdx.store.row_file import RowFile
from sdx.store.row_step import RowStep, in_order
from sdx.store.step import Step, Workspace, runtime
from sdx.text.lengths import fertility
from sdx.translation.base import Texts, Translator


@dataclass(frozen=True, eq=False)
class Translate(RowStep[Translator]):
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

    def load(self, work: Workspace) -> Translator:
        self.translator.prepare(work.inputs)
        return self.translator

    def batches(self, rows: Sequence[Row], loaded: Translator) -> list[range]:
        return in_order(rows, loaded.batch_rows)

    def process(self, batch: Sequence[Row], loaded: Translator) -> list[Row]:
        texts = [row["source"] for row in batch]
        flat = [text for some in texts for text in ([some] if isinstance(some, str) else some)]
        done = iter(loaded.translate(flat, self.source.flores, self.target.flores))
        translated = (next(done) if isinstance(some, str) else [next(done) for _ in some] for some in texts)
        return [{**row, "text": text} for row, text in zip(batch, translated, strict=True)]
