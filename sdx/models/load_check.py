"""Checks that transformers can load a model directory, with a model without weights: only their headers are read."""

from collections.abc import Collection
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.models.directory import CONFIG, config_of
from sdx.models.loading import load_errors, pretrained
from sdx.models.rendering import rendered
from sdx.models.template import INSTRUCTION_TEMPLATE, OPTIONS, encode_example
from sdx.process.quiet import unreported

log = getLogger("sdx")

WORD, ANSWER = "sdxquestion", "sdxanswer"
"""What chat templates are rendered with."""


def check_model_type(directory: Path, what: str) -> Any:
    """The model's config. Raises InputError if transformers does not have its type."""
    from transformers import CONFIG_MAPPING, AutoConfig, __version__

    content = config_of(directory, what)
    if (kind := content["model_type"]) not in CONFIG_MAPPING:
        own = "; code that comes with a model (auto_map) is never run" if content.get("auto_map") else ""
        raise InputError(
            f"{what}: config.json names the model_type {kind!r}, which transformers {__version__} does not have{own}; "
            "install a version that has it, or give another model"
        )
    return pretrained(AutoConfig, directory, what)


def load_without_weights(
    model_class: Any,
    directory: Path,
    what: str,
    again: str,
    *,
    optional: Collection[str] = (),
    warns_of_unused: bool = True,
    **options: Any,
) -> Any:
    """The model on the meta device.

    Args:
        optional: weights that may be missing.
        warns_of_unused: whether to warn of weights that the model does not use.

    Raises:
        InputError: a weight is missing or has another shape than the config asks for.
    """
    options |= {"device_map": "meta", "ignore_mismatched_sizes": True, "output_loading_info": True}
    with unreported():
        model, report = pretrained(model_class, directory, what, **options)
    if missing := sorted(set(report["missing_keys"]) - set(optional)):
        raise InputError(f"{what} lacks {len(missing)} weights that {CONFIG} asks for, such as {missing[0]}; {again}")
    if others := sorted(report["mismatched_keys"]):
        name, stored, wanted = others[0]
        raise InputError(
            f"{what}: {name} is stored as {list(stored)}, and {CONFIG} asks for {list(wanted)} ({len(others)} weights "
            f"differ); config and weights are of different models, {again}"
        )
    if (unused := sorted(report["unexpected_keys"])) and warns_of_unused:
        log.warning("%s: the model of %s does not use %d weights, such as %s", what, CONFIG, len(unused), unused[0])
    return model


def check_template(tokenizer: Any, what: str) -> None:
    """Raises InputError for a chat template that does not write out a conversation."""
    if tokenizer.chat_template.endswith(INSTRUCTION_TEMPLATE):
        return
    variables = {**tokenizer.special_tokens_map, **OPTIONS}
    user = {"role": "user", "content": WORD}
    question, both = ([user], True), ([user, {"role": "assistant", "content": ANSWER}], False)
    template = f"{what}: the chat template of the tokenizer"
    fix = "correct it, or set backbone.template=instruction"
    try:
        prompt, again, whole = rendered(tokenizer.chat_template, variables, [question, question, both])
    except InputError as error:
        raise InputError(f"{template} {error}; {fix}") from None
    if prompt != again:
        raise InputError(f"{template} writes something else each time; {fix}")
    if WORD not in prompt or ANSWER not in whole:
        name = "the model" if WORD in prompt else "the user"
        raise InputError(f"{template} leaves out what {name} says; {fix}")


def check_vocabulary(tokenizer: Any, rows: int, what: str) -> None:
    """Raises InputError for tokens beyond the model's `rows` embeddings; only warns of unused special tokens."""
    beyond = {token: id_ for token, id_ in tokenizer.get_vocab().items() if id_ >= rows}
    special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    unused = special - {getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad", "unk")}
    if bad := {token: id_ for token, id_ in beyond.items() if id_ not in unused}:
        token, id_ = min(bad.items(), key=lambda item: item[1])
        raise InputError(
            f"{what}: {len(bad)} tokens of the tokenizer have no embedding: {token!r} has the id {id_}, and the model "
            f"has {rows} embeddings; give the model's own tokenizer, or resize the model (resize_token_embeddings)"
        )
    if beyond:
        log.warning("%s: %d special tokens have no embedding, such as %s", what, len(beyond), next(iter(beyond)))


def check_tokenizer(tokenizer: Any, rows: int, what: str) -> None:
    """Raises InputError if a tokenizer cannot encode prompts and answers for a causal LM with `rows` embeddings."""
    check_vocabulary(tokenizer, rows, what)
    with load_errors(what):
        ids, _ = encode_example(tokenizer, WORD, ANSWER)
    if max(ids) >= rows:
        raise InputError(
            f"{what}: the chat template writes the token {tokenizer.convert_ids_to_tokens(max(ids))!r} with the id "
            f"{max(ids)}, and the model has {rows} embeddings; give the model's own tokenizer"
        )
