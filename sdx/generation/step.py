"""One model's completions of one step's prompts, as a step."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import Any

from sdx import InputError
from sdx.config import TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.languages import Language
from sdx.models.batches import Arithmetic, RowBytes, number_bytes
from sdx.models.work import ModelWork, most_rows
from sdx.store.batch_log import Row
from sdx.store.estimate import ROWS, Estimate, Plan, Rows
from sdx.store.row_file import RowFile
from sdx.store.row_step import RowStep
from sdx.store.step import Step, Workspace, runtime
from sdx.text.lengths import TEMPLATE_TOKENS

log = getLogger("sdx")

CUT_SHARE = 0.25
"""Share of answers that may be cut without a warning. Ours; a worked answer that is cut has no result."""


@dataclass(frozen=True, eq=False)
class Generate(RowStep[HFGenerator]):
    """Publishes `rows.jsonl`: `{"id", "prompt", "text", "tokens", "finished"}` for each prompt, in order.

    Counts `tokens` generated; `cut`, answers that reached `max_new_tokens`; and `too_long`, prompts that left no room
    for an answer in the model's context and have an empty one.
    """

    name = "generate"
    version = 2
    text_fields = ()

    model: Step
    """Publishes `model/`, a Hugging Face directory."""
    prompts: Step
    """Publishes `file` with `id` and the prompt in `field`."""
    file: str
    field: str
    template: TemplateKind
    max_new_tokens: int
    generator: HFGenerator = runtime()
    label: str = runtime(default="")

    @property
    def config(self) -> Mapping[str, Any]:
        return {**super().config, "precision": self.generator.precision.value, "sampling": "greedy"}

    @property
    def about(self) -> str:
        return f"{self.prompts.about_field(self.file, self.field)}, {self.model.moment}"

    @property
    def result(self) -> str:
        return "own answers"

    @property
    def language(self) -> Language | None:
        return self.prompts.language

    def estimate(self, plan: Plan) -> Estimate:
        given, answers, options = plan.rows(self.prompts, self.file), plan.answers(self), plan.config.generator
        assert answers
        prompt = min(given.of(self.field) + TEMPLATE_TOKENS, plan.config.backbone.context_tokens)
        arithmetic = Arithmetic(options.precision, plan.on_gpus.generator.precision)
        row_bytes = RowBytes(plan.shape, number_bytes(arithmetic.gpu)).completed(round(prompt), self.max_new_tokens)
        work = ModelWork(
            loads=1,
            resident=f"{self.model.key} {options.precision.value}",
            shape=plan.shape,
            read=given.count * prompt,
            generated=given.count * answers.tokens,
            rows=given.count,
            most=most_rows(options.batch_size),
            row_bytes=row_bytes,
            decode_steps=self.max_new_tokens,
            passes=1,
            context=prompt + answers.tokens / 2,
            arithmetic=arithmetic,
        )
        rows, bound = Rows(given.count, {"text": answers.tokens, "prompt": prompt}), plan.of(self.prompts).bound
        return Estimate(rows.count, work.generated, {ROWS: rows}, work, bound, counts_as="generated")

    def read(self, work: Workspace) -> Sequence[Row]:
        prompts = work.inputs["prompts"] / self.file
        return RowFile(prompts, lambda row: {"id": row["id"], "prompt": row[self.field]})

    def load(self, work: Workspace) -> HFGenerator:
        self.generator.load(work.inputs["model"] / "model", self.template)
        return self.generator

    def batches(self, rows: Sequence[Row], loaded: HFGenerator) -> list[list[int]]:
        """Prompts of similar length, the longest first, so that lack of memory shows at once."""
        prompts = [row["prompt"] for row in rows]
        # In any script bytes follow the number of tokens better than characters, and need no tokenizer.
        order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number].encode()))
        return [order[some] for some in loaded.batches([prompts[number] for number in order], self.max_new_tokens)]

    def process(self, batch: Sequence[Row], loaded: HFGenerator) -> list[Row]:
        completions = loaded.complete([row["prompt"] for row in batch], self.max_new_tokens)
        return [{**row, **vars(completion)} for row, completion in zip(batch, completions, strict=True)]

    def count(self, rows: Iterable[Row]) -> dict[str, int]:
        """Raises InputError if no prompt left room for an answer."""
        ends = [(row["tokens"], row["finished"]) for row in rows]
        total = sum(tokens for tokens, _ in ends)
        if ends and not total:
            raise InputError(
                f"scale.max_new_tokens={self.max_new_tokens} leaves no room for any of the {len(ends)} prompts in the "
                "model's context; lower it"
            )
        cut = sum(tokens > 0 and not finished for tokens, finished in ends)
        if cut > CUT_SHARE * len(ends):
            log.warning(
                "%-12s %s: %d of %d answers are cut off at scale.max_new_tokens=%d",
                *(self.name, self.label, cut, len(ends), self.max_new_tokens),
            )
        too_long = sum(tokens == 0 for tokens, _ in ends)
        return {"rows": len(ends), "tokens": total, "cut": cut, "too_long": too_long}
