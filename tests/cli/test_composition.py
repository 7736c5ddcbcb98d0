"""A sweep's cells are composed from what is kept as Hydra composes them from the beginning."""

from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sdx import InputError
from sdx.cli import composition, main

main.register()
CELLS = (
    ["method=sft", "seed=1"],
    ["method=sft", "seed=2"],
    ["seed=2", "method=sdrrl", "lang=[th,sw]", "method.subsets.tl=0"],
    ["method=sdrrl", "lang=[th,sw]", "method.subsets.tl=1"],
    ["lang=th", "method=sft"],
    ["method=sft", "lang=hi", "lang.source=fr"],
    ["method=sft", "lang=no", "seed=3"],
    ["method=sft", "lang=stt4"],
    ["lang=sw", "+experiments=sdrrl_llama2"],
    ["lang=th", "+experiments=sdrrl_llama2"],
    ["lang=de", "task=[mmlu_human,arc_easy]", "task.arc_easy.shots=3"],
    ["+experiments=sdrrl_llama2", "scale.epochs=5", "hydra.job.name=other"],
    ["+hydra.job.env_set.A=1", "train.batch_size=4"],
    ["corpus=file", "corpus.path=mine.jsonl"],  # whose path is empty until it is given
    ["filters.answers=[empty]", "filters.answers=[]"],
    [],
)


@pytest.fixture
def loader() -> Iterator[ConfigLoaderImpl]:
    with initialize_config_dir(str(main.CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra
        assert isinstance(hydra.config_loader, ConfigLoaderImpl)
        yield hydra.config_loader


def master(loader: ConfigLoaderImpl) -> DictConfig:
    return loader.load_configuration("config", ["hydra.job.name=sdx"], RunMode.RUN)


@pytest.mark.whole
def test_the_cells_are_those_of_hydra(loader: ConfigLoaderImpl):
    given = master(loader)
    for overrides in CELLS:
        theirs, ours = composition._compose(loader, given, overrides), loader.load_sweep_config(given, overrides)
        assert OmegaConf.to_container(ours) == OmegaConf.to_container(theirs), overrides
        assert OmegaConf.is_struct(ours)
        assert OmegaConf.get_type(ours) == OmegaConf.get_type(theirs)


def test_options_are_composed_once_and_cells_share_nothing(loader: ConfigLoaderImpl, monkeypatch: pytest.MonkeyPatch):
    given, composed = master(loader), []
    compose = composition._compose
    monkeypatch.setattr(composition, "_compose", lambda *a: composed.append(a[2]) or compose(*a))
    one, two = (loader.load_sweep_config(given, ["method=sft", f"seed={seed}"]) for seed in (1, 2))
    one.train.batch_size = 77
    assert (one.seed, two.seed) == (1, 2)
    assert two.train.batch_size != 77
    assert loader.load_sweep_config(given, ["method=sft"]).train.batch_size != 77
    assert composed == [["method=sft"]]


@pytest.mark.parametrize("wrong", ["train.batch_size=many", "foo=1", "method=nonsense", "seed@method=1"])
def test_what_is_wrong_is_refused_as_by_hydra(loader: ConfigLoaderImpl, wrong: str):
    given = master(loader)
    with pytest.raises(HydraException) as theirs:
        composition._compose(loader, given, ["lang=de", wrong])
    with pytest.raises(HydraException) as ours:
        loader.load_sweep_config(given, ["lang=de", wrong])
    assert (type(ours.value), str(ours.value)) == (type(theirs.value), str(theirs.value))


@pytest.mark.parametrize(
    ("given", "spelled"),
    {
        "lang=zh-TW": "lang=zho_Hant",
        "lang=TH": "lang=th",
        "lang=[pt-BR,Thai,sw]": "lang=[pt,th,sw]",
        "lang=iw,'[mo,in]'": "lang=he,'[ro,id]'",
        "lang=choice(th-TH,jw)": "lang=choice(th,jv)",
        "lang=tha": "lang=tha",
        "lang=stt4": "lang=stt4",
        "lang=pt-PT": "lang=pt-PT",
        "lang.source=pt-BR": "lang.source=pt-BR",
        "backbone.path=lang=TH": "backbone.path=lang=TH",
    }.items(),
)
def test_languages_are_spelled_as_in_the_table_before_hydra_looks_for_them(given: str, spelled: str):
    assert composition.spelled(given) == spelled


def test_a_sweep_is_checked_cell_by_cell_and_hydra_s_part_before(loader: ConfigLoaderImpl):
    given = loader.load_configuration("config", ["corpus=file", "corpus.path=a,b"], RunMode.MULTIRUN)
    assert loader.load_sweep_config(given, ["corpus=file", "corpus.path=a"]).corpus.path == "a"
    for wrong, message in (([], "corpus.path= is empty"), (["corpus.path=a", "seed=-1"], "seed=-1 is negative")):
        with pytest.raises(InputError, match=message):
            loader.load_sweep_config(given, ["corpus=file", *wrong])
    with pytest.raises(InputError, match=r"hydra\.launcher\.jobs=0 is too small"):
        loader.load_configuration("config", ["hydra.launcher.jobs=0", "seed=1,2"], RunMode.MULTIRUN)
    with pytest.raises(InputError, match=r"there is no key hydra\.nonsense"):
        loader.load_configuration("config", ["+hydra.nonsense=1", "seed=1,2"], RunMode.MULTIRUN)
