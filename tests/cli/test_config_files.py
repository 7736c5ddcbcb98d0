"""Whatever is wrong with a user's YAML, the error is one line that names the file."""

from pathlib import Path

import pytest
from hydra.errors import HydraException

from sdx import InputError
from sdx.cli import main
from sdx.cli.explain import explain
from sdx.options.checks import UNFORESEEN
from tests.kit.composing import checked

main.register()
REFUSED = (HydraException, InputError, *UNFORESEEN)
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
FILES = {
    "a tab": ("scale:\n\tepochs: 2\n", "mine.yaml line 3, column 1: a tab; indent with spaces"),
    "aliases for a billion values": (BOMB, "more than 100000 values, aliases included"),
    "an alias of what it is in": ("a: &a [*a]\n", "more than 100000 values, aliases included"),
    "a tag of Python": ('seed: !!python/object/apply:os.system ["touch touched"]\n', "line 2, column 7: could not"),
    "levels without end": (f"a: {'[' * 3000}{']' * 3000}\n", "more levels than can be read"),
    "a key twice": ("seed: 1\nseed: 2\n", "line 3, column 1: found duplicate key seed"),
    "two colons": ("a: b: c\n", "line 2, column 5: mapping values are not allowed here"),
    "a number of 6000 digits": (f"seed: {'9' * 6000}\n", "cannot be read: Exceeds the limit"),
    "NUL": ('seed: "\0"\n', "cannot be read: unacceptable character"),
    "no UTF-8": (b"tracking: {group: caf\xe9}\n", "cannot be read: 'utf-8' codec"),
    "a list": ("- a\n- b\n", "all in experiments/mine: Cannot merge DictConfig with ListConfig"),
    "a text": ("just text\n", "just text in experiments/mine: there is no key just text"),
    "defaults that are a number": ("defaults: 5\n", "defaults must be a list (got int)"),
    "defaults of lists": ("defaults:\n  - override /method: [1,2]\n", "nested list items must be strings"),
    "a key that is not there": (
        "train:\n  learnin_rate: 1\n",
        "train.learnin_rate in experiments/mine: there is no key train.learnin_rate; did you mean train.learning_rate",
    ),
    "a key of Hydra's that is not there": ("hydra: {nonsense: 1}\n", "there is no key hydra.nonsense"),
    "another type": ("seed: true\n", "seed in experiments/mine: Value 'True' of type 'bool' could not be converted"),
    "null": ("train: null\n", "train in experiments/mine: field 'train' is not Optional"),
    "nan": ("train: {learning_rate: .nan}\n", "train.learning_rate=nan is not a number; give more than 0 to 1"),
    "inf": ("method: {subsets: {tl: .inf}}\n", "method.subsets.tl=inf is too large; give 0 to 1000"),
    "a number too large": (
        "seed: 99999999999999999999\n",
        "seed=99999999999999999999 is too large; give 0 to",
    ),
}


def said(directory: Path, *overrides: str) -> str:
    with pytest.raises(REFUSED) as caught:
        checked(*overrides, f"hydra.searchpath=[file://{directory}]")
    return explain(caught.value, overrides)


@pytest.mark.parametrize("name", FILES)
def test_an_experiment_that_cannot_be_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    content, message = FILES[name]
    (tmp_path / "experiments").mkdir()
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "experiments/mine.yaml").write_bytes(b"# @package _global_\n" + raw)
    line = said(tmp_path, "+experiments=mine")
    assert message in line
    assert "\n" not in line
    assert not (tmp_path / "touched").exists()


def test_an_option_of_a_group(tmp_path: Path):
    (tmp_path / "method").mkdir()
    mine = tmp_path / "method/mine.yaml"
    schema = "defaults: [schema_sft, _self_]\n_target_: sdx.methods.baselines.SFT\n"
    mine.write_text(f"{schema}name: mine\nnonsense: 3\n")
    assert "method.nonsense in method/mine: there is no key method.nonsense" in said(tmp_path, "method=mine")
    mine.write_text(f"{schema}name: ../mine\n")
    assert "method.name=../mine is not a name" in said(tmp_path, "method=mine")
    mine.write_text(f"{schema}\tname: mine\n")
    assert "mine.yaml line 3, column 1: a tab" in said(tmp_path, "method=mine")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lang=[[pt]]", "lang=[['pt']]: give a language, lang=th, a list, lang=[th,sw], or a set"),
        ("lang=[pt,null]", "lang=[pt,null]: give a language"),
        ("lang=5", "lang=5: give a language"),
        ("lang=nan", "lang=nan: give a language"),
        ("lang=null", "lang=null: give a language"),
        ("lang={th:1}", "lang={'th': 1}: give a language"),
        ("method=true", "method=true: give an option, method=a, or a list of options, method=[a,b]"),
        ("task=[mkqa,[xnli]]", "task=[mkqa,[xnli]]: give an option"),
        ("+experiments=7", "+experiments=7: give an option"),
        ("+task.foo.shots=1", "task.foo.shots: there is no key task.foo.shots; did you mean task.arc_easy.shots"),
        ("task={a:1}", "there is no key task.a"),
        ("train.batch_size=true", "train.batch_size=true: Value 'True' of type 'bool' could not be converted"),
        ("train.batch_size=1.5", "train.batch_size=1.5: Value '1.5' of type 'float' could not be converted"),
        ("train.learning_rate=false", "train.learning_rate=false: Value 'False' of type 'bool' could not be converted"),
        ("~train", "~train: this key cannot be left out"),
        ("train=5", "train=5: Invalid type assigned"),
        ("hydra.searchpath=5", "hydra.searchpath must be a list of strings"),
    ],
)
def test_overrides_of_another_shape(override: str, message: str):
    with pytest.raises(REFUSED) as caught:
        checked(override)
    line = explain(caught.value, [override])
    assert message in line
    assert "\n" not in line
