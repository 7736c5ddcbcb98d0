"""Hydra's door: the command line becomes a typed `Config`, a bad one becomes a single line and exit code 2.

Nothing heavy is imported here: help and configuration errors answer at once.
"""

import difflib
import errno
import importlib
import json
import logging
import os
import pkgutil
import re
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import sdx.methods
import sdx.tasks.files
import sdx.tasks.hub
import sdx.tasks.lm_eval
import sdx.translation
from sdx import InputError
from sdx import config as schema
from sdx.cli import config_files
from sdx.config import Config
from sdx.languages import languages, sets, targets
from sdx.options import conformity
from sdx.options.gate import STUMBLES, Gate, fail, stumbled
from sdx.process import secret, surroundings, terminal, threads
from sdx.process.failure import Failure, abort, leave
from sdx.process.preemption import Preempted, interrupts_noted
from sdx.process.ranks import is_main, world_size
from sdx.sweeps import conclusion
from sdx.sweeps.launcher import LocalConfig
from sdx.sweeps.slurm import SlurmConfig
from sdx.sweeps.sweeper import GridConfig, OptunaConfig

log = logging.getLogger("sdx")

PACKAGE = Path(__file__).parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
GROUPS = {
    "backbone": schema.BackboneConfig,
    "encoder": schema.EncoderConfig,
    "text": schema.TextConfig,
    "translator": schema.TranslatorConfig,
    "generator": schema.GeneratorConfig,
    "corpus": schema.CorpusConfig,
    "parallel": schema.ParallelConfig,
    "dictionary": schema.DictionaryConfig,
    "task": schema.TaskConfig,
    "engine": schema.EngineConfig,
    "scale": schema.ScaleConfig,
    "tracking": schema.TrackingConfig,
}
DOORS = ("cache", "dashboard", "report", "status")
"""`python -m sdx report` is `python -m sdx.report`."""
NOT_IN_RUN_NAME = ("cache_dir", "runs_dir", "tracking", "plan", "stages", "hydra")
MODULE = re.compile(r"(?<=\"_target_\": \")sdx\.([a-z_0-9]+\.)*")
"""Where a class lies, which may change."""
NO_DATACLASS = "is not a subclass of"
"""In place of a dataclass, which the key may be one of or not."""
NO_KEY = ("ConfigAttributeError", "ConfigKeyError")
IN_A_FILE = re.compile(r"In '([^']+)': (\w+) raised while composing config:\n(.*)\n\s*full_key: ?(.*)")
"""What Hydra says of a file that does not fit the schema."""
QUIET_RANK = ["hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]


class ExperimentsPath(SearchPathPlugin):
    """Lets `+experiments=name` find experiments/ beside conf/ in a checkout; a wheel carries it inside conf."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if not (CONF / "experiments").is_dir():
            search_path.append(provider="sdx", path=f"file://{CONF.parent}")


def register() -> None:
    """Tells Hydra the schemas, and where experiments/ lies."""
    Plugins.instance()  # which brings Hydra's own options
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, node in GROUPS.items():
        store.store(group=group, name="schema", node=node)
    for group, place in (
        ("method", sdx.methods),
        ("translator", sdx.translation),
        ("task", sdx.tasks.hub),
        ("task", sdx.tasks.files),
        ("task", sdx.tasks.lm_eval),
    ):
        for module in _modules(place):
            for name, node in getattr(module, "SCHEMAS", {}).items():
                store.store(group=group, name=f"schema_{name}", node=node)
    store.store(group="hydra/launcher", name="schema_local", node=LocalConfig)
    store.store(group="hydra/launcher", name="schema_slurm", node=SlurmConfig)
    # What Hydra takes where none is named; named in conf/config.yaml, an experiment could not choose another.
    store.store(group="hydra/launcher", name="basic", node=LocalConfig)
    store.store(group="hydra/sweeper", name="basic", node=GridConfig)
    store.store(group="hydra/sweeper", name="schema_optuna", node=OptunaConfig)
    if not OmegaConf.has_resolver("run_name"):
        config_files.guard()
        OmegaConf.register_new_resolver("run_name", run_name)
        Plugins.instance().register(ExperimentsPath)


def _modules(place: ModuleType) -> list[ModuleType]:
    """The modules of a package; a module alone."""
    found = pkgutil.iter_modules(getattr(place, "__path__", []), f"{place.__name__}.")
    return [importlib.import_module(module.name) for module in found] or [place]


def run_name(*, _root_: DictConfig) -> str:
    """Name of the run directory: a pure function of the configuration, so that a requeued job finds its own."""
    content = {key: _plain(_root_, key) for key in map(str, _root_) if key not in NOT_IN_RUN_NAME}
    content["lang"] = names = list(targets(content["lang"]))
    digest = sha256(MODULE.sub("", json.dumps(content, sort_keys=True)).encode()).hexdigest()[:8]
    langs = "+".join(names) if len(names) <= 4 else f"{len(names)}langs"
    return f"{_root_.method.name}-{_root_.backbone.name}-{langs}-s{_root_.seed}-{digest}"


def _plain(config: DictConfig, key: str) -> Any:
    """A value of the configuration, resolved, as JSON."""
    value = config[key]
    return OmegaConf.to_container(value, resolve=True, enum_to_str=True) if OmegaConf.is_config(value) else value


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
        code = fail(str(error), 2)  # here, for Hydra would print a line of its own before ours
        if world_size() == 1:
            sys.exit(code)
        if failure.is_own and not is_main():  # it may be this rank's alone
            print(f"sdx: {failure.told()}", file=sys.stderr)
        abort(code)
    except (HydraException, OmegaConfBaseException):
        raise
    except KeyboardInterrupt:
        if world_size() > 1:
            abort(interrupted())
        raise
    except BaseException as error:
        if world_size() > 1 and not (isinstance(error, Preempted) and failure.told() is None):
            leave(failure, error)
        raise


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in DOORS:
        door = importlib.import_module(f"sdx.cli.{sys.argv.pop(1)}")
        door.main()
        return
    terminal.outlive()
    try:
        surroundings.check(sys.argv[1:])
    except InputError as error:  # it may be the rank that nobody can read
        print(f"sdx: {error}", file=sys.stderr)
        sys.exit(2)
    with interrupts_noted():
        _main(sys.argv[1:])


def _main(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(help_text())
        return
    sys.excepthook = secret.except_hook
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us; the message is ours
    if not {"-m", "--multirun"} & set(arguments):  # a run of a sweep runs elsewhere, with other cores
        threads.limit()
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # batches of all lengths leave no gaps between each other then
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    register()
    if not is_main():
        sys.argv += QUIET_RANK
    try:
        sweeps = [a for a in arguments if a.startswith(("hydra/launcher=", "hydra/sweeper="))]
        if sweeps and not {"-m", "--multirun"} & set(arguments):
            raise InputError(f"{sweeps[0]} needs -m: without it one job would run here; write python -m sdx -m ...")
        job()
        if code := conclusion.conclude():
            sys.exit(code)
    except (HydraException, OmegaConfBaseException, InputError) as error:
        logging.shutdown()
        sys.exit(fail(explain(error, arguments), 2))
    except STUMBLES as error:
        if Gate.passed:
            raise
        sys.exit(fail(explain(error, arguments), 2))
    except OSError as error:  # Hydra makes the run directory
        if error.errno not in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOSPC, errno.EDQUOT):
            raise
        run_dir = HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else "the run directory"
        what = f"{error.filename2 or error.filename or run_dir}: {error.strerror}"
        sys.exit(fail(f"{what}; see to its permissions and space, or give another cache_dir or runs_dir", 2))
    except SystemExit as stop:
        if isinstance(stop, Preempted):  # whoever launched this is to launch it again
            conclusion.conclude()
            fail(str(stop), os.EX_TEMPFAIL)
        raise
    except KeyboardInterrupt:
        conclusion.conclude()
        sys.exit(interrupted())


def interrupted() -> int:
    return fail("interrupted; the same command goes on where this one stopped", 130)


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """One line that names the key, the value and the fix."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_option(error.missing_cfg_file, error.options or [])
    if isinstance(error, OverrideParseException):
        first = str(error).splitlines()[0]
        return f"{error.override}: {first}; quote brackets, braces and commas twice: \"key='a{{b}}'\""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, InputError):  # Hydra wraps what a launcher or a sweeper says
            return str(inner)
        inner = inner.__cause__
    method = [argument for argument in arguments if argument.startswith("method=")]
    if in_file := IN_A_FILE.match(str(error)):
        file, kind, reason, key = in_file.groups()
        if kind in NO_KEY:
            return conformity.unknown_key(key, f"{key} in {file}", _known(method))
        return f"{key or 'all'} in {file}: {reason}; see sdx/config.py for the type of {key or 'each key'}"
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) and error.__cause__ else error
    key = getattr(cause, "full_key", None)
    if isinstance(cause, OmegaConfBaseException) and key:
        given = next((a for a in arguments if a.lstrip("+~").split("=")[0] == key), None)
        if type(cause).__name__ in NO_KEY:
            return conformity.unknown_key(key, given, _known(method))
        reason = str(cause).splitlines()[0]
        to = re.match(r"Error merging override \+*([^=]+)=", str(error)) if NO_DATACLASS in reason else None
        known = _known(method) if to else []
        if to and not any(f"{one}.".startswith(f"{to[1]}.") for one in known):
            return conformity.unknown_key(to[1], None, known)
        return f"{given or key}: {reason}; see sdx/config.py for the type of {key}"
    if isinstance(error, STUMBLES):
        return _no_option(arguments) or str(stumbled([*arguments], error))
    return " ".join(str(error).split())


