"""How well an engine, or the backbone itself, translates: measured on benchmarks that people translated.

A benchmark that people wrote or translated in L and in T is a parallel corpus of its questions. An engine translates
the side in L; the side in T is the reference. No step has to be trained or answered for this, so every method has it.
Ours: the paper of Self-Translate-Train (arXiv 2407.00454) does not measure it like this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdx.config import Config
from sdx.evaluation.metrics import BLEU, CHRF
from sdx.evaluation.suites import Suite
from sdx.languages import Language
from sdx.store.estimate import ROWS
from sdx.store.files import read_rows, write_rows
from sdx.store.step import Step, Workspace
from sdx.tasks.base import ChoiceTask, Mode, Task
from sdx.tasks.forms import LabelledGeneration
from sdx.tasks.items import items_step
from sdx.translation.base import Translator
from sdx.translation.step import Translate


def translation_suites(
    config: Config,
    tasks: Mapping[str, Task],
    source: Language,
    targets: Sequence[Language],
    translators: Sequence[Translator],
) -> list[Suite]:
    """A suite for each benchmark with human texts in `source` and a target, and each engine that knows the pair.

    An engine does not change with training: its translations are the outcome of every model.

    Args:
        translators: those of the run; two that choose the same engine count once.
    """
    found: dict[str, Suite] = {}
    limit = config.scale.eval_items
    for task in tasks.values():
        if not isinstance(task, ChoiceTask | LabelledGeneration):
            continue  # the texts of other items cannot be told from their prompts
        for target in targets:
            if any(task.why_unsupported(side) or task.needs_translation(side, source) for side in (source, target)):
                continue
            one, other = (items_step(task, task.mode, side, limit) for side in (source, target))
            pairs = Pairs(one, other, limit)
            for translator in translators:
                if translator.supports(source.flores, target.flores):
                    engine = translator.for_pair(source.flores, target.flores)
                    suite = translation_suite(task, source, target, pairs, engine)
                    found.setdefault(suite.outcome(pairs, "").key, suite)  # whatever the model
    return list(found.values())


def translation_suite(task: Task, source: Language, target: Language, pairs: Step, engine: Translator) -> Suite:
    """A benchmark's texts in a language, which `pairs` publishes with their references, translated by an engine."""
    answers = Translate(pairs, ROWS, "source", source, target, translator=engine)
    return Suite(
        task,
        Mode.generate,
        target,
        f"{task.origin(target)} ({task.name})",
        pairs,
        lambda *_, **__: answers,
        (CHRF, BLEU),
        source,
        references="reference",
        engine=engine.name,
    )


@dataclass(frozen=True, eq=False)
class Pairs(Step):
    """Publishes `rows.jsonl`, `{"id", "source", "reference"}` for each text that both sides have, in the order of L.

    An item with `fields`, `{name: text}`, gives a row for each field, any other a row for its `question`. Left out and
    counted are texts that are empty or equal on both sides, such as formulas, and repeated pairs, such as a passage
    with several questions.
    """

    source: Step
    """Publishes items in L as `rows.jsonl`."""
    reference: Step
    """Publishes the same items, by id, in T."""
    limit: int
    """Rows at most, 0 for all."""

    name = "pairs"
    reads = True
    text_fields = ()

    @property
    def about(self) -> str:
        return self.source.about

    def run(self, work: Workspace) -> None:
        sources, references = (
            {id_: text for row in read_rows(work.inputs[side] / ROWS) for id_, text in _texts(row).items()}
            for side in ("source", "reference")
        )
        counts = dict.fromkeys(("one_side", "empty", "equal", "repeated"), 0)
        counts["one_side"] = len(sources.keys() ^ references.keys())
        rows: dict[tuple[str, str], dict[str, str]] = {}
        for id_ in (id_ for id_ in sources if id_ in references):
            source, reference = pair = sources[id_].strip(), references[id_].strip()
            if not all(pair):
                counts["empty"] += 1
            elif source == reference:
                counts["equal"] += 1
            elif pair in rows:
                counts["repeated"] += 1
            else:
                rows[pair] = {"id": id_, "source": source, "reference": reference}
        published = list(rows.values())[: self.limit or None]
        write_rows(work.dir / ROWS, published)
        work.counts.update(rows=len(published), **counts)


def _texts(item: Mapping[str, Any]) -> dict[str, str]:
    """The item's texts by the ids of their rows."""
    if "fields" in item:
        return {f"{item['id']}/{name}": text for name, text in item["fields"].items()}
    return {item["id"]: item["question"]}
