"""The texts of the alignment on disk: they equal the tokenizers' output, also after kills."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sdx.languages import language
from sdx.stacking import alignment_data
from sdx.stacking.alignment_data import ARRAYS, AlignmentData, aligned_words
from sdx.stacking.encoder_languages import encoder_tokenizer
from sdx.stacking.sequences import llm_tokenizer
from sdx.store.files import write_json
from sdx.store.step import Workspace
from sdx.store.store import Store
from tests.kit.stack_steps import SENTENCES, parts_of, texts_step, tokens_step

LIMIT = 30
WRITTEN = [file for name in ARRAYS for file in (name, f"{name}.ends")]
"""In this order."""
PROGRESS = "progress.json"


@pytest.fixture(autouse=True)
def chunks_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment_data, "CHUNK", 3)


@pytest.fixture
def calm(tmp_path: Path, encoder_dir: Path, llm_dir: Path) -> Path:
    step = tokens_step(parts_of(encoder_dir, llm_dir, "q: "), texts_step(), LIMIT)
    return Store(tmp_path / "cache").realise(step)


def test_what_is_read_is_what_the_tokenizers_say(calm: Path, encoder_dir: Path, llm_dir: Path):
    read = encoder_tokenizer(encoder_dir, "q: ", language("en"))
    own = llm_tokenizer(AutoTokenizer.from_pretrained(llm_dir))
    found = AlignmentData(calm)
    assert len(found) == len(SENTENCES)
    assert any(len(text.spans) == 1 + len(sentence.split()) for text, sentence in zip(found, SENTENCES, strict=True))
    for number, (text, sentence) in enumerate(zip(found, SENTENCES, strict=True)):
        [one], [other] = (segments.encode([(sentence,)], LIMIT) for segments in (read, own))
        words = aligned_words(sentence, one, other)
        assert words
        assert text.id == str(number)
        assert (text.input_ids, text.llm_ids) == (one.ids, other.ids)
        assert text.spans == [(0, len(one.ids)), *(ours for ours, _ in words)]
        assert text.llm_spans == [(0, len(other.ids)), *(theirs for _, theirs in words)]
        assert len(text.input_ids) <= LIMIT


def test_slices_are_views(calm: Path):
    texts = AlignmentData(calm)
    whole = list(texts)
    assert list(texts[2:5]) == whole[2:5]
    assert texts[2:][-1] == whole[-1]
    assert list(texts[2:7][1:3]) == whole[3:5]
    assert list(texts[8:8]) == []
    assert len(texts) == 8
    with pytest.raises(IndexError):
        texts[2:5][3]


def moments(sizes: list[dict[str, int]]) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """The progress on disk and the sizes of the files at each moment at which a kill may come.

    Args:
        sizes: at the end of each chunk.
    """
    for before, after in zip([dict.fromkeys(WRITTEN, 0), *sizes], sizes, strict=False):
        now = dict(before)
        for file in WRITTEN:
            for size in {before[file] + 1, (before[file] + after[file]) // 2, after[file] - 1, after[file]}:
                if before[file] < size <= after[file]:
                    yield before, {**now, file: size}
            now[file] = after[file]
        yield after, after


def test_killed_at_any_moment_it_writes_the_same(calm: Path, tmp_path: Path, encoder_dir: Path, llm_dir: Path):
    whole = {file: (calm / file).read_bytes() for file in WRITTEN}
    texts = {name: AlignmentData(calm)._ends[name] for name in ARRAYS}
    sizes = [
        {file: (4 * int(texts[file][last - 1]) if file in ARRAYS else 8 * last) for file in WRITTEN}
        for last in (3, 6, 8)
    ]
    assert sizes[-1] == {file: len(content) for file, content in whole.items()}
    inputs = {"encoder": tmp_path / "e", "backbone": tmp_path / "l", "texts": tmp_path / "t"}
    for name, target in (("e", encoder_dir), ("l", llm_dir)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").symlink_to(target)
    (tmp_path / "t").mkdir()
    texts_step().run(Workspace(tmp_path / "t", {}))
    step = tokens_step(parts_of(encoder_dir, llm_dir, "q: "), texts_step(), LIMIT)
    killed = list(moments(sizes))
    assert len(killed) > 50
    for number, (progress, left) in enumerate(killed):
        work = Workspace(tmp_path / f"killed{number}", inputs)
        work.dir.mkdir()
        write_json(work.dir / PROGRESS, progress)
        for file, size in left.items():
            if size:
                (work.dir / file).write_bytes(whole[file][:size])
        step.run(work)
        assert {file: (work.dir / file).read_bytes() for file in WRITTEN} == whole, left
        assert not (work.dir / PROGRESS).exists()
        assert work.counts["texts"] == 8


def test_texts_without_words_in_common(tmp_path: Path, encoder_dir: Path, llm_dir: Path):
    """Texts cut to special tokens and a letter."""
    step = tokens_step(parts_of(encoder_dir, llm_dir, "a long prefix: "), texts_step(["", "!"]), 6)
    store = Store(tmp_path)
    found = AlignmentData(store.realise(step))
    assert [len(text.spans) for text in found] == [1, 2]
    assert store.manifest(step)["counts"]["words"] == 1