def _no_option(arguments: Sequence[str]) -> str | None:
    """What is wrong with an argument that gives a group anything but an option or a list of options."""
    for override in OverridesParser.create().parse_overrides([one for one in arguments if not one.startswith("-")]):
        group, value = override.key_or_group, override.value()
        each = value if isinstance(value, list) else [value]
        if group in (*GROUPS, "method", "experiments") and not all(isinstance(one, str) for one in each):
            return f"{override.input_line}: give an option, {group}=a, or a list of options, {group}=[a,b]"
    return None


def _unknown_option(missing: str, options: Sequence[str]) -> str:
    group, _, value = missing.rpartition("/")
    choices = [o for o in options if not o.startswith("schema")]
    near = difflib.get_close_matches(value, choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{group}={value} is unknown; {hint}Choose from: {', '.join(choices)}"


def _known(method: list[str]) -> list[str]:
    """All keys of the default configuration, with that method if it can be had."""
    try:
        return conformity.leaves(_default_config(method))
    except (HydraException, InputError):
        return conformity.leaves(_default_config([]))


def _default_config(overrides: list[str]) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=overrides)


def options(group: str) -> list[str]:
    """The options of a group that have a file, for help."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def help_text() -> str:
    groups = "\n".join(f"  {group:<11} {', '.join(options(group))}" for group in ("method", *GROUPS))
    known_sets = ", ".join(sets())
    return f"""sdx: experiments that make LLMs good at languages they are bad at

  python -m sdx method=sdrrl lang=pt                     one run: data, training, evaluation, report
  python -m sdx -m method=sdrrl,sft lang=pt seed=1,2     every combination
  torchrun --nproc-per-node 8 -m sdx ...                 several GPUs
  python -m sdx.report runs/                             finished runs in one table
  python -m sdx.cache list                               what the cache holds; verify checks it, free deletes of it
  python -m sdx --cfg job                                the whole configuration, nothing is run

Groups (group=option):
{groups}
  lang        any of {len(languages())} languages by ISO 639 or FLORES code, a list [th,sw], or a set: {known_sets}

Keys (key=value), explained in sdx/config.py and beside each method in sdx/methods/:
  source, seed, cache_dir, runs_dir, corpus.path, backbone.path, train.learning_rate, train.batch_size, train.adapter,
  scale.corpus_rows, scale.epochs, scale.eval_items, method.subsets.tl, ...
"""
