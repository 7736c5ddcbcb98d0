"""External parallel corpora: sentence pairs in the source and a target language, from a package, a file or the hub.

SDRRL mixes in "a small amount of machine translation data" (arXiv 2402.12204); self-translation takes its
demonstrations from such a corpus (arXiv 2407.00454). A hash of the texts, not the order of a file, decides which pairs
are taken. All choices here are ours.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import ParallelColumns, ParallelConfig
from sdx.languages import Language
from sdx.offline import sentence_pairs
from sdx.offline.assets import AssetStep
from sdx.options.source import MOSES
from sdx.sources.files import check_per_target, file_step, filled, published, read_lines, read_records, text_column
from sdx.store.estimate import ROWS, Estimate, Plan, Rows
from sdx.store.files import write_rows
from sdx.store.step import Step, Workspace, optional, runtime
from sdx.text.lengths import SENTENCE_TOKENS

DEMONSTRATIONS = 32
"""The most pairs set aside as demonstrations, but not more than a quarter of the corpus."""
FEW = 8
"""The fewest pairs set aside, but not more than half of the corpus."""
SENTENCE = re.compile(r"\w[^\n]{18,198}[.!?…。！？।॥۔؟።။៕։]")
"""A good demonstration in the source language: of medium length, with an end."""
PACKAGED_PAIRS = {"interface": 3500, "udhr": 57}
"""At most, for an estimate."""
UNKNOWN_PAIRS = 100_000
"""Of another corpus."""
LETTER = re.compile(r"[^\W\d_]")
ALTERNATIVES = "choose another parallel=..., give parallel.path=..., a file of sentence pairs, or parallel=none"

SIDES = ("source", "target")
Pair = tuple[str, str]
"""A text in the source language and the same in the target language."""


def check(config: ParallelConfig, source: Language, targets: Sequence[Language], evaluated: Collection[str]) -> None:
    """Raises InputError for options that name no corpus, or a corpus with texts of `evaluated` tasks. Reads no file."""
    config.check("parallel", required=False)
    given = [f"parallel.{key}={value}" for key in ("asset", "path", "hub_id") if (value := getattr(config, key))]
    names = (config.name, config.asset, config.path, config.hub_id, config.file)
    spoilt = [task for task in evaluated if task.lower().startswith(("belebele", "flores"))]
    if spoilt and given and any("flores" in (name or "").lower() for name in names):
        raise InputError(
            f"{given[0]} is FLORES and task={spoilt[0]} is evaluated: its texts, like the passages of Belebele, are "
            "from FLORES, so the score would measure training data; choose another parallel=... or leave the task out"
        )
    if config.path or config.hub_id:
        check_per_target("parallel", [config.path, config.file, *asdict(config.columns).values()], targets)
    if config.asset and not sentence_pairs.languages(config.asset):
        choice = " or ".join(sentence_pairs.READERS)
        raise InputError(f"parallel.asset={config.asset} is no parallel corpus; give {choice}")
    for language in (source, *targets):
        if lacks(config, language):
            raise InputError(f"parallel={config.name} has no {language.name} ({language.code}); {ALTERNATIVES}")


def lacks(config: ParallelConfig, language: Language) -> bool:
    """Whether a packaged corpus does not have a language."""
    return bool(config.asset) and language.flores not in sentence_pairs.languages(config.asset or "")


def parallel_step(config: ParallelConfig, source: Language, target: Language, rows: int) -> Step:
    """The corpus of a pair of languages.

    Args:
        config: as `check` passed it, with a source.
        rows: the most pairs to train on; 0 takes all.

    Raises:
        InputError: no such local file; when the step runs, a row that cannot be read, or no pair.
    """
    # Both codes in alphabetical order make the name of a pair in OPUS.
    codes = {"source": source.code, "target": target.code, "pair": "-".join(sorted((source.code, target.code)))}
    where, columns = config.where("parallel", codes), None
    inputs: dict[str, Step]
    if config.asset:
        where, inputs = f"parallel={config.name}", {"asset": AssetStep(config.asset)}
    elif (config.path or config.file or "").endswith(MOSES):
        inputs = {side: file_step("parallel", config, codes | {"language": codes[side]}) for side in SIDES}
    else:
        inputs = {"file": file_step("parallel", config, codes)}
        names = asdict(config.columns).items()
        columns = ParallelColumns(**{side: filled(f"parallel.columns.{side}", name, codes) for side, name in names})
    pair = source, target
    return Parallel(config.name, pair, rows, inputs, asset=config.asset or None, columns=columns, where=where)


@dataclass(frozen=True, eq=False)
class Parallel(Step):
    """Publishes `rows.jsonl` to train on and `demonstrations.jsonl` for few-shot prompts: id, source, target, origin.

    No text of a demonstration occurs in the rows. Pairs that lack a side or letters, or are the same on both sides, are
    left out.
    """

    name = "parallel"
    reads = read_in_plan = True

    origin: str
    languages: tuple[Language, Language]
    rows: int
    """The most pairs to train on; 0 takes all."""
    sources: Mapping[str, Step]
    asset: str | None = optional()
    columns: ParallelColumns | None = optional()
    where: str = runtime()
    """The file or files in messages."""

    text_fields = ()

    @property
    def about(self) -> str:
        return self.origin

    @property
    def language(self) -> Language:
        return self.languages[1]

    def estimate(self, plan: Plan) -> Estimate:
        there = PACKAGED_PAIRS.get(self.asset or "", UNKNOWN_PAIRS)
        sides = zip(SIDES, self.languages, strict=True)
        tokens = {side: plan.tokens(SENTENCE_TOKENS, its) for side, its in sides}
        rows = Rows(min(self.rows or there, there), tokens, fixed={"origin": self.origin})
        return Estimate(rows.count, rows.total, {ROWS: rows}, bound=True)

    def run(self, work: Workspace) -> None:
        """Reads the corpus twice, so memory holds only the pairs that are taken, also of a large corpus."""
        counts: Counter[str] = Counter()
        usable = _usable(self._pairs(work.inputs), counts)
        candidates = smallest(((f"{_unlikeness(pair)}{_id(pair)}", pair) for pair in usable), 4 * DEMONSTRATIONS)
        if not candidates:
            dropped = ", ".join(f"{count} {reason}" for reason, count in counts.items() if reason != "pairs")
            raise InputError(f"{self.where} has no pair to use ({dropped or 'it is empty'}); {ALTERNATIVES}")
        demonstrations = _demonstrations(candidates)
        texts = {text for pair in demonstrations for text in pair}
        usable = _usable(self._pairs(work.inputs), Counter())
        taken = smallest(((_id(pair), pair) for pair in usable if texts.isdisjoint(pair)), self.rows)
        for name, pairs in (("rows", taken), ("demonstrations", demonstrations)):
            rows = [{"id": _id(pair), "source": pair[0], "target": pair[1], "origin": self.origin} for pair in pairs]
            write_rows(work.dir / f"{name}.jsonl", rows)
            work.counts[name] = len(rows)
        work.counts.update(counts)

    def _pairs(self, inputs: Mapping[str, Path]) -> Iterator[Pair]:
        if self.asset:
            yield from sentence_pairs.pairs(self.asset, inputs["asset"], *self.languages)
        elif self.columns:
            for place, record, names in read_pairs(published(inputs["file"]), self.columns, self.where):
                key = "parallel.columns"
                source, target = (text_column(record, names[side], place, f"{key}.{side}") for side in SIDES)
                yield source, target
        else:
            files = [published(inputs[side]) for side in SIDES]
            yield from _moses(files, [self.where.replace("{language}", language.code) for language in self.languages])


def _usable(pairs: Iterable[Pair], counts: Counter[str]) -> Iterator[Pair]:
    for source, target in pairs:
        counts["pairs"] += 1
        pair = source.strip(), target.strip()
        if not all(pair):
            counts["empty"] += 1
        elif pair[0].casefold() == pair[1].casefold():
            counts["copied"] += 1
        elif not all(map(LETTER.search, pair)):
            counts["without letters"] += 1
        else:
            yield pair


def _id(pair: Pair) -> str:
    """A hash of both texts, which also orders the pairs: the same pair in another corpus or place has the same id."""
    return sha256("\0".join(pair).encode()).hexdigest()[:20]


def _unlikeness(pair: Pair) -> int:
    """How little a pair suits as a demonstration: 0 for a good sentence, 1 for another line, 2 for several lines."""
    if any("\n" in text for text in pair):
        return 2
    return 0 if SENTENCE.fullmatch(pair[0]) and 8 <= len(pair[1]) <= 300 else 1


def _demonstrations(candidates: Sequence[Pair]) -> list[Pair]:
    """The best candidates, each text once: sentences up to the quota, other lines only up to `FEW`.

    Args:
        candidates: best first; all pairs of a corpus that has fewer than four times `DEMONSTRATIONS`.
    """
    few = min(FEW, len(candidates) // 2)
    quota = max(few, min(DEMONSTRATIONS, len(candidates) // 4))
    chosen: list[Pair] = []
    seen: set[str] = set()
    for pair in candidates:
        if len(chosen) < (quota, few, 0)[_unlikeness(pair)] and seen.isdisjoint(pair):
            chosen.append(pair)
            seen.update(pair)
    return chosen


def smallest(ranked: Iterable[tuple[str, Pair]], limit: int) -> list[Pair]:
    """The pairs of the `limit` smallest ranks, each rank once, in order; 0 takes all. Memory holds twice as many."""
    found: dict[str, Pair] = {}
    bound = ""
    for rank, pair in ranked:
        if not bound or rank < bound:
            found[rank] = pair
        if limit and len(found) == 2 * limit:
            found = dict(sorted(found.items())[:limit])
            bound = max(found)
    return [pair for _, pair in sorted(found.items())[: limit or None]]


def _moses(files: Sequence[Path], where: Sequence[str]) -> Iterator[Pair]:
    for left, right in zip_longest(*map(read_lines, files, where)):
        if not (left and right):
            lines = [sum(1 for _ in read_lines(file, name)) for file, name in zip(files, where, strict=True)]
            raise InputError(
                f"{where[0]} has {lines[0]} lines and {where[1]} has {lines[1]}; line for line the two must say the "
                "same, so give two files of one corpus"
            )
        yield left[1], right[1]


def read_pairs(
    path: Path, columns: ParallelColumns, where: str
) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, str]]]:
    """(place, record, side -> its column) of each row.

    A .tsv without a header that names both columns has the source first and the target second.
    """
    names = asdict(columns)
    if columns == ParallelColumns() and re.search(r"\.tsv(\.gz)?$", path.name.lower()):
        _, first = next(read_lines(path, where), ("", ""))
        if not set(names.values()) <= {name.strip(' "') for name in first.split("\t")}:
            names = {"source": "0", "target": "1"}
    for place, record in read_records(path, where, list(names.values())):
        yield place, record, names
