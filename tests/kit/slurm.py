"""A real SLURM on this machine for tests: munged, slurmctld and one slurmd per node, all in one directory.

    python -m tests.kit.slurm DIR -- COMMAND ...        runs the command with the cluster's SLURM_CONF

Needs root and Debian's slurm-wlm and munge. It has its own ports and touches no SLURM that is there.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

HOSTS = Path("/etc/hosts")
WAIT_S = 60
NODE = "node"


class Cluster:
    """Starts on entering, and is gone on leaving, with all its jobs.

    Args:
        path: an empty or new directory; the files of the daemons go there.
        nodes: each a slurmd of its own, named node1, node2, ... All of them are this machine.
        cpus: that each node pretends to have.
        array: most tasks of an array.
    """

    def __init__(self, path: Path, nodes: int = 1, cpus: int = 2, array: int = 3) -> None:
        self.path, self.array = path, array
        self.names = [f"{NODE}{number}" for number in range(1, nodes + 1)]
        self.cpus = cpus
        self.environment = {**os.environ, "SLURM_CONF": str(path / "slurm.conf")}
        self._added = ""
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Cluster":
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o755)
        try:
            self._munge()
            self._write()
            self._name(self.names)
            self.start("slurmctld", "slurmctld", "-D", "-c")
            for name in self.names:
                self.start_node(name)
            self.wait_until_idle()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, *command: str, check: bool = True) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=WAIT_S)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def signal(self, job: str, name: str) -> None:
        """To all ranks of a job. scancel tries again for long, and would hit the job's next start."""
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(["scancel", f"--signal={name}", job], env=self.environment, check=True, timeout=3)

    def start_node(self, name: str) -> None:
        self.start(name, "slurmd", "-D", "-N", name)

    def start(self, name: str, *command: str) -> None:
        log = (self.path / f"{name}.out").open("ab")
        self.daemons[name] = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def kill(self, name: str) -> None:
        """A daemon dies."""
        self.daemons[name].send_signal(signal.SIGKILL)
        self.daemons.pop(name).wait()

    def lose(self, name: str) -> None:
        """A node dies with all that runs there."""
        steps = subprocess.run(["pgrep", "-f", f"slurmstepd.*{name}|slurmd.*-N {name}"], capture_output=True, text=True)
        for pid in map(int, steps.stdout.split()):
            for child in children(pid):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        self.daemons.pop(name).wait()

    def stop(self) -> None:
        if "slurmctld" in self.daemons:
            self.run("scancel", "--user=root", "--signal=KILL", check=False)
            self.run("scancel", "--user=root", check=False)
        for name in [*self.names, "slurmctld", "munged"]:
            if name in self.daemons:
                self.daemons[name].terminate()
                try:
                    self.daemons.pop(name).wait(timeout=20)
                except subprocess.TimeoutExpired:
                    self.kill(name)
        HOSTS.write_text(HOSTS.read_text().replace(self._added, ""))
        subprocess.run(["pkill", "-9", "-f", f"slurmstepd.*{self.path.name}"], check=False)

    def said(self) -> str:
        """The last words of each daemon."""
        logs = sorted([*self.path.glob("*.out"), *self.path.glob("*.log")])
        return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-15:]) for log in logs)

    def _munge(self) -> None:
        folder = self.path / "munge"
        folder.mkdir(mode=0o755, exist_ok=True)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        files = {"key-file": key, "socket": folder / "socket", "log-file": folder / "log"}
        files |= {"pid-file": folder / "pid", "seed-file": folder / "seed"}
        self.start("munged", "munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items()))
        wait_for((folder / "socket").exists, "munged", self)

    def _write(self) -> None:
        ports = free_ports(1 + len(self.names))
        folders = {name: self.path / name for name in ("state", *(f"spool-{name}" for name in self.names))}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        nodes = [
            f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus}"
            for name, port in zip(self.names, ports[1:], strict=True)
        ]
        lines = [
            "ClusterName=test",
            f"SlurmctldHost={socket.gethostname()}(127.0.0.1)",
            f"SlurmctldPort={ports[0]}",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/munge",
            f"AuthInfo=socket={self.path}/munge/socket,cred_expire=5",  # and so long a requeued job waits
            "CryptoType=crypto/munge",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU",
            "SlurmdParameters=config_overrides",
            "SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=2",
            "ReturnToService=2",
            "JobRequeue=1",
            "KillWait=15",
            "SlurmdTimeout=10",
            "MinJobAge=300",
            f"MaxArraySize={self.array}",  # at 3, a sweep of four runs is two submissions
            "MpiDefault=none",
            "SwitchType=switch/none",
            "AccountingStorageType=accounting_storage/none",
            "JobAcctGatherType=jobacct_gather/none",
            "JobCompType=jobcomp/filetxt",
            f"JobCompLoc={self.path}/jobs.txt",
            f"StateSaveLocation={self.path}/state",
            f"SlurmdSpoolDir={self.path}/spool-%n",
            f"SlurmctldPidFile={self.path}/slurmctld.pid",
            f"SlurmdPidFile={self.path}/%n.pid",
            f"SlurmctldLogFile={self.path}/slurmctld.log",
            f"SlurmdLogFile={self.path}/%n.log",
            "SlurmctldDebug=info",
            "SlurmdDebug=info",
            *nodes,
            f"PartitionName=test Nodes={','.join(self.names)} Default=YES MaxTime=60 State=UP OverSubscribe=NO",
        ]
        (self.path / "slurm.conf").write_text("\n".join(lines) + "\n")

    def _name(self, names: Sequence[str]) -> None:
        """Ranks of several nodes meet at the first one's name."""
        known = HOSTS.read_text()
        self._added = "".join(f"127.0.0.1 {name}\n" for name in names if f" {name}\n" not in known)
        HOSTS.write_text(known + self._added)

    def wait_until_idle(self) -> None:
        def idle() -> bool:
            states = self.run("sinfo", "-h", "-N", "-o", "%N %t", check=False).split()
            return states[1::2] == ["idle"] * len(self.names)

        wait_for(idle, "the nodes to be idle", self)


def wait_for(what: object, name: str, cluster: Cluster, seconds: float = WAIT_S) -> None:
    assert callable(what)
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"waited {seconds} s for {name}\n{cluster.said()}"
        time.sleep(0.2)


def children(pid: int) -> list[int]:
    """The process and all behind it."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [pid, *(one for child in map(int, found) for one in children(child))]


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def why_unsupported() -> str:
    """Why SLURM cannot run here; empty if it can."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if not shutil.which(name)]
    if missing:
        return f"needs {', '.join(missing)}: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "needs root for slurmd"


def main(arguments: Sequence[str]) -> int:
    path, _, *command = arguments
    with Cluster(Path(path), nodes=2) as cluster:
        return subprocess.run(command, env=cluster.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
