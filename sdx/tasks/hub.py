"""Benchmarks in files: the options that name them, and their records."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import TaskConfig
from sdx.languages import ENGLISH, Language
from sdx.options.source import FileSource
from sdx.sources.files import file_step, published, read_records
from sdx.store.step import Step
from sdx.tasks.base import ChoiceTask, GenerativeTask, Item, Kind, Task
from sdx.tasks.normalisation import Normalisation


@dataclass
class HubTaskConfig(TaskConfig, FileSource):
    """A benchmark in files. A `path` is read instead of the hub's dataset.

    It is in the benchmark's own format: .jsonl, .json, .csv, .tsv (each also with .gz) or .parquet. `{language}` in
    `path` or `file` stands for the benchmark's code of a language; in FLORES that is FLORES-200's, and `{flores_plus}`
    FLORES+'s.
    """


@dataclass
class HubAnswersConfig(HubTaskConfig):
    """A benchmark of short answers."""

    normalisation: Normalisation = Normalisation.unicode
    """What F1 and exact match compare: `unicode`, ours, or a published evaluation's, which the metric is then named
    after, as in `F1 (MKQA)`: `mkqa`, `mlqa`, `squad`. See `sdx.tasks.normalisation`."""


SCHEMAS = {"hub": HubTaskConfig, "hub_answers": HubAnswersConfig}


class HubTask(Task):
    """A benchmark in files.

    Raises:
        InputError: the dataset is not pinned.
    """

    def __init__(
        self, shots: int, path: str | None, hub_id: str | None, revision: str | None, file: str | None
    ) -> None:
        super().__init__(shots)
        self.group = f"task.{self.name}"
        self.missing = None if path or hub_id else f"its file is not on the hub; give a copy as {self.group}.path=..."
        """Why it cannot be run, as the end of a sentence."""
        self.source = FileSource(path=path) if path else FileSource(hub_id=hub_id, revision=revision, file=file)
        self.source.check(self.group, required=False)

    @abstractmethod
    def codes(self, language: Language) -> dict[str, str]:
        """What stands for the placeholders in the name of a language's file."""

    def why_unsupported(self, language: Language) -> str | None:
        has = self.codes(language)["language"]
        return self.missing if has else f"{type(self).__name__} does not have the language."

    def inputs(self, asked: Language, answered: Language) -> dict[str, Step]:
        return {"file": self.step(asked)}

    def step(self, language: Language) -> Step:
        """Publishes the file of a language."""
        return file_step(self.group, self.source, self.codes(language))

    def opened(self, language: Language) -> str:
        return self.source.where(self.group, self.codes(language))

    def records(
        self, directory: Path, names: Collection[str], language: Language
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(place, record) of each row of what `step` published for a language.

        Args:
            names: columns, by which a .tsv's header is known.
        """
        return read_records(published(directory), self.opened(language), names)


def text_of(record: Mapping[str, Any], column: str, place: str) -> str:
    """The text in a column.

    Raises:
        InputError: there is none.
    """
    value = record.get(column)
    if not isinstance(value, str) or not value.strip():
        columns = ", ".join(record)
        raise InputError(f"{place} has no text in `{column}` (columns: {columns}); give the benchmark's own file")
    return value.strip()


ROMANISED = frozenset(("ben_Latn", "hin_Latn", "npi_Latn", "sin_Latn", "urd_Latn"))
"""Belebele's variants that FLORES does not have."""
FLORES_PLUS = {
    "ajp_Arab": "apc_Arab_sout3123",
    "aka_Latn": "twi_Latn_asan1239",
    "apc_Arab": "apc_Arab_nort3139",
    "est_Latn": "ekk_Latn",
    "grn_Latn": "gug_Latn",
    "kon_Latn": "ktu_Latn",
    "sat_Beng": "sat_Olck",
    "tgl_Latn": "fil_Latn",
    "twi_Latn": "twi_Latn_akua1239",
    "tzm_Tfng": "zgh_Tfng",
    "zho_Hans": "cmn_Hans",
    "zho_Hant": "cmn_Hant",
}
"""FLORES-200 code -> FLORES+ code, where the two differ (Akan's by elimination)."""
NOT_ASKED = frozenset(("unanswerable", "long_answer", "binary"))
"""MKQA's types of answers that are left out."""


class Belebele(HubTask, ChoiceTask):
    """Belebele: 900 questions on FLORES passages, four answers, 122 languages (Bandarkar et al. 2024).

    Licence CC BY-SA 4.0. Human-translated from English. Asked as MMLU is: passage and question, then the answers
    with their letters, of which the likeliest is taken.
    """

    name = "belebele"
    kind = Kind.letters
    choices = ("mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4")

    def codes(self, language: Language) -> dict[str, str]:
        return {"language": language.belebele}

    def origin(self, asked: Language, answered: Language) -> str:
        return "original" if asked.flores == ENGLISH else "human-translated"

    def inputs(self, asked: Language, answered: Language) -> dict[str, Step]:
        return {"asset": self.step(asked)}

    def shared(self, item: Mapping[str, Any]) -> str:
        """The passage: 488 passages have one question or two."""
        return str(item["question"]).rpartition("\n")[0]

    def read(self, directories: Mapping[str, Path], asked: Language, answered: Language) -> list[Item]:
        items: list[Item] = []
        seen: Counter[str] = Counter()
        for place, record in self.records(directories["asset"], ("link",), asked):
            id_ = f"{text_of(record, 'link', place)}/{record.get('question_number')}"
            seen[id_] += 1
            if seen[id_] > 1:  # two passages of one page count their questions alike
                id_ = f"{id_}#{seen[id_]}"
            question = f"{text_of(record, 'flores_passage', place)}\n{text_of(record, 'question', place)}"
            right = str(record.get("correct_answer_num"))
            if right not in ("1", "2", "3", "4"):
                raise InputError(f"{place} has correct_answer_num={right}; it is 1 to 4 in the benchmark's own file")
            choices = [text_of(record, column, place) for column in self.choices]
            items.append(Item(id_, question, choices, int(right) - 1))
        return items


class Flores(HubTask, GenerativeTask):
    """FLORES devtest: 1,012 sentences in 200 languages, translated from L and into L (NLLB Team 2022, OLDI).

    Licence CC BY-SA 4.0; the hub's dataset is gated. Measured with chrF++: spBLEU's tokenizer is not to be had
    offline. Two sentences belong together by `id`, or by their place where the files have none: one sentence a
    line in a .tsv, as in the original tarball, is read too.
    """

    name = "flores"
    metrics = ("chrF++",)
    columns = ("text", "sentence", "0")
    """Of FLORES+, of FLORES-200 on the hub, of plain lines."""

    def why_unsupported(self, language: Language) -> str | None:
        return "FLORES does not have the language." if language.flores in ROMANISED else self.missing

    def pairs(self, source: Language, language: Language) -> list[tuple[Language, Language]]:
        if language == source or self.why_unsupported(source):
            return []
        return [(source, language), (language, source)]

    def origin(self, asked: Language, answered: Language) -> str:
        return "human-translated"

    def inputs(self, asked: Language, answered: Language) -> dict[str, Step]:
        return {"asked": self.step(asked), "answered": self.step(answered)}

    def codes(self, language: Language) -> dict[str, str]:
        return {"language": language.flores, "flores_plus": FLORES_PLUS.get(language.flores, language.flores)}

    def read(self, directories: Mapping[str, Path], asked: Language, answered: Language) -> list[Item]:
        one, other = self._sentences(directories["asked"], asked), self._sentences(directories["answered"], answered)
        if alone := sorted(one.keys() ^ other.keys()):
            raise InputError(
                f"the {len(one)} sentences of {self.opened(asked)} and the {len(other)} of {self.opened(answered)} do "
                f"not belong together (one has no sentence {alone[0]}); give files of one split and one version"
            )
        ask = f"Translate the following sentence from {asked.name} to {answered.name}."
        return [Item(id_, f"{ask}\n\n{one[id_]}", references=[other[id_]]) for id_ in one]

    def _sentences(self, directory: Path, language: Language) -> dict[str, str]:
        sentences: dict[str, str] = {}
        for number, (place, record) in enumerate(self.records(directory, ("id", *self.columns), language), 1):
            id_ = str(record.get("id", number))
            if id_ in sentences:
                raise InputError(f"{place} has the id {id_} again; give a file of one language and one split")
            column = next((name for name in self.columns if name in record), self.columns[0])
            sentences[id_] = text_of(record, column, place)
        return sentences


class XLSum(HubTask, GenerativeTask):
    """XL-Sum, test split: BBC articles with their one-sentence summary, 43 languages of the table (Hasan et al. 2021).

    Licence CC BY-NC-SA 4.0. Articles are of the language, not translated: languages are not comparable item by item.
    Measured with ROUGE-L without stemming, on characters where there are no spaces; the authors' fork of rouge_score
    segments words with a tool per language, so that numbers in papers differ for those.
    """

    name = "xlsum"
    metrics = ("ROUGE-L",)

    def why_unsupported(self, language: Language) -> str | None:
        return self.missing if language.xlsum else "XL-Sum does not have the language."

    def codes(self, language: Language) -> dict[str, str]:
        return {"language": language.xlsum}

    def read(self, directories: Mapping[str, Path], asked: Language, answered: Language) -> list[Item]:
        ask = f"Summarize the following article in one sentence in {answered.name}."
        rows: dict[str, Item] = {}
        for place, record in self.records(directories["file"], ("id", "text", "summary"), asked):
            id_, article = text_of(record, "id", place), text_of(record, "text", place)
            summary = text_of(record, "summary", place)
            row = Item(id_, f"{ask}\n\n{article}", references=[summary])
            if rows.setdefault(id_, row) != row:
                raise InputError(f"{place} has the id {id_} again; give a file of one language and one split")
        return list(rows.values())


class MKQA(HubTask, GenerativeTask):
    """MKQA: questions of Natural Questions with their short answers, 26 languages (Longpre et al. 2021, CC BY-SA 3.0).

    Of the 10,000 questions are left out: the unanswerable and those with a long answer, to which the right answer is
    none (the authors report "answerable" F1 too), and yes/no questions, whose answer the file gives in English in
    every language. An answer may be any of a question's texts and aliases. `normalisation=mkqa` measures as the authors
    do.
    """

    name = "mkqa"
    metrics = ("F1", "exact match")

    def __init__(
        self,
        shots: int,
        path: str | None,
        hub_id: str | None,
        revision: str | None,
        file: str | None,
        normalisation: Normalisation = Normalisation.unicode,
    ) -> None:
        super().__init__(shots, path, hub_id, revision, file)
        self.normalisation = normalisation

    def why_unsupported(self, language: Language) -> str | None:
        return super().why_unsupported(language) or self.normalisation.why_unsupported(language)

    def origin(self, asked: Language, answered: Language) -> str:
        return "original" if asked.flores == ENGLISH else "human-translated"

    def codes(self, language: Language) -> dict[str, str]:
        return {"language": language.mkqa}

    def read(self, directories: Mapping[str, Path], asked: Language, answered: Language) -> list[Item]:
        ask = f"Answer the following question in {answered.name} in a few words."
        rows: list[Item] = []
        seen: set[str] = set()
        for place, record in self.records(directories["file"], (), asked):
            try:
                id_, question = str(record["example_id"]), text_of(record["queries"], asked.mkqa, place)
                answers = record["answers"][asked.mkqa]
                kinds = {answer["type"] for answer in answers}
                texts = [text for answer in answers for text in (answer["text"], *answer.get("aliases", ()))]
            except (KeyError, TypeError, AttributeError):
                raise InputError(
                    f"{place} has no example_id, queries.{asked.mkqa} or answers.{asked.mkqa} with type and text; "
                    "give the authors' mkqa.jsonl.gz"
                ) from None
            if id_ in seen:
                raise InputError(f"{place} has the id {id_} again; give the authors' mkqa.jsonl.gz")
            seen.add(id_)
            references = list(dict.fromkeys(text.strip() for text in texts if isinstance(text, str) and text.strip()))
            if references and not kinds & NOT_ASKED:
                rows.append(Item(id_, f"{ask}\n\n{question}", references=references))
        return rows
