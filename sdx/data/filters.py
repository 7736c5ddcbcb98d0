"""Which synthetic rows are dropped and why. Each drop is counted by its reason, and the dropped rows are published too.

The reasons are named options: `filters.answers` for what the backbone wrote, `filters.translations` for what a
translator did, and in addition `filters.tasks` for the fields of tasks with labels. A reason looks at one row at a
time, so the other rows and their order decide nothing.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import regex

from sdx import InputError
from sdx.config import TASK_FILTERS, FilterConfig
from sdx.languages import Language
from sdx.store.batch_log import Row
from sdx.store.estimate import ROWS, Estimate, Plan, Rows
from sdx.store.files import read_rows, write_lines
from sdx.store.row_file import RowFile
from sdx.store.row_step import PooledStep
from sdx.store.shared_log import SharedLog
from sdx.store.step import Step, Workspace
from sdx.text.answer_spans import marker
from sdx.text.identification import characters_in, in_language, look_ahead, loops, probability_of
from sdx.text.numbers import final_number
from sdx.text.protect import blank, cut
from sdx.text.refusal import refuses
from sdx.text.segment import find_sentences

LENGTH_SLACK = 10
"""English letters added to both sides of a length ratio: CO2 may become a word of sixteen letters."""
COPIED_WORDS = 3
"""This many words in lower case are more than a name ("Leonardo da Vinci") or a Latin term."""
COPIED_LETTERS = 10
"""The same for languages without spaces between words."""
DOUBT = 0.02
"""A less probable language is the wrong one."""
ENGLISH_LETTERS = {
    3.4: regex.compile(r"\p{Han}++"),
    2.5: regex.compile(r"\p{Hangul}++"),
    1.6: regex.compile(
        r"[\p{Bengali}\p{Devanagari}\p{Ethiopic}\p{Gujarati}\p{Gurmukhi}\p{Kannada}\p{Malayalam}\p{Oriya}\p{Sinhala}\p{Telugu}]++"
    ),
    1.4: regex.compile(r"[\p{Hebrew}\p{Khmer}\p{Myanmar}\p{Tibetan}]++"),
    1.25: regex.compile(r"[\p{Arabic}\p{Hiragana}\p{Katakana}\p{Lao}\p{Tamil}\p{Thai}]++"),
}
"""Letters of English -> the scripts of which one letter stands for them; 1 for other scripts. See `english_letters`."""
_LETTERS = regex.compile(r"[\p{L}\p{N}]++")
_WORD = regex.compile(r"(?<![\p{L}\p{M}\p{N}\u200c\u200d])[\p{Ll}\p{Lo}][\p{L}\p{M}\u200c\u200d]+")


@dataclass(frozen=True)
class Candidate:
    """What the reasons see of a row."""

    text: str
    """The answer or the translation."""
    source: str
    """The prompt or the text that was translated."""
    language: Language
    """What `text` should be in."""
    source_language: Language
    """What `source` is in."""
    finished: bool = True
    """Whether the model ended the text itself."""


def length_ratio(row: Candidate, config: FilterConfig) -> bool:
    """A translation more than `length_ratio` times longer or shorter than its source, both in `english_letters`.

    Measured at 3.0 on the human-translated MMLU (de es fr hi it pt th; 1,995 questions and 7,980 choices): none is
    dropped, the highest ratio is 2.4. Of 2,294 paragraphs of the Universal Declaration of Human Rights in 43 languages
    and 26 scripts six are dropped, pairs that do not belong together or are damaged.
    """
    shorter, longer = sorted(english_letters(text) + LENGTH_SLACK for text in (row.source, row.text))
    return longer > config.length_ratio * shorter


def copied(row: Candidate, config: FilterConfig) -> bool:
    """The source again, except for case and spaces, although it has words to translate.

    Code, markup and addresses do not count because the translators copy them themselves, and words with a capital do
    not because names stay. Of the human-translated MMLU's 9,975 questions and choices 1,232 equal their English source
    (formulas, numbers, names, Latin terms); one is dropped, and rightly: it was left in English.
    """
    if row.text.casefold().split() != row.source.casefold().split():
        return False
    words = " ".join(map(blank, cut(row.source, find_sentences(row.source))[1::2]))
    if row.source_language.spaces:
        return len(_WORD.findall(words)) >= COPIED_WORDS
    return characters_in(_LETTERS, words) >= COPIED_LETTERS


def wrong_language(row: Candidate, config: FilterConfig) -> bool:
    """Identified as another language than the expected one, and not as a close relative of it.

    `in_language` alone would drop 88 % of the Bosnian paragraphs of the Universal Declaration of Human Rights, 70 % of
    the Indonesian and 38 % of the Cantonese ones, which it takes for Croatian, Malay and Mandarin, and short lists, so
    the language also has to be less than 2 % probable. Then 7 of 6,482 paragraphs in 110 languages are dropped (all
    Occitan, read as French), 3 of the 9,975 questions and choices of the human-translated MMLU, and of English ones of
    30 letters or more 98 to 100 % if Portuguese, German, Hindi, Swahili or Indonesian is expected; of Spanish ones if
    Portuguese is, 87 % (30 to 99 letters) and all (100 or more). Shorter ones mostly stay.
    """
    if in_language(row.text, row.language) is not False:
        return False
    probability = probability_of(row.language, row.text)
    return probability is not None and probability < DOUBT


def answer_span(row: Candidate, config: FilterConfig) -> bool:
    """A context that does not have the marker of the source's answer exactly once."""
    name = marker(row.source)
    return name is not None and (row.text.count(name) != 1 or marker(row.text) != name)


