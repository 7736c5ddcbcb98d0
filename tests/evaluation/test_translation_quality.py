"""Translations against human references: their pairs and their scores."""

from pathlib import Path
from typing import Any

import pytest

from sdx.config import Config, ScaleConfig
from sdx.evaluation.metrics import BLEU, bleu_tokenizer, corpus_score, corpus_statistics
from sdx.evaluation.suites import Suite
from sdx.evaluation.translation_quality import Pairs, translation_suite, translation_suites
from sdx.languages import language
from sdx.store.files import read_json, read_rows, write_rows
from sdx.store.step import Step, Workspace
from sdx.store.store import Store
from sdx.tasks.base import Instructions
from sdx.tasks.mmlu import MMLUHuman
from sdx.translation.base import Translator
from tests.kit.plain_step import PlainStep
from tests.kit.suites import scores
from tests.kit.task_files import hub_files, hub_task, task

ENGLISH = [
    {"id": "1", "question": "Water boils at one hundred degrees.", "choices": ["yes", "no"], "gold": 0},
    {"id": "2", "question": "E = m c", "choices": [], "gold": 0},
    {"id": "3", "question": "What is the name of the river?", "choices": [], "gold": 0},
    {"id": "4", "question": "The cat sleeps on the chair.", "choices": [], "gold": 0},
    {"id": "5", "question": "Only in English", "choices": [], "gold": 0},
]
PORTUGUESE = [
    {"id": "3", "question": "Qual é o nome do rio?", "choices": [], "gold": 0},
    {"id": "1", "question": "A água ferve a cem graus.", "choices": ["sim", "não"], "gold": 0},
    {"id": "2", "question": "E = m c", "choices": [], "gold": 0},
    {"id": "4", "question": " ", "choices": [], "gold": 0},
]


class Table(Translator):
    """Translates by a table; other sentences stay as they are."""

    version = "1"

    def __init__(self, name: str = "table", target: str = "por_Latn") -> None:
        self.name = name
        self.target = target

    def why_unsupported(self, source: str, target: str) -> str | None:
        return None if target == self.target else "is a table"

    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        known = {
            one["question"]: other["question"] for one in ENGLISH for other in PORTUGUESE if one["id"] == other["id"]
        }
        return [known.get(sentence, sentence) for sentence in sentences]


class Choosing(Table):
    """Another name for the engine that it chooses."""

    def for_pair(self, source: str, target: str) -> Translator:
        return Table()


def published(rows: list[dict[str, Any]]) -> Step:
    def run(work: Workspace) -> None:
        write_rows(work.dir / "rows.jsonl", rows)

    return PlainStep("items", run, {"rows": rows})


def pairs(store: Store, one: list[dict[str, Any]], other: list[dict[str, Any]], limit: int = 0) -> tuple[Any, Any]:
    path = store.realise(Pairs(published(one), published(other), limit))
    return read_rows(path / "rows.jsonl"), read_json(path / "manifest.json")["counts"]


def test_questions_are_joined_by_id_and_what_says_nothing_is_counted(tmp_path: Path):
    rows, counts = pairs(Store(tmp_path), ENGLISH, PORTUGUESE)
    assert rows == [
        {"id": "1", "source": "Water boils at one hundred degrees.", "reference": "A água ferve a cem graus."},
        {"id": "3", "source": "What is the name of the river?", "reference": "Qual é o nome do rio?"},
    ]
    assert counts == {"rows": 2, "one_side": 1, "empty": 1, "equal": 1, "repeated": 0}
    assert [row["id"] for row in pairs(Store(tmp_path), ENGLISH, PORTUGUESE, 1)[0]] == ["1"]


def test_fields_are_rows_of_their_own_and_a_shared_passage_is_one(tmp_path: Path):
    one = [{"id": str(n), "fields": {"context": "A story.", "question": f"Who is {n}?", "hint": "x"}} for n in (1, 2)]
    other = [{"id": str(n), "fields": {"context": "Uma história.", "question": f"Quem é {n}?"}} for n in (1, 2)]
    rows, counts = pairs(Store(tmp_path), one, other)
    assert [row["id"] for row in rows] == ["1/context", "1/question", "2/question"]
    assert counts == {"rows": 3, "one_side": 2, "empty": 0, "equal": 0, "repeated": 1}


def found(tmp_path: Path, targets: list[str], *translators: Translator) -> list[Suite]:
    arc = task(tmp_path, "arc_easy")
    tasks = {"arc_easy": arc, "mmlu_human": MMLUHuman(0), "instructions": Instructions(0)}
    config = Config(scale=ScaleConfig(name="test", eval_items=4))
    return translation_suites(config, tasks, language("en"), [language(code) for code in targets], translators)


