"""How well an engine translates, the backbone itself among them: measured where a benchmark has human texts.

A benchmark that people wrote or translated in L and in T is a parallel corpus of its questions. An engine translates
the side in L; the side in T is the reference. That takes no step of its own to train and none to answer, so it is there
for every method. Ours: the paper of Self-Translate-Train (arXiv 2407.00454) does not measure it like this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdx.config import Config
from sdx.evaluation.suites import Suite
from sdx.evaluation.values import BLEU, CHRF
from sdx.languages import Language
from sdx.store.files import read_rows, write_rows
from sdx.store.step import Step, Workspace
from sdx.tasks.base import ChoiceTask, Task, Who
from sdx.tasks.forms import LabelledGeneration
from sdx.tasks.items import ROWS, Items, items_step
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

    An engine does not change with training: whatever the model, its translations are the outcome.

    Args:
        translators: those of the run; two that come to the same engine count once.
    """
    found: dict[str, Suite] = {}
    limit = config.scale.eval_items
    for task in tasks.values():
        for target in targets:
            sides = [_human_items(task, side, source, limit) for side in (source, target)]
            if not (sides[0] and sides[1]):
                continue
            pairs = Pairs(sides[0], sides[1], limit)
            for translator in translators:
                if translator.supports(source.flores, target.flores):
                    engine = translator.for_pair(source.flores, target.flores)
                    made = translation_suite(task, source, target, pairs, engine)
                    found.setdefault(made.outcome(pairs, "").key, made)  # whatever the model
    return list(found.values())


def translation_suite(task: Task, source: Language, target: Language, pairs: Step, engine: Translator) -> Suite:
    """A benchmark's texts in a language, translated by an engine.

    Args:
        pairs: publishes the texts and their references, see `Pairs`.
    """
    answers = Translate(pairs, ROWS, "source", source, target, translator=engine)
    return Suite(
        task,
        Who.generate,
        target,
        f"{task.origin(target, target)} ({task.name})",
        pairs,
        lambda *_: answers,
        (CHRF, BLEU),
        source,
        references="reference",
        engine=engine.name,
    )


def _human_items(task: Task, language: Language, source: Language, limit: int) -> Items | None:
    """The items of a benchmark in a language in which people wrote them; none of one whose texts are not told apart."""
    if task.why_unsupported(language) or task.needs_translation(language, source):
        return None
    if isinstance(task, ChoiceTask | LabelledGeneration):
        return items_step(task, task.who, language, limit)
    return None


@dataclass(frozen=True, eq=False)
class Pairs(Step):
    """Publishes `rows.jsonl`, `{"id", "source", "reference"}` for each text that both sides have, in the order of L.

    An item with `fields`, `{name: text}`, gives a row for each field; another one its `question`. Left out and counted
    are texts that are empty or equal on both sides, such as formulas, and a pair that was there before, such as a
    passage with several questions.
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
        for id_ in sources:
            if id_ not in references:
                continue
            pair = sources[id_].strip(), references[id_].strip()
            if not all(pair):
                counts["empty"] += 1
            elif pair[0] == pair[1]:
                counts["equal"] += 1
            elif pair in rows:
                counts["repeated"] += 1
            else:
                rows[pair] = {"id": id_, "source": pair[0], "reference": pair[1]}
        kept = list(rows.values())[: self.limit or None]
        write_rows(work.dir / ROWS, kept)
        work.counts.update(rows=len(kept), **counts)


def _texts(item: Mapping[str, Any]) -> dict[str, str]:
    """The item's texts by the ids of their rows."""
    if "fields" in item:
        return {f"{item['id']}/{name}": text for name, text in item["fields"].items()}
    return {item["id"]: item["question"]}
