"""Self-Translate-Train (Ri, Kiyono and Takase, arXiv 2407.00454).

The LLM theta translates the labelled training data of a task, D_L, into the target language T by few-shot prompting,
and is fine-tuned on both versions: theta's own command of T becomes training data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import Config, MethodConfig
from sdx.data.mixture import draw, pair
from sdx.data.translation_instructions import translate_rows
from sdx.languages import Language
from sdx.methods.base import Method, Run
from sdx.store.estimate import ROWS
from sdx.store.files import rows_in
from sdx.store.row_file import RowsById
from sdx.store.step import Step
from sdx.tasks.labelled import LabelledTask
from sdx.translation.base import Translator

SUBSETS = ("src", "tgt", "cs", "mt", "parallel")
"""D_L; D_T by the backbone itself; rows with fields of both; D_T by another engine; the parallel corpus, whose prompts
ask for translations."""
Fields = dict[str, str]


@dataclass
class SelfTranslateTrainConfig(MethodConfig):
    mixture: str = "src+tgt"
    """Subsets to train on: `src`, `tgt`, `cs`, `mt` and `parallel`, joined by +. The paper's are src (zero-shot
    transfer), src+tgt and src+tgt+cs; src+mt is translate-train; src+parallel shows whether translating is what helps.
    Each subset is taken whole, with a single random code-switched version of each row. Ours."""

    @property
    def subsets(self) -> list[str]:
        return self.mixture.split("+")


class SelfTranslateTrain(Method[SelfTranslateTrainConfig]):
    version = 1

    def check(self, run: Run) -> None:
        mixture = self.options.mixture
        for name in self.options.subsets:
            if name not in SUBSETS:
                raise InputError(f"method.mixture={mixture}: there is no {name!r}; join some of {', '.join(SUBSETS)}")
        if len(set(self.options.subsets)) < len(self.options.subsets):
            raise InputError(f"method.mixture={mixture} names a subset twice; give each once")
        if self._uses("parallel") and not run.has_parallel:
            raise InputError(f"method.mixture={mixture} needs a parallel corpus; give parallel=offline or another")
        if self._uses("tgt", "cs"):
            run.check_translator()
            for target in run.targets:
                if (engine := run.translator.for_pair(run.source.flores, target.flores)).is_external:
                    raise InputError(
                        f"translator={engine.name} is not the backbone, which is to translate for itself; leave "
                        f"translator=self, and compare with method.mixture=src+mt translator@mt={engine.name}"
                    )
        if self._uses("mt"):
            run.check_mt()
        task = _task(run)
        if self._uses("tgt", "cs", "mt") and not task.translated:
            raise InputError(f"task.{task.name}.translated=[] leaves nothing to translate; name its texts")
        if self._uses("cs") and len(task.parts) < 2:
            raise InputError(
                f"method.mixture={mixture}: cs needs two texts of a row that can be in two languages, and "
                f"task.{task.name}.translated has one; leave cs out"
            )

    def translators(self, run: Run) -> list[Translator]:
        return list(self._translators(run).values())

    def compared_with(self, config: Config) -> list[str]:
        mixture = "src+tgt" if self.options.mixture == "src" else "src"
        return [f"method={self.options.name}", f"method.mixture={mixture}"]

    def model(self, run: Run) -> Step:
        task = _task(run)
        d_l = task.training(run.source, run.config.scale.corpus_rows)
        inputs = {"d_L": d_l}
        for target in run.targets:
            for name, translator in self._translators(run).items():
                for field in task.translated:
                    d_t = run.translation(d_l, "train.jsonl", field, target, translator, task.reasons.get(field, ""))
                    inputs[f"{name}/{field}/{target.code}"] = d_t
            if self._uses("parallel"):
                inputs[f"p/{target.code}"] = run.parallel(run.source, target)
        options = {"mixture": self.options.subsets, "task": {"name": task.name, **task.template}}
        if self.options.subsets != ["src"]:  # one source model for all targets
            options["languages"] = [run.source.flores, *(target.flores for target in run.targets)]
        return run.training(run.mix(partial(self.pairs, run), inputs, options, self.version))

    def pairs(self, run: Run, inputs: Mapping[str, Path], seed: int) -> Iterator[dict[str, Any]]:
        """The mixture in all target languages. D_T lacks the rows that lost a field to a filter."""
        for name in self.options.subsets:
            targets = run.targets[:1] if name == "src" else run.targets
            rows = chain.from_iterable(self._subset(name, run, inputs, target, seed) for target in targets)
            if (first := next(rows, None)) is None:
                raise InputError(
                    f"method.mixture={self.options.mixture}: nothing is left for {name}: no row kept all its fields; "
                    "see dropped.jsonl of the filter steps, and relax filters.translations or filters.tasks"
                )
            yield first
            yield from rows

    def _subset(
        self, name: str, run: Run, inputs: Mapping[str, Path], target: Language, seed: int
    ) -> Iterator[dict[str, Any]]:
        task, source = _task(run), run.source
        if name == "src":
            for row in rows_in(inputs["d_L"] / "train.jsonl"):
                yield _whole(task, "src", row.pop("id"), row, source, source, "corpus")
            return
        if name == "parallel":
            yield from translate_rows(rows_in(inputs[f"p/{target.code}"] / ROWS), source, target)
            return
        translated = "tgt" if name == "cs" else name
        engine = self._translators(run)[translated].for_pair(source.flores, target.flores).name
        files = {field: inputs[f"{translated}/{field}/{target.code}"] for field in task.translated}
        for id_, in_l, in_t in _translated(inputs["d_L"], files):
            if name == "cs":
                yield _code_switched(task, id_, in_l, in_t, source, target, engine, seed)
            else:
                yield _whole(task, name, id_, in_t, target, source, engine)

    def _uses(self, *subsets: str) -> bool:
        return any(name in self.options.subsets for name in subsets)

    def _translators(self, run: Run) -> dict[str, Translator]:
        """The engines that translate D_L, by subset; code-switched rows are made from `tgt`."""
        engines = {"tgt": run.translator} if self._uses("tgt", "cs") else {}
        return engines | ({"mt": run.mt} if self._uses("mt") else {})


def _task(run: Run) -> LabelledTask:
    """The task that has training data; raises InputError unless exactly one task has."""
    found = [task for task in run.tasks.values() if isinstance(task, LabelledTask)]
    if len(found) != 1:
        given = ",".join(run.tasks) or "[]"
        which = " and ".join(task.name for task in found) or "no task"
        raise InputError(
            f"task={given} has training data for {which}; Self-Translate-Train trains on one: give one of arc_easy, "
            "arc_easy_full, gsm8k, xquad, xnli and mgsm, alone or with tasks that are only evaluated"
        )
    return found[0]


def _translated(d_l: Path, fields: Mapping[str, Path]) -> Iterator[tuple[str, Fields, Fields]]:
    """(id, fields in D_L, fields in D_T), without rows that lost a field to a filter.

    Fields that are not translated, such as labels, stay.
    """
    found = {name: RowsById(of / ROWS, lambda row: str(row["text"])) for name, of in fields.items()}
    for row in rows_in(d_l / "train.jsonl"):
        id_ = row.pop("id")
        texts = {name: text for name, some in found.items() if (text := some.get(id_)) is not None}
        if len(texts) == len(found):
            yield id_, row, {**row, **texts}


def _whole(
    task: LabelledTask, subset: str, id_: str, fields: Fields, language: Language, source: Language, origin: str
) -> dict[str, Any]:
    """A row in one language; labels stay in the source language."""
    answered = (language, origin) if "answer" in task.translated else (source, "corpus")
    return _row(task, subset, id_, fields, (language, origin), answered)


def _row(
    task: LabelledTask,
    subset: str,
    id_: str,
    fields: Fields,
    asked: tuple[Language, str],
    answered: tuple[Language, str],
    variant: str = "",
) -> dict[str, Any]:
    prompt, response = task.prompt(fields), task.response(fields)
    return {**pair(id_, subset, (prompt, *asked), (response, *answered), variant), "plain": task.plain}


def _code_switched(
    task: LabelledTask,
    id_: str,
    in_l: Fields,
    in_t: Fields,
    source: Language,
    target: Language,
    engine: str,
    seed: int,
) -> dict[str, Any]:
    """A random version of a row of D_T with some parts from D_L.

    Context and answer of extractive question answering are one part, because they share a language.
    """
    ways = [way for way in product((False, True), repeat=len(task.parts)) if any(way) and not all(way)]
    way = ways[int(draw(f"{seed}/cs/{target.flores}/{id_}") * len(ways))]
    translated = {name for part, taken in zip(task.parts, way, strict=True) if taken for name in part}
    fields = {**in_l, **{name: in_t[name] for name in translated}}
    asked = next(name for name in task.fields if name in task.translated)
    languages = {name: (target, engine) if name in translated else (source, "corpus") for name in task.fields}
    return _row(task, "cs", id_, fields, languages[asked], languages["answer"], target.code)


SCHEMAS = {"self_translate_train": SelfTranslateTrainConfig}
