"""How well an engine translates, the backbone itself among them: measured where a benchmark has human texts.

A benchmark that people wrote or translated in L and in T is a parallel corpus of its questions. An engine translates
the side in L; the side in T is the reference. That takes no step of its own to train and none to answer, so it is there
for every method. Ours: the paper of Self-Translate-Train (arXiv 2407.00454) does not measure it like this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sdx.config import Config
from sdx.evaluation import suites
from sdx.evaluation.reading import ReadingSuite
from sdx.evaluation.suites import Suite
from sdx.languages import Language
from sdx.store.files import read_rows, write_rows
from sdx.store.step import PlainStep, Step, Workspace
from sdx.tasks import generative as generative_tasks
from sdx.tasks.base import ChoiceTask, Task
from sdx.tasks.forms import LabelledGeneration
from sdx.translation.base import Translator
from sdx.translation.step import Translate

VERSION = 1


@dataclass(frozen=True)
class TranslationSuite:
    """A benchmark's human texts, translated by one engine: an outcome publishes the translations as `rows.jsonl`.

    The engine does not change with training: there is one outcome, and it stands for the time before.
    """

    benchmark: str
    """The name of the task that the texts are from."""
    source: Language
    language: Language
    """Of the translations."""
    origin: str
    """Who wrote the references: original or human-translated."""
    engine: str
    """Name of the translator, for `auto` of the one that it chooses for the pair."""
    pairs: Step
    """Publishes `rows.jsonl`, see `reference_pairs_step`."""
    translator: Translator

    @property
    def languages(self) -> str:
        """As tables name them: `en-th`."""
        return f"{self.source.code}-{self.language.code}"

    @property
    def needs(self) -> tuple[Step, ...]:
        return (self.pairs,)

    def outcome(self) -> Step:
        return Translate(self.pairs, "rows.jsonl", "source", self.source, self.language, translator=self.translator)


Scored = Suite | ReadingSuite | TranslationSuite
"""What a cell has scores of."""


def translation_suites(
    config: Config,
    tasks: Mapping[str, Task],
    source: Language,
    targets: Sequence[Language],
    translators: Sequence[Translator],
) -> list[TranslationSuite]:
    """A suite for each benchmark with human texts in `source` and a target, and each engine that knows the pair.

    Args:
        translators: those of the cell; two that come to the same engine count once.
    """
    found: dict[str, TranslationSuite] = {}
    limit = config.scale.eval_items
    for name, task in tasks.items():
        for target in targets:
            sides = [_human_items(task, side, source, limit) for side in (source, target)]
            if not (sides[0] and sides[1]):
                continue
            pairs = reference_pairs_step(sides[0], sides[1], limit)
            for translator in translators:
                if translator.supports(source.flores, target.flores):
                    engine = translator.for_pair(source.flores, target.flores)
                    made = TranslationSuite(name, source, target, _origin(task, target), engine.name, pairs, engine)
                    found.setdefault(made.outcome().key, made)
    return list(found.values())


def _human_items(task: Task, language: Language, source: Language, limit: int) -> Step | None:
    """The items of a benchmark in a language in which people wrote them; none of one whose texts are not told apart."""
    if task.obstacle(language) or task.needs_translation(language, source):
        return None
    if isinstance(task, ChoiceTask):
        return suites.items_step(task, language, limit)
    if isinstance(task, LabelledGeneration):
        return generative_tasks.items_step(task, language, language, limit)
    return None


def _origin(task: Task, language: Language) -> str:
    if isinstance(task, LabelledGeneration):
        return task.origin(language, language)
    assert isinstance(task, ChoiceTask)
    return task.origin(language)


def reference_pairs_step(items_L: Step, items_T: Step, limit: int) -> Step:
    """Publishes `rows.jsonl`, `{"id", "source", "reference"}` for each text that both sides have, in the order of L.

    An item with `fields`, `{name: text}`, gives a row for each field; another one its `question`. Left out and counted
    are texts that are empty or equal on both sides, such as formulas, and a pair that was there before, such as a
    passage with several questions.

    Args:
        items_L, items_T: steps that publish the same items, by id, as `rows.jsonl` in L and in T.
        limit: rows at most, 0 for all.
    """
    return PlainStep(
        "pairs",
        partial(_pairs, limit=limit),
        config={"limit": limit},
        inputs={"source": items_L, "reference": items_T},
        version=VERSION,
    )


def _pairs(workspace: Workspace, limit: int) -> None:
    sources, references = (
        {id_: text for row in read_rows(workspace.inputs[side] / "rows.jsonl") for id_, text in _texts(row).items()}
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
    kept = list(rows.values())[: limit or None]
    write_rows(workspace.dir / "rows.jsonl", kept)
    workspace.counts.update(rows=len(kept), **counts)


def _texts(item: Mapping[str, Any]) -> dict[str, str]:
    """The item's texts by the ids of their rows."""
    if "fields" in item:
        return {f"{item['id']}/{name}": text for name, text in item["fields"].items()}
    return {item["id"]: item["question"]}
