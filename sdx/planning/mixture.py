"""What the parts of a training mix come to: the counterpart of the methods' `pairs`, on counts instead of rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sdx.planning.lengths import Rows
from sdx.store.step import Step

TRAIN = "train.jsonl"
ROWS = "rows.jsonl"
DIRECTIONS = 2
"""A sentence pair is a translation instruction in both."""
NONE = Rows(0)
Reader = Callable[[Step, str], Rows]
"""What a file of a step holds."""


def parts_of(step: Step, read: Reader) -> list[Rows]:
    """The parts of a `mix` step, with mean tokens of `prompt` and `response`.

    Known by the names of its inputs: `x_th` and `a_th` or `y_th` are instructions and answers in Thai, own and gold
    ones, `p_th` sentence pairs, `words_th` a dictionary; by its options where it weighs subsets. Of an unknown method
    all inputs are taken.
    """
    options = step.config.get("options", {})
    if weights := options.get("subsets"):
        return _subsets(step, weights, read)
    if "mixture" in options:
        return _mixture(step, options["mixture"], read)
    inputs = step.inputs
    if "corpus" in inputs:
        rows = read(inputs["corpus"], TRAIN)
        return [_pair(rows, "instruction", rows, "answer")]
    gold = {name.partition("_")[2] for name in inputs if name.startswith("y_")}
    if gold:
        pairs = ((read(inputs[f"x_{code}"], ROWS), read(inputs[f"y_{code}"], ROWS)) for code in sorted(gold))
        return [_pair(x, "text", y, "text") for x, y in pairs]
    return [_pair(rows, "text", rows, "text") for inner in inputs.values() if (rows := read(inner, ROWS)).count]


def _subsets(step: Step, weights: Mapping[str, float], read: Reader) -> list[Rows]:
    inputs, options = step.inputs, step.config["options"]

    def rows(name: str, file: str = ROWS) -> Rows:
        return read(inputs[name], file) if name in inputs else NONE

    x, a = rows("x_L", TRAIN), rows("a_L")
    if "y_L" in inputs:
        gold = rows("y_L", TRAIN)
        a = Rows(gold.count, {"text": gold.of("answer")})
    found: list[tuple[str, Rows]] = [("ll", _pair(x, "instruction", a, "text"))]
    for code in sorted({name.partition("_")[2] for name in inputs} - {"L"}):
        x_t, p = rows(f"x_{code}"), rows(f"p_{code}")
        a_t = _at_most(rows(f"y_{code}" if f"y_{code}" in inputs else f"a_{code}"), a.count)
        share = _ratio(options) if f"words_{code}" in inputs else 0.0
        found += [
            ("tl", _pair(x_t, "text", a, "text")),
            ("lt", _pair(x, "instruction", a_t, "text")),
            ("tt", _pair(x_t, "text", a_t, "text")),
            ("cs", _pair(x, "instruction", _at_most(a, share * a.count), "text")),
            ("translate", _times(_pair(p, "source", p, "target"), DIRECTIONS)),
            ("complete", _pair(p, "source", p, "target")),
        ]
    return [_times(part, weights.get(name, 0.0)) for name, part in found]


def _mixture(step: Step, subsets: Sequence[str], read: Reader) -> list[Rows]:
    """Of labelled data: `d_L`, and `tgt/question/th` the questions that the backbone translated into Thai."""
    d_l = read(step.inputs["d_L"], TRAIN)
    found = {"src": [_labelled(d_l.count, d_l.tokens)], "parallel": list[Rows]()}
    translated: dict[tuple[str, str], dict[str, Rows]] = {}
    for name, inner in step.inputs.items():
        kind, *rest = name.split("/")
        if kind == "p":
            p = read(inner, ROWS)
            found["parallel"].append(_times(_pair(p, "source", p, "target"), DIRECTIONS))
        elif rest:
            field, code = rest
            translated.setdefault((kind, code), {})[field] = read(inner, ROWS)
    for (kind, _), fields in translated.items():
        tokens = {**d_l.tokens, **{field: rows.of("text") for field, rows in fields.items()}}
        part = _labelled(min(rows.count for rows in fields.values()), tokens)
        for name in ("tgt", "cs") if kind == "tgt" else (kind,):
            found.setdefault(name, []).append(part)
    return [part for name in subsets for part in found[name]]


def _labelled(count: float, tokens: Mapping[str, float]) -> Rows:
    answer = tokens.get("answer", 0.0)
    return Rows(count, {"prompt": sum(tokens.values()) - answer, "response": answer})


def _ratio(options: Mapping[str, Any]) -> float:
    return float(options.get("code_switching", {}).get("sentence_ratio", 1.0))


def _pair(x: Rows, prompt: str, a: Rows, response: str) -> Rows:
    return Rows(min(x.count, a.count), {"prompt": x.of(prompt), "response": a.of(response)})


def _at_most(rows: Rows, count: float) -> Rows:
    return Rows(min(rows.count, count), rows.tokens)


def _times(rows: Rows, weight: float) -> Rows:
    return Rows(rows.count * weight, rows.tokens)
