"""Options of the launchers, `hydra.launcher.*`."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sdx.options import fields


class GpuFlag(str, Enum):
    """Options of sbatch that ask for GPUs."""

    gpus_per_node = "gpus_per_node"
    gpus_per_task = "gpus_per_task"
    """Each rank sees its own GPU alone. NCCL may then be slower between the GPUs of a node, or fail: for clusters that
    know no other."""
    gres = "gres"
    """For clusters that know no other, `--gres=gpu:8`."""


@dataclass
class LocalConfig:
    """Processes on this machine, each on a GPU of its own."""

    _target_: str = "hydra_plugins.sdx.LocalLauncher"
    jobs: int | None = fields.number(None, at_least=1, at_most=10_000)
    """Cells at once; none is one for each GPU, or one."""


@dataclass
class SlurmConfig:
    """Jobs of SLURM. What is none is left to the cluster's defaults."""

    _target_: str = "hydra_plugins.sdx.SlurmLauncher"
    nodes: int = fields.number(1, at_least=1, at_most=10**5)
    """Of each cell."""
    gpus_per_node: int = fields.number(1, at_least=0, at_most=1024)
    """0 for none."""
    gpu_flag: GpuFlag = GpuFlag.gpus_per_node
    """How sbatch is asked for GPUs."""
    gpu_type: str | None = None
    """Kind of GPU where a cluster has several, as it names them: `a100`."""
    tasks_per_node: int | None = fields.number(None, at_least=1, at_most=1024)
    """Ranks on a node; none is one for each GPU, or one."""
    cpus_per_task: int | None = fields.number(None, at_least=1, at_most=10_000)
    """Cores of a rank. A rank computes with as many threads as it has cores."""
    mem_gb: int | None = fields.number(None, at_least=1, at_most=10**6)
    """Memory of a node, in GB."""
    time_min: int = fields.number(1440, at_least=1, at_most=10**6)
    """Limit of a job. A cell that takes longer is put back into the queue and goes on."""
    signal_delay_s: int = fields.number(300, at_least=1, at_most=65_535)
    """How long before the limit a job is asked to save and leave."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    array_parallelism: int = fields.number(256, at_least=1, at_most=10**6)
    """Cells at once."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell before the cell: `module load cuda`, `source .venv/bin/activate`."""
    snapshot: bool = False
    """Jobs run a copy of sdx as it is at the launch, in `slurm/` of runs_dir, whatever is edited while they wait."""
    python: str | None = None
    """How to start Python; none is the one that launches. `apptainer exec --nv sdx.sif python` for a container."""
    sbatch: Any = None  # Hydra lets nobody add keys to a dict that has a type
    """Any other option of sbatch: `{nodelist: n1, exclusive: true}`."""
    prepare: Any = None
    """Options of a job before each cell that makes its data, `stages=prepare`: `{gpus_per_node: 0, partition: cpu}`.
    None makes the data in the cell's own job."""
    poll_s: float = fields.number(20.0, at_least=0.1, at_most=3600)
    """Seconds between two looks at the queue."""


SCHEMAS = {"local": LocalConfig, "slurm": SlurmConfig}
