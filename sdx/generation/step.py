"""Completions of one model for the prompts of one step, as a step of its own: shared and resumable."""

from functools import partial
from logging import getLogger

from sdx.config import TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.generation.rows import generate_rows
from sdx.store.files import read_rows
from sdx.store.step import PlainStep, Step, Workspace

log = getLogger("sdx")

MANY = 0.25
"""Of the answers. Ours; a worked answer that is cut has no result."""


def generate_step(
    model: Step,
    prompts: Step,
    file: str,
    field: str,
    generator: HFGenerator,
    template: TemplateKind,
    max_new_tokens: int,
    label: str,
) -> Step:
    """Publishes `rows.jsonl`: `{"id", "prompt", "text", "tokens", "finished"}` for each prompt, in its order.

    Args:
        model: a step whose output holds `model/`, a Hugging Face directory.
        prompts: a step that publishes `file` with `id` and the prompt in `field`.
        label: what the progress bar says.
    """
    return PlainStep(
        "generate",
        partial(
            _run,
            file=file,
            field=field,
            generator=generator,
            template=template,
            max_new_tokens=max_new_tokens,
            label=label,
        ),
        config={
            "file": file,
            "field": field,
            "precision": generator.precision.value,
            "template": template.value,
            "sampling": "greedy",
            "max_new_tokens": max_new_tokens,
        },
        inputs={"model": model, "prompts": prompts},
        version=2,
    )


def _run(
    workspace: Workspace,
    file: str,
    field: str,
    generator: HFGenerator,
    template: TemplateKind,
    max_new_tokens: int,
    label: str,
) -> None:
    rows = read_rows(workspace.inputs["prompts"] / file)
    generator.load(workspace.inputs["model"] / "model", template)
    prompts = [{"id": row["id"], "prompt": row[field]} for row in rows]
    counts = generate_rows(generator, prompts, workspace.dir / "rows.jsonl", max_new_tokens, stage=label)
    workspace.counts.update(counts)
    if counts["cut"] > MANY * counts["rows"]:
        log.warning(
            "%-12s %s: %d of %d answers are cut off at scale.max_new_tokens=%d",
            "generate",
            label,
            counts["cut"],
            counts["rows"],
            max_new_tokens,
        )
