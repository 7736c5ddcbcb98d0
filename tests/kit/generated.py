"""The step that completes prompts, put to rows that a test gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdx.config import TemplateKind
from sdx.generation.sampling import GREEDY, Sampling
from sdx.generation.step import Generate
from sdx.store.files import write_rows
from sdx.store.step import Workspace
from tests.kit.plain_step import PlainStep


def generate_rows(
    generator: Any,
    model_dir: Path,
    rows: Sequence[Mapping[str, Any]],
    out: Path,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
) -> dict[str, Any]:
    """Writes `rows.jsonl` into `out`, with the model in `model_dir`, and gives its counts."""
    given = out.with_name(f"{out.name}-given")
    given.mkdir(exist_ok=True)
    out.mkdir(exist_ok=True)
    write_rows(given / "prompts.jsonl", rows)
    if not (given / "model").is_symlink():
        (given / "model").symlink_to(model_dir, target_is_directory=True)
    model, prompts = PlainStep("backbone", print), PlainStep("given", print)
    asked = model, prompts, "prompts.jsonl", "prompt", TemplateKind.auto, max_new_tokens, sampling
    step = Generate(*asked, generator=generator)
    work = Workspace(out, {"model": given, "prompts": given})
    step.run(work)
    return work.counts
