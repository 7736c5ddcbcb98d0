"""Benchmarks in files of their own formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sdx import InputError
from sdx.config import TaskConfig
from sdx.languages import Language
from sdx.options.source import FileSource
from sdx.store.step import Step
from sdx.tasks.base import ChoiceTask, GenerativeTask, Item, Task
from sdx.tasks.files import Files, LabelledFilesConfig
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
    """How F1 and exact match make tokens: `unicode`, ours, or the way of a published evaluation, which then is part of
    the metric's name, as in `F1 (MKQA)`: `mkqa`, `mlqa`, `squad`. See `sdx.tasks.normalisation`."""


SCHEMAS = {"hub": HubTaskConfig, "hub_answers": HubAnswersConfig}
ROMANISED = frozenset(("ben_Latn", "hin_Latn", "npi_Latn", "sin_Latn", "urd_Latn"))
"""Belebele's variants that FLORES does not have."""
NO_SHORT_ANSWER = frozenset(("unanswerable", "long_answer", "binary"))
"""MKQA's types of answers that are left out."""


class HubTask(Task):
    """A benchmark in files. Raises InputError if the dataset is not pinned."""

    title: str
    """The benchmark's name in messages."""
    lacking: frozenset[str] = frozenset()
    """FLORES codes of languages that the benchmark lacks although languages.csv has a code."""
    columns: ClassVar[dict[str, str]]
    """Name -> column of the files."""
    file_input = "file"
    """Name of the file among the inputs of steps."""

    def __init__(
        self,
        shots: int,
        path: str | None,
        hub_id: str | None,
        revision: str | None,
        file: str | None,
        normalisation: Normalisation = Normalisation.unicode,
    ) -> None:
        super().__init__(shots)
        source: dict[str, Any] = {"path": path, "hub_id": hub_id, "revision": revision, "file": file}
        config = LabelledFilesConfig(**source, codes=self.name, columns=self.columns)  # as in languages.csv
        self.files = Files(f"task.{self.name}", config, fixed=True)
        self.normalisation = normalisation

    def why_unsupported(self, language: Language) -> str | None:
        if not self.files.official(language) or language.flores in self.lacking:
            return f"{self.title} does not have the language."
        return self.files.missing or self.normalisation.why_unsupported(language)

    def where(self, language: Language) -> str:
        return self.files.where(language)

    def inputs(self, language: Language, answer_language: Language) -> dict[str, Step]:
        return {self.file_input: self.files.step(language)}


class Belebele(HubTask, ChoiceTask):
    """Belebele: 900 questions on FLORES passages, four answers, 122 languages (Bandarkar et al. 2024).

    Licence CC BY-SA 4.0. Human-translated from English. Asked like MMLU: passage and question, then the answers with
    their letters; the likeliest letter is taken. The texts of the answers are ranked or read in `belebele_mc`.
    """

    name = "belebele"
    title = "Belebele"
    texts = ("flores_passage", "question")
    choices = ("mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4")
    columns: ClassVar[dict[str, str]] = {
        "id": "link/question_number",
        **{name: name for name in (*texts, *choices, "correct_answer_num")},
    }
    file_input = "asset"

    def cluster(self, row: Mapping[str, Any]) -> str:
        """The passage: each of the 488 passages has one or two questions."""
        return str(row["question"]).rpartition("\n")[0]

    def read(self, directories: Mapping[str, Path], language: Language, answer_language: Language) -> list[Item]:
        items = []
        for id_, record in self.files.records(directories["asset"], language):
            prompt = "\n".join(record.text(name, needed=True) for name in self.texts)
            choices = [record.text(name, needed=True) for name in self.choices]
            items.append(Item(id_, prompt, choices, record.index("correct_answer_num", 1, len(choices))))
        return items


