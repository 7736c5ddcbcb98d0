"""External parallel corpora: sentence pairs in the source and a target language, from a package, a file or the hub.

SDRRL mixes in "a small amount of machine translation data" (arXiv 2402.12204); self-translation takes its
demonstrations from such a corpus (arXiv 2407.00454). A hash of the texts decides which pairs are taken, so that the
order of a file does not. All choices here are ours.
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
from sdx.sources.files import (
    check_each,
    check_file,
    column,
    column_names,
    file_step,
    fill,
    published,
    read_lines,
    read_records,
    source_name,
)
from sdx.store.estimate import ROWS, Estimate, Plan, Rows
from sdx.store.files import write_rows
from sdx.store.step import Step, Workspace, optional, runtime
from sdx.text.lengths import SENTENCE_TOKENS

DEMONSTRATIONS = 32
"""Pairs kept aside at most, and no more than a quarter of the corpus."""
FEW = 8
"""Pairs kept aside at least, where that is no more than half of the corpus."""
SENTENCE = re.compile(r"\w[^\n]{18,198}[.!?…。！？।॥۔؟።။៕։]")
"""What a demonstration looks like in the source language: of medium length, with an end."""
TARGET_LENGTHS = range(8, 301)
"""Characters of its translation."""
PACKAGED_PAIRS = {"interface": 3500, "udhr": 57}
"""At most, for an estimate."""
UNKNOWN_PAIRS = 100_000
"""Of another corpus."""
LETTER = re.compile(r"[^\W\d_]")
INSTEAD = "choose another parallel=..., give parallel.path=..., a file of sentence pairs, or parallel=none"

Pair = tuple[str, str]
"""A text in the source language and the same in the target language."""


def check(config: ParallelConfig, source: Language, targets: Sequence[Language], evaluated: Collection[str]) -> None:
    """Raises InputError for a corpus that cannot work or must not be trained on. Reads nothing.

    Args:
        evaluated: names of the benchmarks of the run.
    """
    config.check("parallel", required=False)
    given = [f"parallel.{key}={value}" for key in ("asset", "path", "hub_id") if (value := getattr(config, key))]
    names = (config.name, config.asset, config.path, config.hub_id, config.file)
    if given and any("flores" in (name or "").lower() for name in names):
        for task in evaluated:
            if task.lower().startswith(("belebele", "flores")):
                raise InputError(
                    f"{given[0]} is FLORES and task={task} is evaluated: its texts, and the passages of Belebele, come "
                    "from FLORES, so the score would be of what was trained on; choose another parallel=... or leave "
                    "the task out"
                )
    if config.path or config.hub_id:
        check_each("parallel", [config.path, config.file, *asdict(config.columns).values()], targets)
    if config.asset and not sentence_pairs.languages(config.asset):
        choice = " or ".join(sentence_pairs.READERS)
        raise InputError(f"parallel.asset={config.asset} is no parallel corpus; give {choice}")
    for language in (source, *targets):
        if lacks(config, language):
            raise InputError(f"parallel={config.name} has no {language.name} ({language.code}); {INSTEAD}")
    for target in targets if config.path else ():
        for side in (source, target):
            path = fill("parallel.path", config.path or "", _placeholders(source, target) | {"language": side.code})
            check_file(f"parallel.path={path}", Path(path).expanduser())


def lacks(config: ParallelConfig, language: Language) -> bool:
    """Whether a packaged corpus is known not to have a language."""
    return bool(config.asset) and language.flores not in sentence_pairs.languages(config.asset or "")


def parallel_step(config: ParallelConfig, source: Language, target: Language, rows: int) -> Step:
    """The corpus of a pair of languages.

    Args:
        config: with one of its sources; see `check`.
        rows: pairs to train on at most; 0 takes all.

    Raises:
        InputError: no such local file; when the step runs, a row that cannot be read, or no pair.
    """
    codes = _placeholders(source, target)
    where = source_name("parallel", config.path, config.hub_id, config.file, codes)
    columns = None
    inputs: dict[str, Step]
    if config.asset:
        where = f"parallel={config.name}"
        inputs = {"asset": AssetStep(config.asset)}
    elif (config.path or config.file or "").endswith(MOSES):
        inputs = {name: _file(config, codes | {"language": codes[name]}) for name in ("source", "target")}
    else:
        inputs = {"file": _file(config, codes)}
        columns = ParallelColumns(
            **{side: fill(f"parallel.columns.{side}", name, codes) for side, name in asdict(config.columns).items()}
        )
    pair = source, target
    return Parallel(config.name, pair, rows, inputs, asset=config.asset or None, columns=columns, where=where)


@dataclass(frozen=True, eq=False)
class Parallel(Step):
    """Publishes `rows.jsonl` to train on and `demonstrations.jsonl` for few-shot prompts: id, source, target, origin.

    No text of a demonstration occurs in the rows. A pair is left out that lacks a side or letters, or that is the
    same on both sides.
    """

    name = "parallel"
    reads = read_in_plan = True

    origin: str
    languages: tuple[Language, Language]
    rows: int
    """To train on at most; 0 takes all."""
    sources: Mapping[str, Step]
    asset: str | None = optional()
    columns: ParallelColumns | None = optional()
    where: str = runtime()
    """As messages name the file or files."""

    text_fields = ()

    @property
    def about(self) -> str:
        return self.origin

    @property
    def language(self) -> Language:
        return self.languages[1]

    def estimate(self, plan: Plan) -> Estimate:
        there = PACKAGED_PAIRS.get(self.asset or "", UNKNOWN_PAIRS)
        sides = zip(("source", "target"), self.languages, strict=True)
        rows = Rows(min(self.rows or there, there), {side: plan.tokens(SENTENCE_TOKENS, its) for side, its in sides})
        return Estimate(rows.count, rows.total, {ROWS: rows}, bound=True)

    def run(self, work: Workspace) -> None:
        """Reads the corpus twice, so that memory holds no more of a large one than what is taken."""
        counts: Counter[str] = Counter()
        candidates = _Smallest(4 * DEMONSTRATIONS)
        for pair in _usable(self._pairs(work.inputs), counts):
            candidates.add(f"{_unlikeness(pair)}{_id(pair)}", pair)
        if not candidates.pairs():
            dropped = ", ".join(f"{count} {reason}" for reason, count in counts.items() if reason != "pairs")
            raise InputError(f"{self.where} has no pair to use ({dropped or 'it is empty'}); {INSTEAD}")
        demonstrations = _demonstrations(candidates.pairs())
        aside = {text for pair in demonstrations for text in pair}
        taken = _Smallest(self.rows)
        for pair in _usable(self._pairs(work.inputs), Counter()):
            if aside.isdisjoint(pair):
                taken.add(_id(pair), pair)
        for name, pairs in (("rows", taken.pairs()), ("demonstrations", demonstrations)):
            rows = [{"id": _id(pair), "source": pair[0], "target": pair[1], "origin": self.origin} for pair in pairs]
            write_rows(work.dir / f"{name}.jsonl", rows)
            work.counts[name] = len(rows)
        work.counts.update(counts)

    def _pairs(self, inputs: Mapping[str, Path]) -> Iterator[Pair]:
        if self.asset:
            return sentence_pairs.pairs(self.asset, inputs["asset"], *self.languages)
        if self.columns:
            return _table(inputs["file"], self.columns, self.where)
        files = [published(inputs[name]) for name in ("source", "target")]
        return _moses(files, [self.where.replace("{language}", one.code) for one in self.languages])


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
    """A hash of both texts: the same pair in another corpus or place has the same id. It also orders the pairs."""
    return sha256("\0".join(pair).encode()).hexdigest()[:20]


def _unlikeness(pair: Pair) -> int:
    """0: a sentence that shows well how to translate; 1: another line; 2: several lines."""
    if any("\n" in text for text in pair):
        return 2
    return 0 if SENTENCE.fullmatch(pair[0]) and len(pair[1]) in TARGET_LENGTHS else 1


def _demonstrations(candidates: Sequence[Pair]) -> list[Pair]:
    """The best candidates, each text once: sentences up to the quota, other lines only up to `FEW`.

    Args:
        candidates: best first; all pairs of the corpus where it has fewer than four times `DEMONSTRATIONS`.
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


