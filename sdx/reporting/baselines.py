"""Which run another one is compared with: one that differs from it in the method, and in nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

from sdx.reporting.finished import Part, label

Names = Sequence[Sequence[Part]]
Keys = set[str]
UNTRAINED = ("method", "none")
SEED = "seed"
PLACE = "in"
"""Two runs of the same configuration in two places are equally good."""


@dataclass(frozen=True)
class Assigned:
    """The baselines of runs, as numbers of runs."""

    matches: dict[int, Keys]
    """See `baselines`."""
    of: dict[int, int]
    """Run -> its baseline."""
    warning: str | None
    """Which runs have none, and why."""


def baselines(text: str, names: Names) -> dict[int, Keys]:
    """The runs that a text means, each with the keys of its name that the text is about.

    They are those of that name, else those with that part (`src`, `mixture=src`, `method.mixture=src`), else those with
    that text anywhere in their name.
    """
    for meant in (_whole, _part, _anywhere):
        if matches := {number: keys for number, parts in enumerate(names) if (keys := meant(text, parts))}:
            return matches
    return {}


def assign(text: str, names: Names) -> Assigned:
    """The baseline of each run that is none itself.

    It agrees with the run in all that distinguishes the runs but the method, its options, and what the text is
    about; the seed may differ, too, where the baseline is not trained. Of several it is the one with which the run has
    most in common.
    """
    matches = baselines(text, names)
    of: dict[int, int] = {}
    unmatched: dict[str, list[str]] = {}
    for number, parts in enumerate(names):
        if number in matches or not matches:
            continue
        mismatches = {match: _mismatches(names[match], parts, keys) for match, keys in matches.items()}
        nearest = min(matches, key=lambda match: (len(mismatches[match]), len({*names[match]} ^ {*parts})))
        if mismatches[nearest]:
            unmatched.setdefault(_wanted(parts, mismatches[nearest]), []).append(label(parts))
        else:
            of[number] = nearest
    whys = [f"none {wanted} for {', '.join(runs)}" for wanted, runs in unmatched.items()]
    return Assigned(matches, of, f"baseline {text!r}: {'; '.join(whys)}" if whys else None)


def _whole(text: str, parts: Sequence[Part]) -> Keys:
    """All keys: who names a run in full wants it for all others."""
    return {key for key, _ in parts} if text == label(parts) else set()


def _part(text: str, parts: Sequence[Part]) -> Keys:
    return {key for key, value in parts if text in (value, f"{key}={value}", f"{key.rpartition('.')[2]}={value}")}


def _anywhere(text: str, parts: Sequence[Part]) -> Keys:
    """The parts over which the text's first occurrence reaches."""
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


def _wanted(run: Sequence[Part], mismatches: Keys) -> str:
    """`with lang=th, seed=2`; an older run may lack a key altogether."""
    having = [f"{key}={value}" for key, value in run if key in mismatches]
    lacking = sorted(mismatches - dict(run).keys())
    return " ".join(f"{word} {', '.join(some)}" for word, some in (("with", having), ("without", lacking)) if some)


def _mismatches(baseline: Sequence[Part], run: Sequence[Part], meant: Keys) -> Keys:
    """The keys in which a baseline must agree with a run and does not."""
    free = {*meant, "method", PLACE, *([SEED] if UNTRAINED in baseline else [])}
    return {key for key, _ in {*baseline} ^ {*run} if not any(key == one or key.startswith(f"{one}.") for one in free)}