FILTERS: dict[str, Callable[[Candidate, FilterConfig], bool]] = {
    "empty": lambda row, config: not row.text.strip(),
    "truncated": lambda row, config: not row.finished,
    "copied": copied,
    "repetition": lambda row, config: loops(row.text),
    "short": lambda row, config: characters_in(_LETTERS, row.text) < config.min_letters,
    "long": lambda row, config: characters_in(_LETTERS, row.text) > config.max_letters,
    "length_ratio": length_ratio,
    "wrong_language": wrong_language,
    "refusal": lambda row, config: refuses(row.text),
    "final_number": lambda row, config: final_number(row.text) != final_number(row.source),
    "answer_span": answer_span,
}
"""Reason -> whether a row is dropped for it."""
THRESHOLDS = {"short": "min_letters", "long": "max_letters", "length_ratio": "length_ratio"}
"""Reason -> the field of `FilterConfig` that it reads."""


def check(config: FilterConfig) -> None:
    """Raises InputError for thresholds that would drop every row."""
    if config.min_letters > config.max_letters:
        raise InputError(
            f"filters.min_letters={config.min_letters} is above filters.max_letters={config.max_letters} and would "
            "drop every row; lower it"
        )


@dataclass(frozen=True, eq=False)
class Filter(PooledStep):
    """Publishes the rows that no reason drops, unchanged, and the others with their reason as `dropped.jsonl`."""

    name = "filter"
    version = 4

    rows: Step
    """Completions `{"id", "prompt", "text", "tokens", "finished"}` or translations `{"id", "source", "text"}`."""
    reasons: Sequence[str]
    """Names in `FILTERS`; a row that several of them drop is counted for the first."""
    target: Language
    """What the texts should be in."""
    source: Language
    """What the prompts or sources are in."""
    thresholds: FilterConfig

    @property
    def config(self) -> Mapping[str, Any]:
        """What the reasons look at."""
        fields = (field for reason, field in THRESHOLDS.items() if reason in self.reasons)
        decides = {"reasons": list(self.reasons), **{field: getattr(self.thresholds, field) for field in fields}}
        if "wrong_language" in self.reasons:
            decides["language"] = self.target.flores
        if "copied" in self.reasons:
            decides["spaces"] = self.source.spaces
        return decides

    text_fields = ("text",)

    @property
    def about(self) -> str:
        return self.rows.result

    @property
    def language(self) -> Language:
        return self.target

    def about_field(self, file: str, field: str) -> str:
        return self.rows.about_field(file, field)

    def estimate(self, plan: Plan) -> Estimate:
        """Every row, but answers that are known to be cut."""
        given, answers = plan.rows(self.rows), plan.answers(self.rows)
        count, text = given.count, given.of("text")
        if answers and "truncated" in self.reasons:
            count, text = count * (1 - answers.cut), answers.finished_tokens
        return Estimate(count, count * text, {ROWS: Rows(count, {**given.tokens, "text": text})}, bound=True)

    def read(self, work: Workspace) -> Sequence[Row]:
        return RowFile(work.inputs["rows"] / ROWS)

    def function(self, work: Workspace) -> Callable[[Sequence[Row]], list[Row]]:
        return partial(judged, tuple(self.reasons), self.target, self.source, self.thresholds)

    def publish(self, log: SharedLog, work: Workspace) -> None:
        counts: Counter[str | None] = Counter()
        kept = bytearray()
        for row in log.rows():
            counts[row.get("reason")] += 1
            kept.append("reason" not in row)
        work.counts.update(kept=counts[None], **{name: counts[name] for name in self.reasons})
        write_lines(work.dir / ROWS, compress(log.lines(), kept))
        write_lines(work.dir / "dropped.jsonl", compress(log.lines(), (not one for one in kept)))


