"""How a wandb run begins: its name, group and tags, where it goes, and that no secret goes with it."""

import netrc
import os
from dataclasses import asdict
from logging import getLogger
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from sdx.config import Config, TrackingMode
from sdx.process.secret import clean
from sdx.store.provenance import provenance

log = getLogger("sdx")

INIT_TIMEOUT_S = 30.0
FINISH_TIMEOUT_S = 60.0
"""For what is not uploaded yet. What remains is on the disk. wandb's own variables WANDB_INIT_TIMEOUT and
WANDB_FINISH_TIMEOUT set others."""
FLUSH_S = 1.0
"""Between two writes to the disk: what a kill may cost."""
HOSTS = ["api.wandb.ai", "api.forge.coreweave.com"]
"""wandb's own servers: the one of old, and that of wandb 0.31."""
LONGEST_TAG = 64
PREPARE = "prepare"


def begin(config: Config, run_dir: Path, id_: str) -> Any:
    """A wandb run, resumed if one with that id is there already, and offline where a server does not answer."""
    import wandb

    mode = _mode(config)
    try:
        return _init(config, run_dir, id_, mode)
    except (wandb.Error, TimeoutError) as error:
        if mode != "online":
            raise
        why = " ".join(str(error).split())
        log.warning("%-12s offline for this run, as the server cannot be used: %s", "wandb", why)
        wandb.teardown(exit_code=1)  # its process still has the run
        return _init(config, run_dir, id_, "offline")


def _init(config: Config, run_dir: Path, id_: str, mode: str) -> Any:
    import wandb

    tracking = config.tracking
    logged = {**asdict(config), "provenance": provenance()}
    tags = (
        config.method.name,
        config.backbone.name,
        *config.lang.targets,
        f"seed-{config.seed}",
        config.engine.name,
    )
    prepares = getattr(config, "stages", None) == PREPARE
    return wandb.init(
        id=id_,
        resume="allow",
        mode=mode,  # type: ignore[arg-type]
        project=tracking.project,
        entity=tracking.entity,
        group=tracking.group or _study(config),
        job_type=PREPARE if prepares else "cell",
        tags=[tag[:LONGEST_TAG] for tag in clean(list(dict.fromkeys(tags)))],
        name=run_dir.name,
        dir=str(run_dir),
        config=clean(logged),
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,  # the command line and the environment may hold secrets
            x_save_requirements=False,
            x_transaction_log_flush_interval=FLUSH_S,
            init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_TIMEOUT_S)),
            finish_timeout=float(os.environ.get("WANDB_FINISH_TIMEOUT", FINISH_TIMEOUT_S)),
            finish_timeout_raises=True,
        ),
    )


def _mode(config: Config) -> str:
    mode = config.tracking.mode
    if mode is not TrackingMode.auto:
        return str(mode.value)
    return os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")


def _study(config: Config) -> str:
    """The experiment that Hydra was given, else method and languages."""
    from hydra.core.hydra_config import HydraConfig

    chosen = HydraConfig.get().runtime.choices.get("experiments") if HydraConfig.initialized() else None
    return chosen or f"{config.method.name}-{'+'.join(config.lang.targets)}"


def has_key() -> bool:
    """Whether wandb would find a key without asking: in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    own = os.environ.get("WANDB_BASE_URL")
    hosts = [urlparse(own).netloc] if own else HOSTS
    try:
        found = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return any(found.authenticators(host) for host in hosts)
