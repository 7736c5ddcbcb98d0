"""The instruction corpus: rows of `{"id", "instruction", "answer"}` in the source language, split once.

The held-out rows are the same for every method, so no method trains on them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cache
from hashlib import sha256
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import CorpusColumns, CorpusConfig, ScaleConfig
from sdx.languages import Language, language
from sdx.options.source import FileSource
from sdx.sources.files import column, file_step, no_column, published, read_records, text_column
from sdx.store.estimate import READABLE_BYTES, ROWS, Estimate, Plan, Rows
from sdx.store.files import WRITING, write_rows
from sdx.store.row_file import Row, RowFile
from sdx.store.step import Step, Workspace, runtime
from sdx.text import lengths

log = getLogger("sdx")

SEED_CORPUS = Path(__file__).with_name("seed_instructions.jsonl")
SEED_COLUMNS = CorpusColumns(id="id")
UNKNOWN_ROWS = 50_000
"""Of a corpus of which nothing is known, for an estimate."""


def corpus_step(config: CorpusConfig, scale: ScaleConfig, source: Language) -> Step:
    """The corpus of a run.

    Args:
        source: L; its code stands for `{language}` in `corpus.path` and `corpus.file`.

    Raises:
        InputError: options that name no corpus in the source language; a local file that does not exist. A bad row is
            found when the step runs.
    """
    config.check("corpus", required=False)
    written_in = language(config.language) if config.language else source
    if written_in != source:
        raise InputError(
            f"corpus.language={config.language} is not source={source.code}: corpus={config.name} is in "
            f"{written_in.name}; give instructions in {source.name} as corpus.path=... with "
            f"corpus.language={source.code}, or take corpus=bactrian_x"
        )
    given = config.path or config.hub_id
    columns = config.columns if given else SEED_COLUMNS
    origin = config if given else FileSource(path=str(SEED_CORPUS))
    placeholders = {"language": source.code}
    file, where = file_step("corpus", origin, placeholders), origin.where("corpus", placeholders)
    sizes = scale.corpus_rows, scale.heldout_rows
    return Corpus(file, columns, *sizes, where=where, about=config.name, language=source)


@dataclass(frozen=True, eq=False)
class Corpus(Step):
    """Publishes `train.jsonl` and `heldout.jsonl`, and counts the rows that are left out."""

    name = "corpus"
    version = 2
    reads = read_in_plan = True

    file: Step
    columns: CorpusColumns
    corpus_rows: int
    heldout_rows: int
    where: str = runtime()
    """The file in messages."""
    about: str = runtime(default="")
    language: Language | None = runtime(default=None)

    text_fields = ()

    def about_field(self, file: str, field: str) -> str:
        part = {"train.jsonl": "train ", "heldout.jsonl": "held-out "}.get(file, "")
        return f"{part}{field}s"

    def estimate(self, plan: Plan) -> Estimate:
        """From the file if it is on this machine and not too large to be read, otherwise from the YAML."""
        path = self.file.path or ((found := plan.path(self.file)) and published(found))
        if path and path.is_file() and path.stat().st_size <= READABLE_BYTES:
            count, tokens, bound = *_measured(path, astuple(self.columns), plan.source, plan.shape.vocab_size), False
        else:
            count, bound = plan.config.corpus.rows or UNKNOWN_ROWS, True
            english = {"instruction": lengths.INSTRUCTION_TOKENS, "answer": lengths.ANSWER_TOKENS}
            tokens = {name: plan.tokens(mean, plan.source) for name, mean in english.items()}
        heldout = Rows(min(self.heldout_rows, count), tokens)
        train = Rows(min(self.corpus_rows or count, count - heldout.count), tokens)
        files = {"train.jsonl": train, "heldout.jsonl": heldout}
        return Estimate(train.count + heldout.count, train.total + heldout.total, files, bound=bound)

    def run(self, work: Workspace) -> None:
        left_out: Counter[str] = Counter()
        unsorted = work.dir / f".{ROWS}{WRITING}"
        write_rows(unsorted, _instructions(published(work.inputs["file"]), self.columns, self.where, left_out))
        rows = RowFile(unsorted, _named(RowFile(unsorted)))
        train, heldout = split(rows, self.corpus_rows, self.heldout_rows)
        if len(train) < self.corpus_rows:
            fewer = "%-12s %s has %d, fewer than scale.corpus_rows=%d"
            log.warning(fewer, self.name, self.where, len(train), self.corpus_rows)
        write_rows(work.dir / "train.jsonl", (rows[number] for number in train))
        write_rows(work.dir / "heldout.jsonl", (rows[number] for number in heldout))
        unsorted.unlink()
        work.counts.update(train=len(train), heldout=len(heldout), **left_out)


@cache
def _measured(
    path: Path, columns: tuple[Any, ...], source: Language, vocab_size: int
) -> tuple[int, Mapping[str, float]]:
    """Rows of a corpus and mean tokens of their fields; read once for all runs of a sweep."""
    rows = read_corpus(path, CorpusColumns(*columns), f"corpus.path={path}")
    fields = ("instruction", "answer")
    totals = {name: sum(lengths.tokens_in(row[name], source.flores, vocab_size) for row in rows) for name in fields}
    return len(rows), {name: total / len(rows) for name, total in totals.items()}


def split(rows: Sequence[Row], corpus_rows: int, heldout_rows: int) -> tuple[list[int], list[int]]:
    """Numbers of the rows to train on and of the held-out ones, in the order of a hash of the ids: independent of the
    seed and the file's order."""
    digests = [sha256(row["id"].encode()).digest() for row in rows]
    numbers = sorted(range(len(rows)), key=digests.__getitem__)
    heldout, rest = numbers[:heldout_rows], numbers[heldout_rows:]
    if not rest:
        raise InputError(
            f"scale.heldout_rows={heldout_rows} leaves none of the corpus's {len(rows)} rows to train on; "
            "lower it or give a larger corpus.path"
        )
    return rest[: corpus_rows or None], heldout


