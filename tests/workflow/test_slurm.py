"""The workflow through a real Slurm of one node: the same outputs as on the machine itself."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
SYSTEM = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
CONFIGURATION = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=sched_interval=1
MinJobAge=600
NodeName={host} NodeAddr=127.0.0.1 CPUs={n_cores} RealMemory={memory_mb} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
#: Options that make a cluster of one idle node answer at once.
QUICK = (
    "--", "--seconds-between-status-checks", "1", "--slurm-init-seconds-before-status-checks", "1",
    "--latency-wait", "5",
)  # fmt: skip


def missing() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=SYSTEM) is None]


def free_ports() -> list[int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return [first.getsockname()[1], second.getsockname()[1]]


def write_cluster(folder: Path) -> list[list[str]]:
    """Write the configuration of a cluster; return the commands of its three daemons."""
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 500
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=host, user=getpass.getuser(), ports=free_ports(), folder=folder,
            n_cores=os.cpu_count(), memory_mb=memory_mb,
        )
    )  # fmt: skip
    munge = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munge += [f"--socket={folder}/munge/socket", f"--pid-file={folder}/munge/pid"]
    munge += [f"--log-file={folder}/munge/log", f"--seed-file={folder}/munge/seed"]
    # The jobs of the plugin forget where the configuration is: it takes SLURM_CONF from them.
    (folder / "bin").mkdir()
    srun = folder / "bin" / "srun"
    real = shutil.which("srun", path=SYSTEM)
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={configuration} exec {real} "$@"\n')
    srun.chmod(0o755)
    return [
        munge,
        ["slurmctld", "-D", "-c", "-f", str(configuration)],
        ["slurmd", "-D", "-c", "-f", str(configuration)],
    ]


@contextlib.contextmanager
def running_slurm() -> Iterator[dict[str, str]]:
    """Keep a Slurm of one node running; yield the variables that its users need."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:  # short: paths of sockets are
        folder = Path(name)
        folder.chmod(0o755)
        environment = {**os.environ, "PATH": SYSTEM, "SLURM_CONF": str(folder / "slurm.conf")}
        daemons = []
        try:
            for command in write_cluster(folder):
                with (folder / f"{command[0]}.out").open("wb") as output:
                    daemons.append(
                        subprocess.Popen(command, env=environment, stdout=output, stderr=output)
                    )
                time.sleep(0.3)
            until, state = time.monotonic() + 30, ""
            while state != "idle" and time.monotonic() < until:
                ask = ["sinfo", "--noheader", "--format=%T"]
                done = subprocess.run(ask, env=environment, capture_output=True, text=True)
                state = done.stdout.strip()
                time.sleep(0.2)
            if state != "idle":
                said = [file.read_text()[-300:] for file in folder.glob("*.out")]
                pytest.skip(f"Slurm did not start here: {state or done.stderr} {said}")
            yield {
                "SLURM_CONF": environment["SLURM_CONF"],
                "PATH": f"{folder / 'bin'}{os.pathsep}{SYSTEM}",
            }
            end = ["scancel", f"--user={getpass.getuser()}"]
            subprocess.run(end, env=environment, check=False, timeout=60)
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in daemons:
                try:
                    daemon.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """Variables of a running Slurm; its programs must be there."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="pip install afterimage[slurm]")
    if absent := missing():
        pytest.skip(f"not installed: {', '.join(absent)} (apt-get install slurm-wlm munge)")
    with running_slurm() as variables:
        yield variables


@pytest.fixture(scope="module")
def programs() -> None:
    """Install Slurm where that is possible: Debian, and we are root."""
    if not missing():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("Slurm is not installed, and only root on Debian can do it here")
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "slurm-wlm", "munge"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    if done.returncode or missing():
        pytest.skip(f"Slurm could not be installed: {done.stderr[-300:]}")


def test_a_bad_subject_fails_alone_and_the_others_make_the_same(
    slurm: dict[str, str], tools, tmp_path: Path
) -> None:
    study = tools.study(tmp_path / "data")
    study.subject("01")
    (study.subject("02") / "sub-02_responses.npy").write_bytes(b"no array")
    config = tools.write_config(tmp_path / "config.yaml", tools.light)
    command = (study.folder, "participant", "--config", config, "--until", "prepare_responses")
    outs = {}
    for name, more, variables in (
        ("local", ("--cores", 2), {}),
        ("slurm", ("--profile", "slurm_no_accounting", *QUICK, "--retries", "0"),
         slurm),
    ):  # fmt: skip
        outs[name] = tmp_path / name
        done = tools.run(command[0], outs[name], *command[1:], *more, **variables)
        assert done.returncode == 65, done.stdout + done.stderr
        assert "sub-02, prepare_responses" in done.stderr
    same = tools.contents(outs["local"], skip=lambda name: not tools.is_data(name))
    assert len(same) > 5
    assert tools.contents(outs["slurm"], skip=lambda name: not tools.is_data(name)) == same


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_demo_makes_the_same(programs: None, tools, tmp_path: Path) -> None:
    """The demo by Slurm equals the demo on this machine, file by file, bit by bit.

    ``AFTERIMAGE_DEMO`` in the environment names a finished demo, to save the time of one.
    """
    finished = os.environ.get("AFTERIMAGE_DEMO")
    local = Path(finished) if finished else tmp_path / "demo"
    if not finished:
        demo = [sys.executable, "-m", "afterimage", "demo", str(local)]
        subprocess.run(demo, check=True, env=tools.environment(), stdout=subprocess.DEVNULL)
    out = tmp_path / "out"
    with running_slurm() as cluster:
        command = tools.command(
            local / "dataset", out, "participant", "--config", "presets/demo",
            "--profile", "slurm_no_accounting", *QUICK,
        )  # fmt: skip
        variables = tools.environment(**cluster)
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    here = tools.contents(local / "results", skip=lambda name: not tools.is_data(name))
    there = tools.contents(out, skip=lambda name: not tools.is_data(name))
    assert there.keys() == here.keys()
    assert [name for name in here if here[name] != there[name]] == []