def judged(
    reasons: Sequence[str], target: Language, source: Language, thresholds: FilterConfig, rows: Sequence[Row]
) -> list[Row]:
    """The rows; those that are dropped have their `reason`. See `Filter`."""
    if "wrong_language" in reasons:
        look_ahead(row["text"] for row in rows)
    found = []
    for row in rows:
        given = row["source" if "source" in row else "prompt"]
        candidate = Candidate(row["text"], given, target, source, row.get("finished", True))
        reason = next((name for name in reasons if FILTERS[name](candidate, thresholds)), None)
        found.append({"id": row["id"], "reason": reason, **row} if reason else row)
    return found


def check_some_left(directory: Path) -> None:
    """Raises InputError if a filter has dropped all rows: a part of the mix would be missing without notice."""
    if (directory / ROWS).stat().st_size == 0 and (dropped := read_rows(directory / "dropped.jsonl")):
        counts = Counter(row["reason"] for row in dropped)
        why = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        own = "translations" if "source" in dropped[0] else "answers"
        which = "tasks" if counts.most_common(1)[0][0] in TASK_FILTERS else own
        raise InputError(
            f"filters.{which} drops all {len(dropped)} rows ({why}), see {directory / 'dropped.jsonl'}; a shorter "
            f"filters.{which}, a larger scale.max_new_tokens or another model helps"
        )


def english_letters(text: str) -> float:
    """The length of a text in any script, or in several, as letters and digits of its English translation.

    Each letter counts for what its script packs into one, so that code inside Chinese counts as code inside English.
    The weights are English letters per letter in the Universal Declaration of Human Rights: Chinese 3.5, Korean 2.6,
    Japanese 2.3 (kanji as Chinese, kana the rest), Nepali 1.8, Amharic, Bengali, Gujarati, Hindi and Punjabi 1.7,
    Telugu, Kannada, Sinhala, Malayalam, Hebrew and Marathi 1.5 to 1.6, Khmer, Burmese, Tibetan and Arabic 1.4,
    Persian, Tamil, Thai, Urdu and Lao 1.2 to 1.3, and 0.8 to 1.1 for alphabets (Cyrillic, Greek, Latin, Armenian and
    Georgian). With these weights, the seven human translations of MMLU are 0.85 to 1.1 times as long as the English.
    """
    letters = "".join(_LETTERS.findall(text))
    if letters.isascii():
        return len(letters)
    return len(letters) + sum((weight - 1) * characters_in(of, letters) for weight, of in ENGLISH_LETTERS.items())
