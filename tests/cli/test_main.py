"""Every config composes, and a bad command line gives one line and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from sdx.cli import main
from sdx.languages import languages
from sdx.planning.show import show
from sdx.run import prepare
from sdx.store.store import Store
from tests.kit.configs import composed, resolved

main.register()
ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
OPTIONS = [(group, name) for group in main.GROUPS for name in main.options(group)]
NEEDS = {
    "backbone=path": ["backbone.path=/models/mine"],
    "translator=path": ["translator.path=/models/nllb"],
    "translator=llm": ["translator.path=/models/mine"],
    "corpus=file": ["corpus.path=/data/mine.jsonl"],
    "parallel=file": ["parallel.path=/data/pairs.tsv"],
    "dictionary=muse": ["dictionary.path=/data/en-pt.txt"],
    "text=file": ["text.path=/data/english.jsonl"],
    "generator=server": ["generator.url=http://localhost:8000/v1", "generator.model=name"],
    "generator=vllm": ["generator.python=/envs/vllm/bin/python"],
}
"""Values that an option requires from the user."""


@pytest.mark.whole
@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_composes(group: str, name: str):
    config = composed(f"{group}={name}", *NEEDS.get(f"{group}={name}", []))
    if group not in ("task", "tracking", "generator"):
        assert getattr(config, group).name == name


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_names_its_translator(name: str):
    config = composed(f"+experiments={name}")
    assert config.method.name
    assert config.translator.name != "auto"


@pytest.mark.whole
@pytest.mark.parametrize(
    "given",
    [
        *([name] for name in EXPERIMENTS if name != "mt_llm_belebele"),
        ["mt_llm_belebele", "task.belebele_mc.train.path=a.jsonl", "task.belebele_mc.validation.path=b.jsonl"],
        ["mt_llm_xnli", "task=americas_nli", "lang=[ay,gn,qu]"],
        ["mt_llm_xnli", "task=kardes_nlu", "lang=[az,kk,ky,ug,uz]", "task.kardes_nlu.test.path='{language}.jsonl'"],
    ],
    ids=lambda given: "-".join(given[:2]),
)
def test_every_experiment_is_planned(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sdx.planning.show.visible_gpu", lambda: None)
    for name in ("a", "b", "az", "kk", "ky", "ug", "uz"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
    config = composed(f"+experiments={given[0]}", *given[1:])
    work = prepare(resolved(config), tmp_path / "run")
    found = show(resolved(config), Store(tmp_path / "cache"), work.steps)
    assert found["total"]["hours"]


def test_the_paper_s_settings_win_over_the_laptop_s_in_an_ablation():
    config = composed("+experiments=[sdrrl_ablation,sdrrl_llama2]")
    assert (config.translator.name, config.backbone.name) == ("nllb_3b", "llama2_7b")


def test_every_language_can_be_a_target():
    table = {language.code: language.flores for language in languages()}
    assert composed(f"lang=[{','.join(table)}]").lang.targets == table


def test_lists_and_sets_of_languages():
    assert composed("lang=[th,sw]").lang.targets == {"th": "tha_Thai", "sw": "swh_Latn"}
    assert list(composed("lang=stt4").lang.targets) == ["de", "ru", "th", "zh"]
    assert composed("lang=no").lang.targets == {"no": "nob_Latn"}
    assert composed("lang=[TH,zh-TW,Portuguese,stt4]").lang.targets == {
        "th": "tha_Thai",
        "zho_Hant": "zho_Hant",
        "pt": "por_Latn",
        "de": "deu_Latn",
        "ru": "rus_Cyrl",
        "zh": "zho_Hans",
    }
    assert composed("lang=de", "source=fr").lang.source == "fr"


def test_defaults_are_where_the_schema_puts_them():
    config = composed()
    assert (config.method.name, config.backbone.name, list(config.lang.targets)) == ("sdrrl", "smollm2_135m", ["pt"])
    assert set(config.task) == {"arc_easy", "mmlu_human", "instructions"}
    assert composed("task.arc_easy.shots=3").task["arc_easy"].shots == 3


def test_the_run_directory_is_a_function_of_the_configuration():
    def name(*overrides: str) -> str:
        with initialize_config_dir(str(main.CONF), version_base="1.3"):
            return main.run_name(_root_=compose("config", overrides=list(overrides)))

    assert name() == name("tracking=none", "runs_dir=/elsewhere", "cache_dir=/elsewhere")
    assert name() != name("train.learning_rate=1e-3")
    assert name("lang=th") == name("lang=TH") == name("lang=[th-TH]") != name("lang=th", "source=fr")
    assert name("lang=[th,sw]").startswith("sdrrl-smollm2_135m-th+sw-s1-")


def started(cwd: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """A run of the main command in a new process, and the heavy modules that it loaded."""
    program = (
        f"import sys; sys.argv = {['sdx', *arguments]}; import sdx.cli.main\n"
        "try: sdx.cli.main.main()\nexcept SystemExit as stop: print(stop.code)\nprint(*sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(cwd)}
    result = subprocess.run([sys.executable, "-c", program], cwd=cwd, env=environment, capture_output=True, text=True)
    loaded = {*result.stdout.splitlines()[-1].split()}
    heavy = {"torch", "transformers", "deepspeed", "wandb", "lm_eval", "datasets", "optuna", "submitit"}
    return result, loaded & (heavy | {"numpy", "scipy"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=mt_stack", "scale.text_rows=9", "plan=true"], "scale.text_rows=9"),
        (["method=nonsense"], "method=nonsense is unknown"),
    ],
)
def test_a_run_that_is_refused_has_loaded_nothing(tmp_path: Path, arguments: list[str], message: str):
    """Otherwise each start of each run would cost seconds."""
    result, heavy = started(tmp_path, *arguments)
    assert message in result.stderr
    assert result.stdout.splitlines()[0] == "2"
    assert not heavy


def test_help_answers_without_loading_anything(tmp_path: Path):
    result, heavy = started(tmp_path, "--help")
    methods = "cit, mid_align, mt_stack, none, sdrrl, self_translate_train, sft, translate_sft"
    assert f"method      {methods}" in result.stdout
    assert "encoder     e5_small, nllb_1b, nllb_3b, nllb_600m, opus_mt, path" in result.stdout
    assert "text        file, fineweb, offline" in result.stdout
    assert not heavy
