"""What a step is about, in words for a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdx.config import Config
from sdx.languages import codes, language
from sdx.store.step import PlainStep, Step

SPEECHLESS = ("adapter", "backbone", "train", "mix", "translator", "asset", "file", "pairs")
"""Steps that publish no texts, or texts in several languages."""


def spoken(step: Step, source: str) -> str | None:
    """FLORES code of the language of the texts that a step publishes, as far as its config or its inputs say it.

    Args:
        source: FLORES code of L.
    """
    if not isinstance(step, PlainStep):
        return step.language.flores if step.language else None
    if step.name == "corpus":
        return source
    pair = step.config.get("languages") or [None]  # of a parallel corpus
    for code in (*(step.config.get(name) for name in ("target", "answered", "language")), pair[-1]):
        if isinstance(code, str) and code in codes():
            return language(code).flores
    if step.name in SPEECHLESS:
        return None
    inputs = {"texts": step.inputs["texts"]} if "texts" in step.inputs else step.inputs
    return next(filter(None, (spoken(inner, source) for inner in inputs.values())), None)


def concerned(step: Step, source: str) -> str | None:
    """FLORES code of the language that a step is there for: what `spoken` says, but of what is translated into L for
    a test the language that it is tested in."""
    if not isinstance(step, PlainStep):
        return step.purpose_language.flores if step.purpose_language else None
    if step.name == "read" and "items" in step.inputs:
        return concerned(step.inputs["items"], source)
    if step.name == "translate" and step.config["target"] == source:
        return concerned(step.inputs["rows"], source)
    return spoken(step, source)


def subject(step: Step, config: Config) -> str:
    """A few words; with the step's name and its language they tell the steps of a run apart."""
    if not isinstance(step, PlainStep):
        return step.about
    inputs, given = step.inputs, step.config
    if step.name == "translate":
        return f"{_texts(inputs['rows'], config, given)} by {given['translator']}"
    if step.name == "generate":
        return f"{_texts(inputs['prompts'], config, given)}, {_moment(inputs['model'])}"
    if step.name in ("score", "prompts"):
        return f"{subject(inputs['items'], config)}, {_moment(inputs['model'])}"
    if step.name == "read":
        return f"{_task(step)}, translated" if _is_translated(step) else _task(step)
    if step.name == "items":
        return str(given.get("task") or subject(inputs["items"], config))
    if step.name == "training":
        return str(given["task"])
    if step.name == "pairs":
        return subject(inputs["source"], config)
    if step.name == "filter":
        return next((_kept(inner, config) for inner in inputs.values()), "")
    named = {
        "backbone": config.backbone.name,
        "encoder": config.encoder.name,
        "corpus": config.corpus.name,
        "parallel": config.parallel.name,
        "dictionary": config.dictionary.name,
        "mix": config.method.name,
        "train": f"{config.train.adapter.value}, {config.engine.name}",
    }
    own = next((str(given[key]) for key in ("hub_id", "name") if given.get(key)), "")
    return named.get(step.name, Path(own).name)


def _texts(step: Step, config: Config, given: Mapping[str, Any]) -> str:
    """The field of a file that a step reads, from the config of the step that reads it."""
    if not isinstance(step, PlainStep):
        return step.about_field(given.get("file", ""), given.get("field", "row"))
    if step.name == "corpus":
        part = {"train.jsonl": "train ", "heldout.jsonl": "held-out "}.get(given.get("file", ""), "")
        return f"{part}{given.get('field', 'row')}s"
    if step.name == "training":
        return f"{step.config['task']} {given['field']}" if "field" in given else str(step.config["task"])
    if step.name == "translate":
        return _texts(step.inputs["rows"], config, step.config)
    if step.name == "generate":
        return "own answers"
    if step.name == "read":
        return f"{_task(step)} items"
    if step.name == "filter":
        return next((_texts(inner, config, given) for inner in step.inputs.values()), "rows")
    return subject(step, config).partition(",")[0] or step.name


def _task(items: Step) -> str:
    return str(_task(items.inputs["items"]) if _is_translated(items) else items.config["task"])


def _is_translated(items: Step) -> bool:
    """Whether test items are translations of others."""
    return "items" in items.inputs


def _kept(step: Step, config: Config) -> str:
    """What a filter chooses from."""
    if not isinstance(step, PlainStep):
        return step.result
    return "own answers" if step.name == "generate" else subject(step, config)


def _moment(model: Step) -> str:
    return "after" if model.name == "train" else "before"
