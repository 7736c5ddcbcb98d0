"""What transformers makes of a model directory, tried with a model without weights: of those, headers are read."""

from collections.abc import Collection, Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.models.directory import CONFIG, config_of
from sdx.models.loading import named, pretrained
from sdx.models.rendering import rendered
from sdx.models.template import INSTRUCTION_TEMPLATE, OPTIONS, encode_example
from sdx.process.quiet import unreported

log = getLogger("sdx")

WORD, ANSWER = "sdxquestion", "sdxanswer"
"""What a template is tried with."""
NAMED = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id")


def check_kind(directory: Path, what: str) -> Any:
    """The model's config, of a type that transformers has. Raises InputError for another."""
    from transformers import CONFIG_MAPPING, AutoConfig, __version__

    content = config_of(directory, what)
    if (kind := content["model_type"]) not in CONFIG_MAPPING:
        own = "; code that comes with a model (auto_map) is never run" if content.get("auto_map") else ""
        raise InputError(
            f"{what}: config.json names the model_type {kind!r}, which transformers {__version__} does not have{own}; "
            "install a version that has it, or give another model"
        )
    return pretrained(AutoConfig, directory, what)


def model_without_weights(
    kind: Any,
    directory: Path,
    what: str,
    again: str,
    *,
    optional: Collection[str] = (),
    told: bool = True,
    **options: Any,
) -> Any:
    """The model on the meta device, all of whose weights the files have, in the shapes that its config asks for.

    Args:
        kind: class of transformers.
        optional: weights that may be missing.
        told: whether to warn of weights that the model has no place for.
        options: of `from_pretrained`.

    Raises:
        InputError: they have not.
    """
    with unreported():
        model, report = pretrained(
            kind, directory, what, device_map="meta", ignore_mismatched_sizes=True, output_loading_info=True, **options
        )
    if missing := sorted(set(report["missing_keys"]) - set(optional)):
        raise InputError(f"{what} lacks {len(missing)} weights that {CONFIG} asks for, such as {missing[0]}; {again}")
    if others := sorted(report["mismatched_keys"]):
        name, stored, wanted = others[0]
        raise InputError(
            f"{what}: {name} is stored as {list(stored)}, and {CONFIG} asks for {list(wanted)} ({len(others)} weights "
            f"differ); config and weights are of different models, {again}"
        )
    if (unused := sorted(report["unexpected_keys"])) and told:
        log.warning("%s: %s has no place for %d weights, such as %s", what, CONFIG, len(unused), unused[0])
    return model


def check_ids(
    vocabulary: Mapping[str, int], special: Collection[int], needed: Collection[int], rows: int, what: str
) -> None:
    """Raises InputError for a tokenizer that gives ids which the model has no embedding for.

    Args:
        special: ids of special tokens. Some models have one more than embeddings, which no text has.
        needed: ids that are used in any case.
        rows: embeddings.
    """
    beyond = {token: id_ for token, id_ in vocabulary.items() if id_ >= rows}
    bad = {token: id_ for token, id_ in beyond.items() if id_ not in special or id_ in needed}
    if bad:
        token, id_ = min(bad.items(), key=lambda item: item[1])
        raise InputError(
            f"{what}: {len(bad)} tokens of the tokenizer have no embedding: {token!r} has the id {id_}, and the model "
            f"has {rows} embeddings; give the model's own tokenizer, or resize the model (resize_token_embeddings)"
        )
    if beyond:
        log.warning("%s: %d special tokens have no embedding, such as %s", what, len(beyond), next(iter(beyond)))


def check_template(tokenizer: Any, what: str) -> None:
    """Raises InputError for a chat template that does not write a conversation down."""
    if tokenizer.chat_template.endswith(INSTRUCTION_TEMPLATE):
        return
    variables = {**tokenizer.special_tokens_map, **OPTIONS}
    user = {"role": "user", "content": WORD}
    question, both = ([user], True), ([user, {"role": "assistant", "content": ANSWER}], False)
    template = f"{what}: the chat template of the tokenizer"
    instead = "correct it, or set backbone.template=instruction"
    try:
        prompt, again, whole = rendered(tokenizer.chat_template, variables, [question, question, both])
    except InputError as error:
        raise InputError(f"{template} {error}; {instead}") from None
    if prompt != again:
        raise InputError(f"{template} writes something else each time; {instead}")
    for text, word, name in ((prompt, WORD, "the user"), (whole, ANSWER, "the model")):
        if word not in text:
            raise InputError(f"{template} leaves out what {name} says; {instead}")


def check_vocabulary(tokenizer: Any, rows: int, what: str) -> None:
    """`check_ids` of a tokenizer of transformers."""
    needed = [id_ for name in NAMED if (id_ := getattr(tokenizer, name, None)) is not None]
    special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    check_ids(tokenizer.get_vocab(), special, needed, rows, what)


def check_tokenizer(tokenizer: Any, rows: int, what: str) -> None:
    """Raises InputError for a tokenizer of a causal LM that cannot write prompts and answers for it.

    Args:
        rows: embeddings of the model.
    """
    with named(what):
        check_vocabulary(tokenizer, rows, what)
        ids, _ = encode_example(tokenizer, WORD, ANSWER)
    if max(ids) >= rows:
        raise InputError(
            f"{what}: the chat template writes the token {tokenizer.convert_ids_to_tokens(max(ids))!r} with the id "
            f"{max(ids)}, and the model has {rows} embeddings; give the model's own tokenizer"
        )
