"""A two-node Slurm on this machine, for a test: no systemd, no container, nothing left behind.

Every daemon runs in the foreground as a child of the test, with its state, its logs and its munge
key in one temporary directory. The only file outside is /etc/slurm/slurm.conf, because commands
inside a job look nowhere else; it is written only if there is none, and removed at the end.
"""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

CONFIGURATION = Path("/etc/slurm/slurm.conf")
SIGNATURE = "# A test of blockcoupling wrote this file and removes it when it ends."
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo")
NODES = ("n1", "n2")
CPUS, MEMORY_MB = 2, 8000


class NoCluster(Exception):
    """A Slurm cannot, or must not, be started on this machine; the message says why."""


@dataclass(frozen=True)
class Cluster:
    """A running Slurm."""

    directory: Path

    def completed_jobs(self) -> dict[int, dict[str, str]]:
        """What Slurm itself wrote down about each finished job: job id -> its fields."""
        lines = (self.directory / "jobs.txt").read_text().splitlines()
        records = [dict(field.split("=", 1) for field in line.split()) for line in lines]
        return {int(record["JobId"]): record for record in records}


def refuse_foreign_slurm() -> None:
    """Raise NoCluster where a test must not, or cannot, start a Slurm of its own."""
    if missing := [command for command in COMMANDS if _find(command) is None]:
        raise NoCluster(f"not installed: {', '.join(missing)} (Debian: slurm-wlm and munge)")
    if os.geteuid() != 0:
        raise NoCluster(f"writing {CONFIGURATION} and starting slurmd need root")
    if "SLURM_CONF" in os.environ:
        raise NoCluster("SLURM_CONF is set: this machine has a Slurm of its own, left alone")
    if CONFIGURATION.exists() and not CONFIGURATION.read_text().startswith(SIGNATURE):
        raise NoCluster(f"{CONFIGURATION} is not ours: this machine has a Slurm, left alone")


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """Start munge, the controller and two nodes; stop them all, in reverse, on leaving."""
    refuse_foreign_slurm()
    directory = Path(tempfile.mkdtemp(prefix="blockcoupling-slurm-"))
    directory.chmod(0o755)  # munge wants its socket reachable
    key = directory / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    munge = ["--foreground", f"--key-file={key}", f"--socket={directory}/munge.socket"]
    munge += [f"--{kind}-file={directory}/munged.{kind}" for kind in ("log", "pid", "seed")]

    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        CONFIGURATION.parent.mkdir(exist_ok=True)
        CONFIGURATION.write_text(_configuration(directory))
        stack.callback(CONFIGURATION.unlink)
        stack.enter_context(_daemon(directory, "munged", *munge))
        _wait((directory / "munge.socket").exists, "munge opens its socket", directory)
        stack.enter_context(_daemon(directory, "slurmctld", "-D"))
        for node in NODES:
            (directory / node).mkdir()
            stack.enter_context(_daemon(directory, "slurmd", "-D", "-N", node))
        _wait(_all_idle, "both nodes are idle", directory)
        stack.callback(subprocess.run, ["scancel", "--full", f"--user={os.geteuid()}"])
        yield Cluster(directory)


def _configuration(directory: Path) -> str:
    host = socket.gethostname()
    nodes = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={17001 + i} "
        f"CPUs={CPUS} RealMemory={MEMORY_MB} State=UNKNOWN"
        for i, node in enumerate(NODES)
    ]
    return "\n".join(
        [
            SIGNATURE,
            "ClusterName=test",
            f"SlurmctldHost={host}(127.0.0.1)",
            "SlurmctldPort=16817",
            "SlurmUser=root",
            f"AuthInfo=socket={directory}/munge.socket",
            f"StateSaveLocation={directory}/controller",
            f"SlurmdSpoolDir={directory}/%n",
            f"SlurmctldPidFile={directory}/slurmctld.pid",
            f"SlurmdPidFile={directory}/slurmd-%n.pid",
            "MpiDefault=none",
            "ReturnToService=2",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SlurmdParameters=config_overrides",  # the nodes may claim more than there is
            # Memory is counted and enforced, so that too small a request fails the test.
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU_Memory",
            "JobAcctGatherType=jobacct_gather/linux",
            "JobAcctGatherFrequency=task=1",
            "JobAcctGatherParams=OverMemoryKill",
            "SchedulerParameters=sched_interval=1,batch_sched_delay=0",
            "JobCompType=jobcomp/filetxt",
            f"JobCompLoc={directory}/jobs.txt",
            *nodes,
            f"PartitionName=test Nodes={','.join(NODES)} Default=YES DefaultTime=30 State=UP",
            "",
        ]
    )


@contextmanager
def _daemon(directory: Path, command: str, *arguments: str) -> Iterator[None]:
    """Run a daemon as a child that also ends when the test is killed."""
    (directory / "controller").mkdir(exist_ok=True)
    log = (
        directory
        / f"{'-'.join((command, *arguments[2:3])) if command == 'slurmd' else command}.log"
    )
    with log.open("w") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", str(_find(command)), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _find(command: str) -> str | None:
    return shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _all_idle() -> bool:
    answer = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%N %T"],
        capture_output=True,
        text=True,
        check=False,
    )
    return set(answer.stdout.splitlines()) == {f"{node} idle" for node in NODES}


def _wait(condition, what: str, directory: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(
                f"--- {log.name}\n{log.read_text()[-2000:]}" for log in directory.glob("*.log")
            )
            raise NoCluster(f"waited {seconds:.0f} s in vain until {what}\n{logs}")
        time.sleep(0.1)