class _Smallest:
    """The pairs of the `limit` smallest ranks, each rank once, in order; 0 keeps all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[str, Pair] = {}
        self._bar = ""

    def add(self, rank: str, pair: Pair) -> None:
        if not self._bar or rank < self._bar:
            self._kept[rank] = pair
            if self._limit and len(self._kept) > 2 * self._limit:
                self._prune()

    def pairs(self) -> list[Pair]:
        self._prune()
        return list(self._kept.values())

    def _prune(self) -> None:
        order = sorted(self._kept)
        self._kept = {rank: self._kept[rank] for rank in order[: self._limit or None]}
        self._bar = order[self._limit] if self._limit and len(order) > self._limit else self._bar


def _placeholders(source: Language, target: Language) -> dict[str, str]:
    """What stands for `{source}`, `{target}` and `{pair}`, the two codes in the order of the alphabet."""
    codes = source.code, target.code
    return {"source": codes[0], "target": codes[1], "pair": "-".join(sorted(codes))}


def _file(config: ParallelConfig, placeholders: Mapping[str, str]) -> Step:
    return file_step("parallel", config.path, config.hub_id, config.revision, config.file, placeholders)


def _moses(files: Sequence[Path], where: Sequence[str]) -> Iterator[Pair]:
    """Line by line of two files of plain text."""
    for left, right in zip_longest(*map(read_lines, files, where)):
        if not (left and right):
            lines = [sum(1 for _ in read_lines(file, name)) for file, name in zip(files, where, strict=True)]
            raise InputError(
                f"{where[0]} has {lines[0]} lines and {where[1]} has {lines[1]}; line for line the two must say the "
                "same, so give two files of one corpus"
            )
        yield left[1], right[1]


def _table(directory: Path, columns: ParallelColumns, where: str) -> Iterator[Pair]:
    for place, record, names in read_pairs(published(directory), columns, where):
        yield _text(record, names, "source", place), _text(record, names, "target", place)


def read_pairs(
    path: Path, columns: ParallelColumns, where: str
) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, str]]]:
    """(place, record, side -> its column) of each row.

    A .tsv without a header that names both columns has the source first and the target second.
    """
    names = asdict(columns)
    if re.search(r"\.tsv(\.gz)?$", path.name.lower()):
        _, first = next(read_lines(path, where), ("", ""))
        if not set(names.values()) <= {cell.strip(' "') for cell in first.split("\t")}:
            names = {"source": "0", "target": "1"} if columns == ParallelColumns() else names
    for place, record in read_records(path, where, list(names.values())):
        yield place, record, names


def _text(record: Mapping[str, Any], names: Mapping[str, str], side: str, place: str) -> str:
    key = f"parallel.columns.{side}"
    try:
        value = column(record, names[side])
    except KeyError:
        there = ", ".join(column_names(record))
        raise InputError(f"{place} has no column {names[side]} but {there}; set {key} to one of them") from None
    if value is not None and not isinstance(value, str):
        raise InputError(f"{place}: {names[side]} is {str(value)[:40]}, not a text; set {key} to a column of texts")
    return value or ""
