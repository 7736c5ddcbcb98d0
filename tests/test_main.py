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
NEEDS = {
    "backbone=path": ["backbone.path=/models/mine"],
    "translator=path": ["translator.path=/models/nllb"],
    "corpus=file": ["corpus.path=/data/mine.jsonl"],
    "parallel=file": ["parallel.path=/data/pairs.tsv"],
    "dictionary=muse": ["dictionary.path=/data/en-pt.txt"],
    "text=file": ["text.path=/data/english.jsonl"],
}
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
    config = composed(f"{group}={name}", *NEEDS.get(f"{group}={name}", []))
    if group not in ("task", "lang", "tracking", "generator"):
        assert getattr(config, group).name == name


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_names_its_translator(name: str):
    config = composed(f"+experiments={name}")
    assert config.method.name
    assert config.translator.name != "auto"


def test_the_paper_s_settings_win_over_the_laptop_s_in_an_ablation():
    config = composed("+experiments=[sdrrl_ablation,sdrrl_llama2]")
    assert (config.translator.name, config.backbone.name) == ("nllb_3b", "llama2_7b")


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


def test_help_answers_without_loading_anything(tmp_path: Path):
    program = "import sys; sys.argv = ['sdx', '--help']; import sdx.main; sdx.main.main(); print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert "method      mt_stack, none, sdrrl, self_translate_train, sft, translate_sft" in result.stdout
    assert "encoder     e5_small, nllb_1b, nllb_3b, nllb_600m, opus_mt, path" in result.stdout
    assert "text        file, fineweb, offline" in result.stdout
    loaded = set(result.stdout.splitlines()[-1].split())
    assert not loaded & {"torch", "transformers", "deepspeed", "wandb", "lm_eval", "datasets"}
