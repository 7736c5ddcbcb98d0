"""Benchmarks answered freely and compared with references: translation, summaries, answers to questions.

A suite asks in one language and wants the answer in one language; for a translation benchmark they differ, and each
target language has two suites. The answer is the first line of what the model writes, as references are one line,
unless the benchmark says otherwise.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from sdx.artifacts import Step, Workspace, read_json, read_rows, write_rows
from sdx.config import Config, InputError, TemplateKind
from sdx.evaluation.normalisation import Normalisation
from sdx.evaluation.tasks import Kind, Pairable, Task
from sdx.generation.hf import HFGenerator
from sdx.generation.step import generate_step
from sdx.languages import Language
from sdx.translation.base import Translator
from sdx.translation.rows import translate_step

READ_VERSION = 2
FIT_VERSION = 1


class Row(Pairable):
    """A prompt with the answers that are right."""

    id: str
    prompt: str
    references: list[str]


class GenerativeTask(Task):
    """A benchmark of prompts with references."""

    kind = Kind.free
    metrics: tuple[str, ...]
    """Some of chrF++, ROUGE-L, F1, exact match and accuracy, see `sdx.evaluation.scores`."""
    normalisation = Normalisation.unicode
    """What F1 and exact match compare."""

    def __init__(self, shots: int) -> None:
        super().__init__(shots)
        if shots:
            raise InputError(f"task.{self.name}.shots={shots}: {self.name} is asked without examples; write 0")

    def needs_translation(self, language: Language, source: Language) -> bool:
        return False

    def pairs(self, source: Language, language: Language) -> list[tuple[Language, Language]]:
        """(language of the prompt's text, language of the answer) of each suite that a language of the cell has.

        Args:
            source: the cell's L.
        """
        return [(language, language)]

    def ask(self, fields: Mapping[str, str]) -> str:
        """The prompt around the `fields` of a row, where a translator has to render them."""
        raise NotImplementedError

    def answer(self, completion: str) -> str:
        """What of a completion is compared with the references."""
        return answer_of(completion)

    @abstractmethod
    def origin(self, asked: Language, answered: Language) -> str:
        """Who wrote the texts: `original` or `human-translated`."""

    def opened(self, language: Language) -> str:
        """As messages name the file of a language."""
        return f"the file of {language.name}"

    @abstractmethod
    def inputs(self, asked: Language, answered: Language) -> dict[str, Step]:
        """The steps whose outputs `read` needs, by name.

        Raises:
            InputError: a file is not there.
        """

    @abstractmethod
    def read(self, directories: Mapping[str, Path], asked: Language, answered: Language) -> list[Row]:
        """All rows, from the outputs of `inputs`.

        Raises:
            InputError: a file is not in the benchmark's format.
        """


@dataclass(frozen=True)
class GenerativeSuite:
    """Prompts with references: an outcome publishes the completions as `rows.jsonl`."""

    task: GenerativeTask
    asked: Language
    language: Language
    """Of the answers."""
    origin: str
    items: Step
    """Publishes `rows.jsonl`, a `Row` each."""
    generator: HFGenerator
    config: Config

    @property
    def languages(self) -> str:
        """As tables name them: `th`, or `en-th` for a translation."""
        codes = (self.asked.code, self.language.code)
        return "-".join(dict.fromkeys(codes))

    @property
    def needs(self) -> tuple[Step, ...]:
        return (self.items,)

    def outcome(self, model: Step, label: str) -> Step:
        template, limit = self.config.backbone.template, self.config.scale.max_new_tokens
        prompts = _fit_step(model, self.items, template, self.config.backbone.context_tokens, limit)
        label = f"{self.task.name} {self.languages} {label}"
        return generate_step(model, prompts, "rows.jsonl", "prompt", self.generator, template, limit, label)


def generative_suites(
    config: Config,
    task: GenerativeTask,
    translator: Translator,
    generator: HFGenerator,
    source: Language,
    language: Language,
) -> list[GenerativeSuite]:
    """The suites that a language of the cell has in a benchmark."""
    limit = config.scale.eval_items
    if task.needs_translation(language, source):
        original = task.original(source)
        items = items_step(task, original, original, limit)
        texts = translate_step(items, "rows.jsonl", "texts", translator, original, language)
        inputs = {"items": items, "texts": texts}
        translated = Step("items", partial(_translated, task=task), task.description, inputs, READ_VERSION)
        origin = machine_translated(translator, original, language)
        return [GenerativeSuite(task, language, language, origin, translated, generator, config)]
    return [
        GenerativeSuite(
            task,
            asked,
            answered,
            task.origin(asked, answered),
            items_step(task, asked, answered, limit),
            generator,
            config,
        )
        for asked, answered in task.pairs(source, language)
    ]


def machine_translated(translator: Translator, original: Language, language: Language) -> str:
    return f"machine-translated ({translator.for_pair(original.flores, language.flores).name})"


def answer_of(completion: str) -> str:
    """The first line with a text; nothing where there is none."""
    return next((line.strip() for line in completion.splitlines() if line.strip()), "")


def items_step(task: GenerativeTask, asked: Language, answered: Language, limit: int) -> Step:
    """Publishes the first `limit` rows, all for 0, in the order of a hash of their ids."""
    return Step(
        "items",
        partial(_read, task=task, asked=asked, answered=answered, limit=limit),
        config={
            "task": task.name,
            "asked": asked.flores,
            "answered": answered.flores,
            "limit": limit,
            **task.description,
        },
        inputs=task.inputs(asked, answered),
        version=READ_VERSION,
    )


def _read(workspace: Workspace, task: GenerativeTask, asked: Language, answered: Language, limit: int) -> None:
    rows = task.read(workspace.inputs, asked, answered)
    if not rows:
        raise InputError(f"task={task.name}: {task.opened(asked)} holds nothing to ask; give the benchmark's own")
    if len({row["id"] for row in rows}) < len(rows):
        raise InputError(f"task={task.name}: {task.opened(asked)} has an id twice; give the benchmark's own")
    rows.sort(key=lambda row: sha256(row["id"].encode()).digest())
    rows = rows[: limit or None]
    # `texts` is what a translator has to translate
    texts = [{"texts": list(row["fields"].values())} if "fields" in row else {} for row in rows]
    write_rows(workspace.dir / "rows.jsonl", [{**row, **more} for row, more in zip(rows, texts, strict=True)])
    workspace.counts.update(items=len(rows))


def _translated(workspace: Workspace, task: GenerativeTask) -> None:
    texts = {row["id"]: row["text"] for row in read_rows(workspace.inputs["texts"] / "rows.jsonl")}
    rows: list[Row] = []
    for item in read_rows(workspace.inputs["items"] / "rows.jsonl"):
        fields = dict(zip(item["fields"], texts[item["id"]], strict=True))
        rows.append({"id": item["id"], "prompt": task.ask(fields), "references": item["references"], "fields": fields})
    write_rows(workspace.dir / "rows.jsonl", rows)
    workspace.counts.update(items=len(rows))


def _fit_step(model: Step, items: Step, template: TemplateKind, context_tokens: int, max_new_tokens: int) -> Step:
    """Publishes the prompts as `rows.jsonl`; one that leaves no room for the answer loses its end and is counted."""
    room = context_tokens - max_new_tokens
    if room < 1:
        raise InputError(
            f"scale.max_new_tokens={max_new_tokens} leaves no room for a prompt in "
            f"backbone.context_tokens={context_tokens}; lower the one or raise the other"
        )
    return Step(
        "prompts",
        partial(_fit, template=template, room=room, max_new_tokens=max_new_tokens),
        config={"template": template.value, "room": room, "max_new_tokens": max_new_tokens},
        inputs={"model": model, "items": items},
        version=FIT_VERSION,
    )


def _fit(workspace: Workspace, template: TemplateKind, room: int, max_new_tokens: int) -> None:
    from sdx.models.backbone import load_tokenizer

    model_dir = workspace.inputs["model"] / "model"
    tokenizer = load_tokenizer(model_dir, template)
    if context := read_json(model_dir / "config.json").get("max_position_embeddings"):
        room = min(room, context - max_new_tokens)
    rows, cut = [], 0
    for row in read_rows(workspace.inputs["items"] / "rows.jsonl"):
        prompt = _fitted(tokenizer, row["prompt"], room)
        cut += prompt != row["prompt"]
        rows.append({"id": row["id"], "prompt": prompt})
    write_rows(workspace.dir / "rows.jsonl", rows)
    workspace.counts.update(prompts=len(rows), cut=cut)


def _fitted(tokenizer: Any, prompt: str, room: int) -> str:
    """The longest beginning of a prompt that takes at most `room` tokens, with what the template adds."""
    from sdx.models.template import prompt_ids

    while (excess := len(prompt_ids(tokenizer, prompt)) - room) > 0:
        offsets = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        if excess >= len(offsets):
            raise InputError(
                f"the model's template leaves no room for a prompt in {room} tokens; lower scale.max_new_tokens "
                "or raise backbone.context_tokens"
            )
        prompt = prompt[: offsets[-excess][0]].rstrip()
    return prompt
