"""Benchmarks answered freely and compared with references: translation, summaries, answers to questions.

A suite asks in one language and wants the answer in one language; for a translation benchmark they differ, and each
target language has two suites. The answer is the first line of what the model writes, as references are one line,
unless the benchmark says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from sdx import InputError
from sdx.config import Config, TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.generation.step import Generate
from sdx.languages import Language
from sdx.store.files import read_json, read_rows, write_rows
from sdx.store.step import PlainStep, Step, Workspace
from sdx.tasks.generative import READ_VERSION, GenerativeTask, Row, items_step
from sdx.translation.base import Translator
from sdx.translation.step import Translate

FIT_VERSION = 1


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
        return Generate(model, prompts, "rows.jsonl", "prompt", template, limit, generator=self.generator, label=label)


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
        texts = Translate(items, "rows.jsonl", "texts", original, language, translator=translator)
        inputs = {"items": items, "texts": texts}
        translated = PlainStep("items", partial(_translated, task=task), task.description, inputs, READ_VERSION)
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
    return PlainStep(
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
