"""Log-probabilities of answers: the answers to a question share one pass over it, and only needed positions are
projected to the vocabulary.

A question is a row `{"context", "answers", "asked_tokens"}`: the tokens that are read, those of each answer, and how
many tokens the prompt has without a limit.
"""

from array import array
from collections.abc import Sequence
from typing import Any

from sdx.models.batches import QUESTIONS, cut
from sdx.store.batch_log import Row

Scored = tuple[float, bool]
"""The log-probability of an answer, and whether greedy decoding gives it."""


def question(context: Sequence[int], answers: Sequence[Sequence[int]], limit: int) -> Row:
    """The row of a question; a prompt that leaves no room for the longest answer loses its beginning."""
    room = max(1, limit + 1 - max(map(len, answers)))  # the last token of an answer is predicted, not read
    return {"context": array("i", context[-room:]), "answers": answers, "asked_tokens": len(context)}


def batches(model: Any, questions: Sequence[Row]) -> list[list[int]]:
    """The numbers of the questions in each batch, the longest first: memory runs out at once or never."""
    from sdx.models.fit import room

    def lengths(number: int) -> tuple[int, int]:
        """Neighbours with questions and longest answers of similar length need little padding."""
        one = questions[number]
        return one["asked_tokens"] // 8, max(map(len, one["answers"]))

    order = sorted(range(len(questions)), key=lengths, reverse=True)
    sizes = _sizes(model, [questions[number] for number in order])
    return [order[some] for some in cut(sizes, room(model), QUESTIONS.on(model.device.type == "cuda"))]


def scored(model: Any, questions: Sequence[Row], limit: int) -> list[list[Scored]]:
    """What the model gives each answer to the questions of a batch."""
    from sdx.models.fit import pieces

    found = pieces(
        model,
        _sizes(model, questions),
        [slice(0, len(questions))],
        lambda some: _answers(model, questions[some]),
        lambda row: f"a prompt of {len(questions[row]['context'])} tokens",
        f"lower backbone.context_tokens={limit} or take a GPU with more memory",
    )
    values = (value for _, part in found for value in part)
    return [[next(values) for _ in one["answers"]] for one in questions]


def _sizes(model: Any, questions: Sequence[Row]) -> list[float]:
    from sdx.models.fit import row_bytes

    memory = row_bytes(model)
    return [memory.scored(len(one["context"]), [*map(len, one["answers"])]) for one in questions]


def _answers(model: Any, questions: Sequence[Row]) -> list[Scored]:
    """`scored` for questions that fit in memory, [question * answer]."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def padded(rows: Sequence[Sequence[int]], side: str) -> tuple[Any, ...]:
        """Token ids and mask, [row, seq]."""
        ids = [torch.tensor([*row]) for row in rows]
        both = (pad_sequence(some, True, padding_side=side) for some in (ids, [torch.ones_like(row) for row in ids]))
        return tuple(batch.to(model.device) for batch in both)

    ids, mask = padded([one["context"] for one in questions], "left")
    rows = [(number, answer) for number, one in enumerate(questions) for answer in one["answers"]]
    longer = [index for index, (_, answer) in enumerate(rows) if len(answer) > 1]
    with torch.inference_mode():
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=bool(longer),
            logits_to_keep=1,
        )
        first = output.logits[:, -1].float().log_softmax(-1)  # [batch, vocabulary]
        results = [
            (first[number, answer[0]].item(), bool(first[number].argmax() == answer[0])) for number, answer in rows
        ]
        if not longer:
            return results
        of = torch.tensor([rows[index][0] for index in longer], device=model.device)
        output.past_key_values.batch_select_indices(of)
        ids, read_mask = padded([rows[index][1][:-1] for index in longer], "right")
        logits = model(
            input_ids=ids,
            attention_mask=torch.cat([mask[of], read_mask], 1),
            position_ids=mask[of].sum(1, keepdim=True) + torch.arange(ids.shape[1], device=model.device),
            past_key_values=output.past_key_values,
        ).logits  # [answers, seq, vocabulary]
        for index, row in zip(longer, logits, strict=True):
            wanted = torch.tensor([*rows[index][1][1:]], device=model.device)
            table = row[: len(wanted)].float().log_softmax(-1)
            value, greedy = results[index]
            value += table.gather(1, wanted[:, None]).sum().item()
            results[index] = value, greedy and bool((table.argmax(-1) == wanted).all())
    return results
