"""The main command: Hydra makes a typed `Config` of the command line; a bad one gives a single line and exit code 2.

Nothing heavy is imported here: help and configuration errors answer at once.
"""

import errno
import importlib
import json
import logging
import os
import pkgutil
import re
import sys
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import sdx.generation
import sdx.methods
import sdx.tasks
import sdx.translation
from sdx import InputError
from sdx.cli import command, config_files
from sdx.cli.config_files import CONF
from sdx.cli.explain import explain
from sdx.config import NEUTRAL_KEYS, Config, TaskConfig
from sdx.languages import languages, sets, targets
from sdx.options.checks import UNFORESEEN, ConfigCheck, print_error
from sdx.process import secret, surroundings, terminal, threads
from sdx.process.failure import Failure, abort, leave
from sdx.process.preemption import Preempted, end_with, interrupts_noted
from sdx.process.ranks import helped, is_main, rank, world_size
from sdx.sweeps import summary
from sdx.sweeps.launcher import LocalConfig
from sdx.sweeps.slurm import SlurmConfig
from sdx.sweeps.sweeper import GridConfig, OptunaConfig

GROUPS = {
    field.name: TaskConfig if field.name == "task" else field.type
    for field in fields(Config)
    if (CONF / field.name).is_dir()
}
"""The keys of `Config` whose options are files, with their dataclasses."""
COMMANDS = ("cache", "dashboard", "report", "status")
"""`python -m sdx report` is `python -m sdx.report`."""
MODULE = re.compile(r"(?<=\"_target_\": \")sdx\.([a-z_0-9]+\.)*")
"""The module of a class. Run directories keep their names if a class moves."""


class ExperimentsPath(SearchPathPlugin):
    """Lets `+experiments=name` find experiments/ beside conf/ in a checkout; a wheel has it inside conf/."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if not (CONF / "experiments").is_dir():
            search_path.append(provider="sdx", path=f"file://{CONF.parent}")


def register() -> None:
    """Registers the schemas, and the place of experiments/, with Hydra."""
    Plugins.instance()  # registers Hydra's own options, some of which are replaced below
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, node in GROUPS.items():
        store.store(group=group, name="schema", node=node)
    rooms = {"method": sdx.methods, "translator": sdx.translation, "generator": sdx.generation, "task": sdx.tasks}
    for group, package in rooms.items():
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for name, node in getattr(importlib.import_module(info.name), "SCHEMAS", {}).items():
                store.store(group=group, name=f"schema_{name}", node=node)
    store.store(group="hydra/launcher", name="schema_local", node=LocalConfig)
    store.store(group="hydra/launcher", name="schema_slurm", node=SlurmConfig)
    # Hydra's defaults are replaced: if conf/config.yaml named ours, an experiment could not choose another.
    store.store(group="hydra/launcher", name="basic", node=LocalConfig)
    store.store(group="hydra/sweeper", name="basic", node=GridConfig)
    store.store(group="hydra/sweeper", name="schema_optuna", node=OptunaConfig)
    if not OmegaConf.has_resolver("run_name"):
        config_files.guard()
        OmegaConf.register_new_resolver("run_name", run_name)
        Plugins.instance().register(ExperimentsPath)


def run_name(*, _root_: DictConfig) -> str:
    """Name of the run directory: a pure function of the configuration, so that a requeued job finds its own."""
    content: dict[str, Any] = {}
    for key in map(str, _root_):
        if key not in (*NEUTRAL_KEYS, "hydra"):
            value = _root_[key]
            is_node = OmegaConf.is_config(value)
            content[key] = OmegaConf.to_container(value, resolve=True, enum_to_str=True) if is_node else value
    content["lang"] = names = list(targets(content["lang"]))
    digest = sha256(MODULE.sub("", json.dumps(content, sort_keys=True)).encode()).hexdigest()[:8]
    langs = "+".join(names) if len(names) <= 4 else f"{len(names)}langs"
    return f"{_root_.method.name}-{_root_.backbone.name}-{langs}-s{_root_.seed}-{digest}"


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def job(cfg: DictConfig) -> None:
    """One run, in Hydra's run directory."""
    terminal.outlive_log()
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    failure = Failure(run_dir)
    try:
        from sdx.run import run, typed

        run(typed(cfg), run_dir, failure)
    except InputError as error:
        code = print_error(str(error))  # here, because Hydra would print a line of its own before ours
        if world_size() == 1:
            sys.exit(code)
        if failure.is_own and not is_main():  # it may be this rank's alone
            print(f"sdx: {failure.message()}", file=sys.stderr)
        abort(code)
    except (HydraException, OmegaConfBaseException):
        raise
    except KeyboardInterrupt:
        if world_size() > 1:
            abort(interrupted())
        raise
    except BaseException as error:
        if world_size() > 1 and not (isinstance(error, Preempted) and failure.message() is None):
            leave(failure, error)
        raise


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        importlib.import_module(f"sdx.cli.{sys.argv.pop(1)}").main()
        return
    terminal.outlive()
    if parent := helped():
        end_with(parent)
    try:
        surroundings.check(sys.argv[1:])
    except InputError as error:
        command.fail(str(error))  # on any rank, because the rank may be what is wrong
    with interrupts_noted():
        _main(sys.argv[1:])