def test_a_suite_for_each_benchmark_with_human_texts_and_each_engine(tmp_path: Path):
    [suite] = found(tmp_path, ["pt", "sw"], Table(), Choosing())  # the same engine by another name; no Swahili in MMLU
    assert (suite.task.name, suite.languages, suite.origin, suite.engine) == (
        "mmlu_human",
        "en-pt",
        "human-translated (mmlu_human)",
        "table",
    )
    assert isinstance(suite.items, Pairs)
    assert found(tmp_path, ["de"], Table()) == []
    assert [suite.engine for suite in found(tmp_path, ["pt"], Table(), Table("other"))] == ["table", "other"]


@pytest.mark.parametrize("name", ["xquad", "xnli", "mgsm"])
def test_labelled_benchmarks_are_references_too(name: str, tmp_path: Path):
    tasks = {name: hub_task(tmp_path, hub_files(tmp_path / "hub"), name)}
    config = Config(scale=ScaleConfig(name="test", eval_items=0))
    engine = Table(target=language("th").flores)
    [suite] = translation_suites(config, tasks, language("en"), [language("th")], [engine])
    rows = read_rows(Store(tmp_path / "cache").realise(suite.items) / "rows.jsonl")
    same = {"xquad": {"question"}}.get(name, set())  # in the file of the test
    assert {row["id"].partition("/")[2] for row in rows} == {*tasks[name].translated} - {"answer"} - same
    assert all(row["source"] != row["reference"] for row in rows)


def suite_of(items: list[dict[str, Any]], references: list[dict[str, Any]], target: str) -> Suite:
    step = Pairs(published(items), published(references), 0)
    engine = Table(target=language(target).flores)
    return translation_suite(MMLUHuman(0), language("en"), language(target), step, engine)


def answers(suite: Suite) -> Step:
    return suite.outcome(published([]), "whatever the model")


def test_scores_of_an_engine(tmp_path: Path):
    store = Store(tmp_path)
    suite = suite_of(ENGLISH, PORTUGUESE, "pt")
    chrf, bleu = scores(suite, store, store.realise(answers(suite)), None)
    for score in (chrf, bleu):
        named = (score.task, score.language, score.origin)
        assert named == ("translation by table", "en-pt", "human-translated (mmlu_human)")
        assert (score.before.value, score.before.n) == (pytest.approx(100), 2)
        assert score.after is score.difference is None
    assert (chrf.metric, bleu.metric) == ("chrF++", "BLEU")


def test_the_tokeniser_is_named_and_no_pairs_are_no_score(tmp_path: Path):
    store = Store(tmp_path)
    thai = suite_of(ENGLISH, [{"id": "1", "question": "น้ำเดือดที่หนึ่งร้อยองศา"}], "th")
    _, bleu = scores(thai, store, store.realise(answers(thai)), None)
    assert (bleu.metric, bleu.before.value) == ("BLEU (char)", 0)
    empty = suite_of(ENGLISH, [], "th")
    assert scores(empty, store, store.realise(answers(empty)), None) == []


TEXTS = {
    "pt": [
        ("A água ferve a cem graus ao nível do mar.", "A água ferve a cem graus no nível do mar."),
        ("O gato dorme, na cadeira!", "O gato está a dormir na cadeira."),
        ("", "Nada."),
    ],
    "de": [("Das ist ein Haus.", "Dies ist das alte Haus dort."), ("Ein Hund", "Der Hund bellt (laut)")],
    "zh": [("北京是中国的首都。", "北京是中华人民共和国的首都。"), ("水在100°C沸腾", "水在 100°C 时沸腾。")],
    "yue": [("香港係一個城市", "香港是一個大城市。")],
    "th": [("กรุงเทพเป็นเมืองหลวง", "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"), ("น้ำ เดือด", "น้ำเดือดที่ร้อยองศา")],
    "ja": [("水は百度で沸騰する。", "水は100度で沸騰します。")],
}


@pytest.mark.parametrize("code", TEXTS)
def test_bleu_is_sacrebleus(code: str):
    from sacrebleu import corpus_bleu

    tokenizer = bleu_tokenizer(language(code))
    assert tokenizer == {"pt": "13a", "de": "13a", "zh": "zh", "yue": "zh", "th": "char", "ja": "char"}[code]
    for some in (TEXTS[code], *([pair] for pair in TEXTS[code])):
        hypotheses, references = map(list, zip(*some, strict=True))
        expected = corpus_bleu(hypotheses, [references], tokenize=tokenizer).score
        found = float(corpus_score(BLEU, corpus_statistics(BLEU, hypotheses, references, tokenizer).sum(0)))
        assert found == pytest.approx(expected)


def test_bleu_without_matches_of_some_orders():
    from sacrebleu import corpus_bleu

    hypotheses = ["a b x c d", "a b", "one two", "a x b y c"]  # no 4-gram; too short; nothing; no 2-gram
    references = ["a b c d", "a b c", "three", "a b c d e"]
    statistics = corpus_statistics(BLEU, hypotheses, references)
    expected = [corpus_bleu([one], [[other]]).score for one, other in zip(hypotheses, references, strict=True)]
    assert corpus_score(BLEU, statistics) == pytest.approx(expected)
    assert expected[0] > 0
    assert expected[1:3] == [0, 0]
