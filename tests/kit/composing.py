"""What Hydra composes, held to the schema as `sdx.options.checks` does before a run begins."""

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from sdx.cli import main
from sdx.options import schema


def checked(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(main.CONF), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    schema.check(config)
    return config
