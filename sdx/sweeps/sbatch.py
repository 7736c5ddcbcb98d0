"""What sbatch is told of a job."""

from collections.abc import Mapping
from typing import Any

from sdx import InputError
from sdx.sweeps.options import GpuFlag


def check(options: Mapping[str, Any], where: str) -> None:
    """Raises InputError for options that no job can have.

    Args:
        where: the key that they are under, with a full stop.
    """
    if (time_min := options["time_min"]) * 60 <= options["signal_delay_s"]:
        raise InputError(
            f"{where}time_min={time_min} leaves no time before the signal that comes "
            f"{where}signal_delay_s={options['signal_delay_s']} before the end; raise it"
        )
    count, tasks = options["gpus_per_node"], _tasks(options)
    if 0 < count < tasks:
        raise InputError(
            f"{where}tasks_per_node={tasks} exceeds {where}gpus_per_node={count}, and each rank needs its own GPU; "
            "give as many, or leave tasks_per_node out"
        )
    if options["gpu_flag"] == GpuFlag.gpus_per_task and count % tasks:
        raise InputError(
            f"{where}gpus_per_node={count} cannot be divided among {where}tasks_per_node={tasks}, as "
            f"{where}gpu_flag=gpus_per_task does; give a multiple, or leave tasks_per_node out"
        )


def parameters(options: Mapping[str, Any], after: str | None) -> dict[str, Any]:
    """For submitit, which names them as sbatch does, more or less."""
    cpus = options["cpus_per_task"]
    more = {"requeue": True, **options["sbatch"]}
    if after:
        more |= {"dependency": after, "kill-on-invalid-dep": "yes"}
    named = {name: options[name] for name in ("partition", "account", "qos", "constraint", "cpus_per_task", "nodes")}
    return {
        **named,
        "job_name": "sdx",
        "time": options["time_min"],
        **_gpus(options),
        "ntasks_per_node": _tasks(options),
        "mem": f"{options['mem_gb']}G" if options["mem_gb"] else None,
        "setup": list(options["setup"]) or None,
        "signal_delay_s": options["signal_delay_s"],
        "array_parallelism": options["array_parallelism"],
        "stderr_to_stdout": True,
        "wckey": None,  # submitit would name itself
        "srun_args": [
            "--kill-on-bad-exit=1",
            *([f"--cpus-per-task={cpus}"] if cpus else []),
        ],  # srun does not inherit the option
        "additional_parameters": more,
    }


def _tasks(options: Mapping[str, Any]) -> int:
    """On a node."""
    return int(options["tasks_per_node"] or options["gpus_per_node"] or 1)


def _gpus(options: Mapping[str, Any]) -> dict[str, str]:
    """The option of sbatch that asks for them."""
    count, kind = options["gpus_per_node"], f"{options['gpu_type']}:" if options["gpu_type"] else ""
    if not count:
        return {}
    match GpuFlag(options["gpu_flag"]):
        case GpuFlag.gres:
            return {"gres": f"gpu:{kind}{count}"}
        case GpuFlag.gpus_per_task:
            return {"gpus_per_task": f"{kind}{count // _tasks(options)}"}
        case GpuFlag.gpus_per_node:
            return {"gpus_per_node": f"{kind}{count}"}