class Flores(HubTask, GenerativeTask):
    """FLORES devtest: 1,012 sentences in 200 languages, translated from L and into L (NLLB Team 2022, OLDI).

    Licence CC BY-SA 4.0; the hub's dataset is gated. Measured with chrF++, because the tokenizer of spBLEU is not
    available offline. Sentences are paired by `id`, or by their line in files without ids, such as a .tsv with a
    sentence in each line, as in the original tarball.
    """

    name = "flores"
    title = "FLORES"
    lacking = ROMANISED
    metrics = ("chrF++",)
    columns: ClassVar[dict[str, str]] = {"number": "id", "text": "text", "sentence": "sentence", "0": "0"}
    """The text of FLORES+, of FLORES-200 on the hub, of plain lines."""

    def pairs(self, source: Language, language: Language) -> list[tuple[Language, Language]]:
        if language == source or self.why_unsupported(source):
            return []
        return [(source, language), (language, source)]

    def origin(self, language: Language) -> str:
        return "human-translated"

    def inputs(self, language: Language, answer_language: Language) -> dict[str, Step]:
        return {"asked": self.files.step(language), "answered": self.files.step(answer_language)}

    def read(self, directories: Mapping[str, Path], language: Language, answer_language: Language) -> list[Item]:
        sentences = self._sentences(directories["asked"], language)
        references = self._sentences(directories["answered"], answer_language)
        if unpaired := sorted(sentences.keys() ^ references.keys()):
            raise InputError(
                f"the {len(sentences)} sentences of {self.where(language)} and the {len(references)} of "
                f"{self.where(answer_language)} do not belong together (one has no sentence {unpaired[0]}); give files "
                "of one split and one version"
            )
        prompt = f"Translate the following sentence from {language.name} to {answer_language.name}."
        return [Item(id_, f"{prompt}\n\n{text}", references=[references[id_]]) for id_, text in sentences.items()]

    def _sentences(self, directory: Path, language: Language) -> dict[str, str]:
        sentences: dict[str, str] = {}
        for number, record in self.files.records(directory, language):
            id_ = str(record.content.get("id", number))
            if id_ in sentences:
                raise InputError(f"{record.place} has the id {id_} again; give a file of one language and one split")
            column = next((name for name in ("text", "sentence", "0") if name in record.content), "text")
            sentences[id_] = record.text("text", column, needed=True)
        return sentences


class XLSum(HubTask, GenerativeTask):
    """XL-Sum, test split: BBC articles with their one-sentence summary, 43 languages of the table (Hasan et al. 2021).

    Licence CC BY-NC-SA 4.0. Each language has its own articles, so languages are not comparable item by item.
    Measured with ROUGE-L without stemming, on characters if spaces do not separate words; the authors' fork of
    rouge_score segments words with a tool per language, so published numbers differ for those languages.
    """

    name = "xlsum"
    title = "XL-Sum"
    metrics = ("ROUGE-L",)
    columns: ClassVar[dict[str, str]] = {"id": "id", "text": "text", "summary": "summary"}

    def origin(self, language: Language) -> str:
        return "original"

    def read(self, directories: Mapping[str, Path], language: Language, answer_language: Language) -> list[Item]:
        prompt = f"Summarize the following article in one sentence in {language.name}."
        items: dict[str, Item] = {}
        for id_, record in self.files.records(directories["file"], language, repeats=True):
            article, summary = (record.text(name, needed=True) for name in ("text", "summary"))
            item = Item(id_, f"{prompt}\n\n{article}", references=[summary])
            if items.setdefault(id_, item) != item:
                raise InputError(f"{record.place} has the id {id_} again; give a file of one language and one split")
        return list(items.values())


class MKQA(HubTask, GenerativeTask):
    """MKQA: questions of Natural Questions with their short answers, 26 languages (Longpre et al. 2021, CC BY-SA 3.0).

    Some of the 10,000 questions are left out: those that are unanswerable or have a long answer (the authors report
    "answerable" F1 too), and yes/no questions, whose answers are English in every language of the file. Each of a
    question's texts and aliases is a right answer. `normalisation=mkqa` measures as the authors do.
    """

    name = "mkqa"
    title = "MKQA"
    metrics = ("F1", "exact match")
    columns: ClassVar[dict[str, str]] = {"id": "example_id"}

    def read(self, directories: Mapping[str, Path], language: Language, answer_language: Language) -> list[Item]:
        prompt, code = f"Answer the following question in {language.name} in a few words.", language.mkqa
        items = []
        for id_, record in self.files.records(directories["file"], language):
            question = record.text("question", f"queries.{code}", needed=True)
            answers = record.value("answers", f"answers.{code}")
            try:
                kinds = {answer["type"] for answer in answers}
                texts = [text for answer in answers for text in (answer["text"], *answer.get("aliases", ()))]
            except (KeyError, TypeError, AttributeError):
                raise InputError(
                    f"{record.place}: answers.{code} has no type and text; give the authors' mkqa.jsonl.gz"
                ) from None
            references = list(dict.fromkeys(text.strip() for text in texts if isinstance(text, str) and text.strip()))
            if references and not kinds & NO_SHORT_ANSWER:
                items.append(Item(id_, f"{prompt}\n\n{question}", references=references))
        return items
