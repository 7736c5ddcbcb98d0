"""Each run of a sweep is checked against the schema, and Hydra's own part before all runs."""

from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from sdx import InputError
from sdx.cli import main
from sdx.options.checks import ConfigCheck
from sdx.sweeps.runs import compose, compose_all

main.register()


@pytest.fixture
def context() -> Iterator[HydraContext]:
    with initialize_config_dir(str(main.CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra
        yield HydraContext(config_loader=hydra.config_loader, callbacks=None)  # type: ignore[arg-type]


def master(context: HydraContext, *overrides: str) -> DictConfig:
    return context.config_loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)


def test_runs_are_named_by_what_they_are_and_languages_by_the_table(context: HydraContext):
    given = master(context, "lang=TH,sw", "method=sft,none")
    runs = compose_all(context, given, [["lang=TH", "method=sft"], ["lang=[th]", "method=sft"], ["lang=sw"]], 0)
    assert runs[0].name == runs[1].name
    assert [run.name[: run.name.index("-s1")] for run in runs] == [
        "sft-smollm2_135m-th",
        "sft-smollm2_135m-th",
        "sdrrl-smollm2_135m-sw",
    ]
    runs[0].config.train.batch_size = 77
    assert runs[1].config.train.batch_size != 77


@pytest.mark.parametrize("wrong", ["train.batch_size=many", "foo=1", "method=nonsense", "seed@method=1"])
def test_what_is_wrong_with_a_run_is_refused_as_by_hydra(context: HydraContext, wrong: str):
    with pytest.raises(HydraException):
        compose(context, master(context), ["lang=de", wrong], 0, {})


def test_a_sweep_is_checked_run_by_run(context: HydraContext):
    given = master(context, "corpus=file", "corpus.path=a,b")
    assert compose(context, given, ["corpus=file", "corpus.path=a"], 0, {}).config.corpus.path == "a"
    for wrong, message in (
        ([], "corpus.path= is empty"),
        (["corpus.path=a", "seed=-1"], "seed=-1 is negative"),
        (["corpus.path=a", "lang=zz"], r'lang=zz: language "zz" is not in the table'),
        (["corpus.path=a", "task=[mkqa,[xnli]]"], r"task=\[mkqa,\[xnli\]\] cannot be composed"),
        (["corpus.path=a", "+nonsense=1"], r"\+nonsense=1: there is no key nonsense"),
    ):
        with pytest.raises(InputError, match=message):
            compose(context, given, ["corpus=file", *wrong], 0, {})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.launcher.jobs=0", "sdx: hydra.launcher.jobs=0 is too small"),
        ("+hydra.nonsense=1", "sdx: hydra.nonsense: there is no key hydra.nonsense"),
    ],
)
def test_hydra_s_own_part_is_checked_before_the_runs(
    context: HydraContext, override: str, message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit, match="2"):
        ConfigCheck().on_multirun_start(master(context, override, "seed=1,2", "corpus=file"))
    assert capsys.readouterr().err.startswith(message)
