"""A Slurm of two nodes of one core each on this machine: munge, slurmctld and two slurmd, in a
folder of its own, as whoever runs the tests.

Debian's packages slurm-wlm and munge hold them; nothing of the system's own Slurm is read.
"""

import getpass
import os
import secrets
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from shutil import which

from tests.cases import mounts

PR_SET_PDEATHSIG = 1
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
NODES = ("node1", "node2")
# A requeued job waits for as long as its credential is valid, 120 s unless told otherwise; a node
# counts as lost after SlurmdTimeout. A job of `urgent` takes the place of one of `main`, which is
# asked to end after GraceTime and has KillWait for it.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,default_queue_depth=1000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdTimeout=10
MessageTimeout=10
KillWait=20
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
InactiveLimit=0
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=DEFAULT Nodes=node1,node2 MaxTime=INFINITE DefaultTime=30 State=UP
PartitionName=main Default=YES PriorityTier=1 GraceTime=3
PartitionName=urgent PriorityTier=2 PreemptMode=OFF
"""


def why_not() -> str:
    """Why there can be no Slurm here; "" where there can."""
    os.environ["PATH"] += os.pathsep + "/usr/sbin"  # where Debian has the daemons
    missing = [name for name in PROGRAMS if not which(name)]
    if missing:
        return f"{', '.join(missing)}: not installed (apt-get install slurm-wlm munge)"
    return ""


class Cluster:
    """The daemons, from `start` to `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen] = {}

    @property
    def variables(self) -> dict[str, str]:
        """What a program needs to find this Slurm."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start everything; AssertionError with the daemons' own words where it does not answer."""
        for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        munge = self.folder / "munge"
        munge.chmod(0o755)
        key = munge / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self.run(
            "munged",
            *("munged", "--foreground", "--force", f"--key-file={key}"),
            *(f"--{name}={munge / name.partition('-')[0]}" for name in ("socket", "pid-file")),
            *(f"--log-file={munge / 'log'}", f"--seed-file={munge / 'seed'}"),
        )
        self.wait_until(lambda: (munge / "socket").exists(), "munged")

        text = CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            user=getpass.getuser(),
            folder=self.folder,
            ports=free_ports(3),
        )
        (self.folder / "slurm.conf").write_text(text)
        self.run("slurmctld", "slurmctld", "-D", "-c")
        for node in NODES:
            self.start_node(node)
        self.wait_until(lambda: self.command("sinfo", "-h", "-o", "%t %D") == "idle 2", "slurmctld")

    def start_node(self, node: str) -> None:
        self.run(node, "slurmd", "-D", "-N", node)

    def stop_node(self, node: str) -> None:
        """Kill a node's slurmd, as a machine that is lost; what it ran runs on."""
        self.daemons[node].kill()
        self.daemons.pop(node).wait()

    def run(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("a") as output:
            self.daemons[name] = subprocess.Popen(
                command,
                env=os.environ | self.variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # They end with this process, should it be killed.
                preexec_fn=lambda: mounts.libc_call("prctl", PR_SET_PDEATHSIG, signal.SIGTERM),
            )

    def stop(self) -> None:
        """Cancel all jobs and stop the daemons, munge last."""
        if "slurmctld" in self.daemons:
            self.command("scancel", "--state=PENDING", f"--user={getpass.getuser()}")
            self.command("scancel", f"--user={getpass.getuser()}")
            # Jobs have KillWait seconds to end; a slurmd waits for those that it has.
            with suppress(AssertionError):
                self.wait_until(lambda: not self.jobs(), "jobs are left", 40)
        for process in reversed(self.daemons.values()):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def command(self, *words: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            words, env=os.environ | self.variables, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def jobs(self) -> dict[str, str]:
        """Name -> state of every job in the queue."""
        lines = self.command("squeue", "-h", "-o", "%T|%j").splitlines()
        return {line.partition("|")[2]: line.partition("|")[0] for line in lines}

    def number(self, name: str) -> str:
        """The number of the job of that name."""
        return self.command("squeue", "-h", "-o", "%i", f"--name={name}")

    def wait_until(
        self, true: object, what: str, seconds: float = 240.0, pause: float = 0.1
    ) -> None:
        """Return when `true()` is; AssertionError with the queue and the logs after `seconds`."""
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                logs = "\n".join(path.read_text()[-1500:] for path in self.folder.glob("*.log"))
                raise AssertionError(f"{what}: {self.command('squeue')}\n{logs}")
            time.sleep(pause)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at present."""
    holders = [socket.socket() for _ in range(count)]
    for holder in holders:
        holder.bind(("127.0.0.1", 0))
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return ports
