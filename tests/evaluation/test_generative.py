"""The paper's benchmarks end to end: files, prompts, a tiny model before and after, scores."""

from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.config import Config, Precision, TemplateKind
from sdx.evaluation.prompts import fitted
from sdx.evaluation.suites import suites
from sdx.generation.hf import HFGenerator
from sdx.languages import language
from sdx.models.template import prompt_ids
from sdx.store.files import read_json, read_rows
from sdx.store.store import Store
from sdx.tasks.hub import MKQA, Belebele, Flores, XLSum
from tests.kit.configs import tiny_config
from tests.kit.plain_step import PlainStep
from tests.kit.suites import NoTranslator, model_step, scored, scores
from tests.kit.task_files import ENGLISH, THAI, belebele_rows, flores_rows, jsonl, mkqa_rows, xlsum_rows
from tests.kit.tiny import tiny_model, tiny_tokenizer

ENDS = {"belebele": "{language}.jsonl", "flores": "flores/{language}.jsonl", "xlsum": "{language}.jsonl"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    tiny_model(root / "one", seed=0)
    tiny_model(root / "two", seed=1)
    for code, sentences in (("tha_Thai", THAI), ("eng_Latn", ENGLISH)):
        jsonl(root / f"{code}.jsonl", belebele_rows(5, code))
        jsonl(root / f"flores/{code}.jsonl", flores_rows(sentences))
    jsonl(root / "thai.jsonl", xlsum_rows())
    jsonl(root / "english.jsonl", [{**row, "text": "A long story. " * 200} for row in xlsum_rows()])
    jsonl(root / "mkqa.jsonl.gz", mkqa_rows())
    return root


def tasks(root: Path) -> dict[str, Any]:
    made = {task.name: task(0, str(root / ENDS[task.name]), None, None, None) for task in (Belebele, Flores, XLSum)}
    return {**made, "mkqa": MKQA(0, str(root / "mkqa.jsonl.gz"), None, None, None)}


def planned(
    root: Path, settings: Config, generator: HFGenerator, target: str = "th", **chosen: Any
) -> tuple[list[Any], list[str]]:
    corpus, languages = PlainStep("corpus", lambda _: None), (language("en"), [language(target)])
    return suites(settings, chosen or tasks(root), lambda: corpus, NoTranslator(), generator, *languages)  # type: ignore[arg-type]


@pytest.mark.whole
def test_the_papers_benchmarks_before_and_after(place: Path, tmp_path: Path) -> None:
    generator, store = HFGenerator(4, Precision.fp32), Store(tmp_path)
    found, skipped = planned(place, tiny_config(), generator)
    assert skipped == []
    rows = scored(found, store, place / "one", place / "two")
    own = [(row.task, row.language, row.metric, row.origin, row.before.n) for row in rows if row.metric[:6] != "answer"]
    assert own == [
        ("belebele", "en", "accuracy", "original", 5),
        ("belebele", "th", "accuracy", "human-translated", 5),
        ("flores", "en-th", "chrF++", "human-translated", 3),
        ("flores", "th-en", "chrF++", "human-translated", 3),
        ("xlsum", "en", "ROUGE-L", "original", 4),
        ("xlsum", "th", "ROUGE-L", "original", 4),
        ("mkqa", "en", "F1", "original", 3),
        ("mkqa", "en", "exact match", "original", 3),
        ("mkqa", "th", "F1", "human-translated", 2),
        ("mkqa", "th", "exact match", "human-translated", 2),
    ]
    for row in rows:
        assert row.after
        assert row.difference
        for estimate in (row.before, row.after):
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 100
        assert row.difference.value == pytest.approx(row.after.value - row.before.value)


def test_a_language_that_a_benchmark_lacks_is_skipped(place: Path) -> None:
    task = tasks(place)["mkqa"]
    found, skipped = planned(place, tiny_config(), HFGenerator(4, Precision.fp32), "sw", mkqa=task)
    assert [suite.languages for suite in found] == ["en"]
    assert skipped == ["mkqa in Swahili: MKQA does not have the language."]


def test_scores_are_of_the_first_lines(place: Path, tmp_path: Path) -> None:
    """Completions written by hand, so that the values are known."""
    store = Store(tmp_path / "cache")
    found, _ = planned(place, tiny_config(), HFGenerator(4, Precision.fp32), flores=tasks(place)["flores"])
    suite = found[0]
    items = read_rows(store.realise(suite.items) / "rows.jsonl")
    for name, answers in (
        ("right", [f"\n{row['references'][0]}\nAnd more that does not count." for row in items]),
        ("wrong", ["\n" for _ in items]),
    ):
        outcome = [{"id": row["id"], "text": text} for row, text in zip(items, answers, strict=True)]
        jsonl(tmp_path / name / "rows.jsonl", outcome)
    score = scores(suite, store, tmp_path / "wrong", tmp_path / "right")[0]
    assert (score.metric, score.before.value) == ("chrF++", 0)
    assert score.after
    assert score.after.value == pytest.approx(100)
    assert score.difference
    assert score.difference.value == pytest.approx(100)


def test_rows_are_a_fixed_sample(place: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    generator = HFGenerator(4, Precision.fp32)

    def ids(limit: int) -> list[str]:
        found, _ = planned(place, tiny_config(eval_items=limit), generator, xlsum=tasks(place)["xlsum"])
        return [row["id"] for row in read_rows(store.realise(found[1].items) / "rows.jsonl")]

    assert sorted(ids(0)) == [f"international-{n}" for n in range(4)]
    assert ids(2) == ids(0)[:2]


def test_a_prompt_loses_its_end_where_the_context_is_short(place: Path, tmp_path: Path) -> None:
    store, model = Store(tmp_path), model_step(place / "one")
    found, _ = planned(place, tiny_config(), HFGenerator(4, Precision.fp32), xlsum=tasks(place)["xlsum"])
    english = found[0].outcome(model, "before").inputs["prompts"]
    path = store.realise(english)
    assert read_json(path / "manifest.json")["counts"] == {"prompts": 4, "cut": 4}
    tokenizer = tiny_tokenizer()
    for row in read_rows(path / "rows.jsonl"):
        assert row["prompt"].startswith("Summarize the following article in one sentence in English.\n\nA long story.")
        assert 285 <= len(prompt_ids(tokenizer, row["prompt"])) <= 300 - 8


def test_cutting_keeps_characters_whole() -> None:
    tokenizer = tiny_tokenizer()
    text = "ก" * 50 + "🙂" * 50
    whole = len(prompt_ids(tokenizer, text))
    for room in range(40, whole + 2):
        part = fitted(tokenizer, text, room)
        assert text.startswith(part)
        assert len(prompt_ids(tokenizer, part)) <= room
    assert part == text
    with pytest.raises(InputError, match="template leaves no room"):
        fitted(tokenizer, text, 3)


def test_no_room_for_a_prompt(place: Path) -> None:
    settings = tiny_config()
    settings.scale.max_new_tokens = 300
    found, _ = planned(place, settings, HFGenerator(4, Precision.fp32), xlsum=tasks(place)["xlsum"])
    with pytest.raises(InputError, match=r"scale\.max_new_tokens=300 leaves no room .*backbone\.context_tokens=300"):
        found[0].outcome(model_step(place / "one"), "before")


def test_nothing_to_ask(place: Path, tmp_path: Path) -> None:
    task = XLSum(0, str(jsonl(tmp_path / "none.jsonl", [])), None, None, None)
    found, _ = planned(place, tiny_config(), HFGenerator(4, Precision.fp32), xlsum=task)
    with pytest.raises(InputError, match=r"task\.xlsum\.path=.*none\.jsonl has no rows"):
        Store(tmp_path / "cache").realise(found[0].items)
    twice = MKQA(0, str(jsonl(tmp_path / "twice.jsonl", mkqa_rows() * 2)), None, None, None)
    found, _ = planned(place, tiny_config(), HFGenerator(4, Precision.fp32), mkqa=twice)
    with pytest.raises(InputError, match=r"twice\.jsonl, line \d+ has the id .* again"):
        Store(tmp_path / "cache").realise(found[0].items)


def test_an_interrupted_outcome_goes_on_where_it_stopped(place: Path, tmp_path: Path) -> None:
    class Dying(HFGenerator):
        asked: list[str]
        lives = 2

        def complete(self, instructions: list[str], max_new_tokens: Any, **given: Any) -> Any:
            if not self.lives:
                raise KeyboardInterrupt
            self.lives -= 1
            self.asked += instructions
            return super().complete(instructions, max_new_tokens, **given)

    generator, store, model = Dying(1, Precision.fp32), Store(tmp_path / "cache"), model_step(place / "one")
    generator.asked = []
    found, _ = planned(place, tiny_config(), generator, flores=tasks(place)["flores"])
    step = found[0].outcome(model, "before")
    with pytest.raises(KeyboardInterrupt):
        store.realise(step)
    generator.lives = 9
    resumed = (store.realise(step) / "rows.jsonl").read_bytes()
    assert len(generator.asked) == len(set(generator.asked)) == 3
    whole = Store(tmp_path / "another").realise(step) / "rows.jsonl"
    assert whole.read_bytes() == resumed


@pytest.mark.parametrize(
    ("completion", "answer"), [("", ""), ("\n \n a b \nc", "a b"), ("กรุงเทพ", "กรุงเทพ"), ("a\r\nb", "a")]
)
def test_the_answer_is_the_first_line(completion: str, answer: str, place: Path) -> None:
    assert tasks(place)["xlsum"].answer(completion) == answer


def test_the_template_and_the_model_decide_the_prompts(place: Path) -> None:
    settings = tiny_config()
    found, _ = planned(place, settings, HFGenerator(4, Precision.fp32), xlsum=tasks(place)["xlsum"])
    chat = found[0].outcome(model_step(place / "one"), "before")
    assert found[0].outcome(model_step(place / "one"), "after").key == chat.key
    assert found[0].outcome(model_step(place / "two"), "before").key != chat.key
    settings.backbone.template = TemplateKind.instruction
    found, _ = planned(place, settings, HFGenerator(4, Precision.fp32), xlsum=tasks(place)["xlsum"])
    assert found[0].outcome(model_step(place / "one"), "before").key != chat.key
