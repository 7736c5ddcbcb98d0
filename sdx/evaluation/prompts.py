"""Prompts that leave room for the answer in the context of a model."""

from dataclasses import dataclass
from typing import Any

from sdx import InputError
from sdx.config import TemplateKind
from sdx.languages import Language
from sdx.store.files import read_json, read_rows, write_rows
from sdx.store.step import Step, Workspace


@dataclass(frozen=True, eq=False)
class SuiteStep(Step):
    """A step that gives the items of a suite to a model."""

    model: Step
    items: Step

    @property
    def about(self) -> str:
        return f"{self.items.about}, {self.model.moment}"

    @property
    def language(self) -> Language | None:
        return self.items.language


@dataclass(frozen=True, eq=False)
class Prompts(SuiteStep):
    """Publishes the prompts as `rows.jsonl`; one that leaves no room for the answer loses its end and is counted."""

    template: TemplateKind
    room: int
    max_new_tokens: int

    name = "prompts"
    text_fields = ()

    def run(self, work: Workspace) -> None:
        from sdx.models.backbone import load_tokenizer

        model_dir, room = work.inputs["model"] / "model", self.room
        tokenizer = load_tokenizer(model_dir, self.template)
        if context := read_json(model_dir / "config.json").get("max_position_embeddings"):
            room = min(room, context - self.max_new_tokens)
        prompts = {row["id"]: row["prompt"] for row in read_rows(work.inputs["items"] / "rows.jsonl")}
        rows = [{"id": id_, "prompt": fitted(tokenizer, prompt, room)} for id_, prompt in prompts.items()]
        write_rows(work.dir / "rows.jsonl", rows)
        work.counts.update(prompts=len(rows), cut=sum(row["prompt"] != prompts[row["id"]] for row in rows))


def fitted(tokenizer: Any, prompt: str, room: int) -> str:
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