def read_corpus(
    path: Path, columns: CorpusColumns = SEED_COLUMNS, where: str = "corpus", left_out: Counter[str] | None = None
) -> list[Row]:
    """Rows with `id`, `instruction` (followed by a blank line and the input, if any) and `answer`, in the file's order.

    A row without an instruction or an answer is left out. Of rows with the same instruction the first one stays: the
    others could put a held-out instruction into training. If several instructions have the same id, the hash of the
    instruction is appended to each.

    Args:
        where: the file in messages.
        left_out: counts the rows left out, as `dropped` and `repeated`.

    Raises:
        InputError: a file or row that cannot be read; no rows; a column that does not exist; more than half dropped.
    """
    rows = [*_instructions(path, columns, where, Counter() if left_out is None else left_out)]
    return [*map(_named(rows), rows)]


def _named(rows: Iterable[Row]) -> Callable[[Row], Row]:
    """Gives a row of these an id of its own."""
    seen, repeated = set[bytes](), set[bytes]()
    for row in rows:
        digest = _digest(row["id"])
        (repeated if digest in seen else seen).add(digest)

    def named(row: Row) -> Row:
        more = f"-{_hash(row['instruction'])}" if _digest(row["id"]) in repeated else ""
        return {**row, "id": row["id"] + more}

    return named


def _instructions(path: Path, columns: CorpusColumns, where: str, left_out: Counter[str]) -> Iterator[Row]:
    """The rows of `read_corpus` with the ids of the file. Memory holds a hash of each instruction."""
    names = {key: name for key, name in asdict(columns).items() if name}
    count = dropped = repeated = 0
    seen: set[str] = set()
    asked: set[bytes] = set()
    record: Mapping[str, Any] = {}
    for place, record in read_records(path, where, names.values()):
        count += 1
        # A single row may lack the columns `input` and `id`.
        given = {key: name for key, name in names.items() if key in ("instruction", "answer") or _has(record, name)}
        seen.update(given)
        id_ = column(record, given.pop("id")) if "id" in given else None
        texts = {key: text_column(record, name, place, f"corpus.columns.{key}") for key, name in given.items()}
        if not (texts["instruction"] and texts["answer"]):
            dropped += 1
            continue
        instruction = "\n\n".join(filter(None, (texts["instruction"], texts.get("input"))))
        if (digest := _digest(instruction)) in asked:
            repeated += 1
            continue
        asked.add(digest)
        name = _hash(instruction) if id_ in (None, "") else str(id_)
        yield {"id": name, "instruction": instruction, "answer": texts["answer"]}
    if not count:
        raise InputError(f"{where} has no rows; a row has an instruction and an answer")
    for key in sorted(names.keys() - seen):
        raise no_column(record, names[key], where, f"corpus.columns.{key}")
    if 2 * dropped > count:
        raise InputError(
            f"{where}: {dropped} of {count} rows have no text in `{columns.instruction}` or `{columns.answer}`; "
            "name the right columns as corpus.columns.instruction=... corpus.columns.answer=..."
        )
    left_out.update(dropped=dropped, repeated=repeated)


def _has(record: Mapping[str, Any], name: str) -> bool:
    try:
        column(record, name)
    except KeyError:
        return False
    return True


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12]


def _digest(text: str) -> bytes:
    """A hash to find equal texts by."""
    return sha256(text.encode()).digest()[:16]
