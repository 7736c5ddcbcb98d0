"""What a step of MT-encoder stacking is a step of: the stack, or one of the systems that it is compared with."""

from sdx.artifacts import Step

STACK = "stack"
LLM, ENCODER, UNALIGNED = "LLM alone", "encoder alone", "without alignment"
TRANSLATE_TEST = "translate-test"


def system(step: Step) -> str:
    """By what a model's step is made of: a stack without alignment learns from the first stack, the other does not."""
    if "encoder" not in step.inputs:
        return LLM
    if "backbone" not in step.inputs:
        return ENCODER
    learns_task = step.name == "train" and step.config["goal"] != "alignment"
    return UNALIGNED if learns_task and step.inputs["stack"].name == "stack" else STACK


def is_translated(items: Step) -> bool:
    """Whether test items are translations of others."""
    return "items" in items.inputs
