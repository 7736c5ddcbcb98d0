"""The baseline of each run: a run that differs in the method and in nothing else."""

from collections.abc import Sequence

from sdx import InputError
from sdx.reporting.finished import DIRECTORY, Part, label

Names = Sequence[Sequence[Part]]
Keys = set[str]


def matching(text: str, names: Names) -> dict[int, Keys]:
    """The runs that a text names, each with the keys that the text is about.

    A text is the whole name of a run, else a part (`src`, `mixture=src`, `method.mixture=src`), else any text in it.
    """
    for match in (_whole, _part, _anywhere):
        if matches := {number: keys for number, parts in enumerate(names) if (keys := match(text, parts))}:
            return matches
    return {}


def assign(text: str, names: Names) -> tuple[dict[int, int], list[str]]:
    """Run -> its baseline, as numbers, for each run that is no baseline itself; and warnings about runs without one.

    A baseline agrees with the run in all keys but the method, its options, and those that the text is about. The seed
    may differ, too, if the baseline is untrained. Of several, the most similar is taken.

    Raises:
        InputError: the text names no run.
    """
    if not (matches := matching(text, names)):
        labels = "; ".join(map(label, names))
        raise InputError(f"baseline {text!r} matches no run; give a part of one of these names: {labels}")
    baselines: dict[int, int] = {}
    unmatched: dict[str, list[str]] = {}
    for number, parts in enumerate(names):
        if number in matches:
            continue
        mismatches = {match: _mismatches(names[match], parts, keys) for match, keys in matches.items()}
        nearest = min(matches, key=lambda match: (len(mismatches[match]), len({*names[match]} ^ {*parts})))
        if mismatches[nearest]:
            unmatched.setdefault(_lacking(parts, mismatches[nearest]), []).append(label(parts))
        else:
            baselines[number] = nearest
    whys = [f"none {lacking} for {', '.join(runs)}" for lacking, runs in unmatched.items()]
    return baselines, [f"baseline {text!r}: {'; '.join(whys)}"] if whys else []


def _whole(text: str, parts: Sequence[Part]) -> Keys:
    """All keys: the full name of a run means that run as the baseline of all others."""
    return {key for key, _ in parts} if text == label(parts) else set()


def _part(text: str, parts: Sequence[Part]) -> Keys:
    return {key for key, value in parts if text in (value, f"{key}={value}", f"{key.rpartition('.')[2]}={value}")}


def _anywhere(text: str, parts: Sequence[Part]) -> Keys:
    """The keys of the parts that the text's first occurrence overlaps."""
    start = label(parts).find(text)
    if start < 0:
        return set()
    found, position = set(), 0
    for part in parts:
        end = position + len(label([part]))
        if position < start + len(text) and start < end:
            found.add(part[0])
        position = end + 1
    return found


def _lacking(run: Sequence[Part], mismatches: Keys) -> str:
    """`with lang=th, seed=2`; a run of an older sdx may lack a key altogether."""
    having = [f"{key}={value}" for key, value in run if key in mismatches]
    lacking = sorted(mismatches - dict(run).keys())
    return " ".join(f"{word} {', '.join(some)}" for word, some in (("with", having), ("without", lacking)) if some)


def _mismatches(baseline: Sequence[Part], run: Sequence[Part], meant: Keys) -> Keys:
    """The keys in which a baseline differs from a run but must not."""
    free = {*meant, "method", DIRECTORY}
    if ("method", "none") in baseline:
        free.add("seed")
    return {key for key, _ in {*baseline} ^ {*run} if not any(key == one or key.startswith(f"{one}.") for one in free)}