def _main(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(help_text())
        return
    sys.excepthook = secret.except_hook
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us; the message is ours
    is_sweep = bool({"-m", "--multirun"} & set(arguments))
    if is_sweep:  # argparse wants a flag before or after the overrides, not between them
        arguments = ["-m", *(one for one in arguments if one not in ("-m", "--multirun"))]
        sys.argv[1:] = arguments
    else:  # a run of a sweep runs elsewhere, with other cores
        threads.limit()
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # batches of all lengths leave no gaps between each other then
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    register()
    if not is_main():
        logging_to = "none" if rank() else "stdout"  # of a process of its own
        sys.argv += ["hydra.output_subdir=null", f"hydra/job_logging={logging_to}", "hydra/hydra_logging=none"]
    try:
        sweep_options = [a for a in arguments if a.startswith(("hydra/launcher=", "hydra/sweeper="))]
        if sweep_options and not is_sweep:
            option = sweep_options[0]
            raise InputError(f"{option} needs -m: without it one job would run here; write python -m sdx -m ...")
        job()
        if code := summary.print_summary():
            sys.exit(code)
    except (HydraException, OmegaConfBaseException, InputError) as error:
        logging.shutdown()
        sys.exit(print_error(explain(error, arguments)))
    except UNFORESEEN as error:
        if ConfigCheck.passed:
            raise
        sys.exit(print_error(explain(error, arguments)))
    except OSError as error:  # Hydra makes the run directory
        if error.errno not in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOSPC, errno.EDQUOT):
            raise
        run_dir = HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else "the run directory"
        what = f"{error.filename2 or error.filename or run_dir}: {error.strerror}"
        sys.exit(print_error(f"{what}; check its permissions and free space, or give another cache_dir or runs_dir"))
    except SystemExit as stop:
        if isinstance(stop, Preempted):  # whoever launched this is to launch it again
            summary.print_summary()
            print_error(str(stop))
        raise
    except KeyboardInterrupt:
        summary.print_summary()
        sys.exit(interrupted())


def interrupted() -> int:
    return print_error("interrupted; the same command goes on where this one stopped", 130)


def options(group: str) -> list[str]:
    """The options of a group that have a file, for help."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def help_text() -> str:
    groups = "\n".join(f"  {group:<11} {', '.join(options(group))}" for group in GROUPS)
    known_sets = ", ".join(sets())
    return f"""sdx: experiments that make LLMs good at languages they are bad at

  python -m sdx method=sdrrl lang=pt                     one run: data, training, evaluation, report
  python -m sdx -m method=sdrrl,sft lang=pt seed=1,2     every combination
  torchrun --nproc-per-node 8 -m sdx ...                 several GPUs
  python -m sdx.report runs/                             finished runs in one table
  python -m sdx.status runs/                             what runs are doing
  python -m sdx.cache list                               what the cache holds; verify checks it, free deletes from it
  python -m sdx --cfg job                                the whole configuration, nothing is run

Groups (group=option):
{groups}
  lang        any of {len(languages())} languages by ISO 639 or FLORES code, a list [th,sw], or a set: {known_sets}

Keys (key=value), explained in sdx/config.py and beside each method in sdx/methods/:
  source, seed, cache_dir, runs_dir, corpus.path, backbone.path, train.learning_rate, train.batch_size, train.adapter,
  scale.corpus_rows, scale.epochs, scale.eval_items, method.subsets.tl, ...
"""
