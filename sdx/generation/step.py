"""One model's completions of one step's prompts, as a step."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import Any

from sdx import InputError
from sdx.config import TemplateKind
from sdx.generation.base import Generator
from sdx.generation.sampling import GREEDY, Sampling
from sdx.languages import Language
from sdx.models.batches import Arithmetic, RowBytes, number_bytes
from sdx.models.work import ModelWork, most_rows
from sdx.store.batch_log import Row
from sdx.store.estimate import ROWS, Estimate, Plan, Rows, Work
from sdx.store.row_file import RowFile
from sdx.store.row_step import RowStep
from sdx.store.step import Step, Workspace, runtime
from sdx.text.lengths import TEMPLATE_TOKENS

log = getLogger("sdx")

SHOWN_LETTERS = 240
"""Of the first prompt and its answer."""
CUT_SHARE = 0.25
"""Share of answers that may be cut without a warning. Ours; a worked answer that is cut has no result."""


@dataclass(frozen=True, eq=False)
class Generate(RowStep[Generator]):
    """Publishes `rows.jsonl`: `{"id", "prompt", "text", "tokens", "finished"}` for each answer, in the prompts' order.
    The first answer to a prompt has its id, further ones have others, see `Sampling.ids`.

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
    sampling: Sampling = GREEDY
    generator: Generator = runtime()
    label: str = runtime(default="")
    shown: bool = runtime(default=False)
    """Whether the first prompt and its answer were logged, before the rest is spent."""

    @property
    def config(self) -> Mapping[str, Any]:
        engine = {"engine": self.generator.engine} if self.generator.engine else {}
        arithmetic = {} if self.generator.is_remote else {"precision": self.generator.precision.value}
        return {**super().config, **arithmetic, "sampling": self.sampling.identity, **engine}

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
        count = given.count * self.sampling.answers
        prompt = min(given.of(self.field) + TEMPLATE_TOKENS, plan.config.backbone.context_tokens)
        arithmetic = Arithmetic(options.precision, plan.on_gpus.generator.precision)
        row_bytes = RowBytes(plan.shape, number_bytes(arithmetic.gpu)).completed(round(prompt), self.max_new_tokens)
        work: Work = ModelWork(
            loads=1,
            resident=f"{self.model.key} {options.precision.value}",
            shape=plan.shape,
            read=count * prompt,
            generated=count * answers.tokens,
            rows=count,
            most=most_rows(options.batch_size),
            row_bytes=row_bytes,
            decode_steps=self.max_new_tokens,
            passes=1,
            context=prompt + answers.tokens / 2,
            arithmetic=arithmetic,
        )
        if self.generator.is_remote:
            work = Work()
        rows, bound = Rows(count, {"text": answers.tokens, "prompt": prompt}), plan.of(self.prompts).bound
        return Estimate(rows.count, count * answers.tokens, {ROWS: rows}, work, bound, counts_as="generated")

    def read(self, work: Workspace) -> Sequence[Row]:
        prompts = RowFile(work.inputs["prompts"] / self.file, lambda row: {"id": row["id"], "prompt": row[self.field]})
        if self.sampling.answers == 1:
            return prompts
        return [{**row, "id": id_} for row in prompts for id_ in self.sampling.ids(row["id"])]

    def load(self, work: Workspace) -> Generator:
        self.generator.load(work.inputs["model"] / "model", self.template)
        return self.generator

    def batches(self, rows: Sequence[Row], loaded: Generator) -> list[list[int]]:
        """Prompts of similar length, the longest first, so that lack of memory shows at once."""
        prompts = [row["prompt"] for row in rows]
        # In any script bytes follow the number of tokens better than characters, and need no tokenizer.
        order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number].encode()))
        return [order[some] for some in loaded.batches([prompts[number] for number in order], self.max_new_tokens)]

    def process(self, batch: Sequence[Row], loaded: Generator) -> list[Row]:
        prompts, ids = [row["prompt"] for row in batch], [row["id"] for row in batch]
        completions = loaded.complete(prompts, self.max_new_tokens, sampling=self.sampling, ids=ids)
        if not self.shown:
            self.__dict__["shown"] = True
            asked, answered = (_shortened(text) for text in (loaded.prompt(prompts[0]), completions[0].text))
            log.info("%-12s %s: the first prompt is %s, its answer %s", self.name, self.label, asked, answered)
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


def _shortened(text: str) -> str:
    """Beginning and end, on one line that a terminal can show."""
    return repr(
        text if len(text) <= SHOWN_LETTERS else f"{text[: SHOWN_LETTERS // 2]} ... {text[-SHOWN_LETTERS // 2 :]}"
    )
