"""A Slurm of one node on the loopback, started and stopped by a test; what a sweep is submitted to.

No systemd, no cgroups, no accounting database and nothing outside one temporary folder: key, sockets, state and logs
lie there, and the ports are free ones of 127.0.0.1. The daemons run in the foreground as the user of the test, root or
not, so each is a process of ours that is stopped by its id. CPUs, memory and GPUs of the node are what the test says,
not what the machine has: Slurm counts them and binds nothing.

Debian: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])  # sbin is not on a user's PATH
CONFIG = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# No cgroups, which a container seldom lets a test use; linuxproc loses a process whose parent was killed before it.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
DefMemPerCPU=100
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
# Without accounting squeue alone knows how a job ended, and only this long (seconds).
MinJobAge=3600
# A test waits for none of the pauses that spare a real cluster's controller.
SchedulerParameters=sched_min_interval=200000,batch_sched_delay=0
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=loopback Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """One sentence on why no Slurm can be started here, None where one can."""
    if missing := [name for name in PROGRAMS if _found(name) is None]:
        packages = "apt-get install slurmctld slurmd slurm-client munge brings them"
        return f"No Slurm can be started for the test, since {', '.join(missing)} cannot be found; {packages}."
    return None


@contextlib.contextmanager
def slurm_node(cpus: int = 6, memory_mb: int = 6000, gpus: int = 1, patience: float = 30) -> Iterator[dict[str, str]]:
    """An environment in which sbatch, squeue and scancel reach a Slurm of our own, until the block is left.

    cpus, memory_mb and gpus are counts that Slurm deals out. RuntimeError with the daemons' logs where the node is not
    idle after `patience` seconds.
    """
    # Not pytest's folder: the path of a socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, contextlib.ExitStack() as daemons:
        folder = Path(name)
        folder.chmod(0o711)  # munged refuses a socket that other users could not reach
        environment = _configured(folder, cpus, memory_mb, gpus)
        munge = ["munged", "--foreground", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket"]
        munge += [f"--{kind}-file={folder}/munge.{kind}" for kind in ("pid", "log", "seed")]
        daemons.enter_context(_running(munge, folder, environment))
        _wait(lambda: (folder / "munge.socket").is_socket(), folder, patience)
        daemons.enter_context(_running(["slurmctld", "-D", "-c"], folder, environment))
        daemons.enter_context(_running(["slurmd", "-D"], folder, environment))
        daemons.callback(_cancel_all, folder, environment)
        _wait(lambda: _said(["sinfo", "-h", "-o", "%t"], environment) == "idle", folder, patience)
        yield environment


def _configured(folder: Path, cpus: int, memory_mb: int, gpus: int) -> dict[str, str]:
    """The environment for Slurm's programs, its configuration and munge's key written into the folder."""
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        controller_port, node_port = (listening.getsockname()[1] for listening in sockets)
    host = socket.gethostname().split(".")[0]  # a node answers to this name alone
    user = _said(["id", "-un"], None)
    (folder / "slurm.conf").write_text(CONFIG.format(**locals()))
    # Slurm counts no GPU that is not a device file; these are never opened, and jobs see CUDA_VISIBLE_DEVICES=0, 1...
    devices = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")[:gpus]
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in devices))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
    # Snakemake's plugin starts srun in a job without SLURM_CONF, so an srun that knows it comes first on the PATH.
    (folder / "bin" / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {_found("srun")} "$@"\n')
    (folder / "bin" / "srun").chmod(0o755)
    return kept | {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": f"{folder}/bin{os.pathsep}{SEARCH}"}


@contextlib.contextmanager
def _running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """A daemon in the foreground, its words in a log of its name; asked to end, killed where 10 s are not enough."""
    with open(folder / f"{command[0]}.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cancel_all(folder: Path, environment: dict[str, str]) -> None:
    """No job outlives its node: the processes of jobs are not ours, so Slurm has to end them."""
    for job in _said(["squeue", "-h", "-o", "%A"], environment).split():
        subprocess.run(["scancel", job], env=environment, check=False)
    _wait(lambda: not _said(["squeue", "-h"], environment), folder, 20)


def _found(program: str) -> str | None:
    return shutil.which(program, path=SEARCH)


def _said(command: list[str], environment: dict[str, str] | None) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.strip()


def _wait(is_so, folder: Path, patience: float) -> None:
    end = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > end:
            logs = "\n".join(f"{log.name}:\n{log.read_text()[-2000:]}" for log in sorted(folder.glob("*.log")))
            raise RuntimeError(f"The Slurm of the test is not ready after {patience:g} s.\n{logs}")
        time.sleep(0.1)
