"""The warm process: jobs are forks of it, and nothing but time depends on it."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from afterimage.warm import LIBRARIES, N_JOBS, VARIABLE, warm_process

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the process is made on Linux only"
)

#: Stands before `afterimage` on the path; its stage does what a file says.
STAGE = """
import os, sys, time
from afterimage import warm
from afterimage.stages import runner

warm.LIBRARIES = ("colorsys",)

def guarded_run(name, inputs, outputs, params, **options):
    print("slow module loaded before:", "colorsys" in sys.modules, flush=True)
    import colorsys
    print(name, os.getcwd(), os.environ["MARK"], file=sys.stderr, flush=True)
    if name == "die":
        os.kill(os.getpid(), 9)
    if name == "wait":
        open(params["config"]["file"], "w").write(str(os.getpid()))
        time.sleep(60)
    return 65 if name == "bad" else 0

runner.guarded_run = guarded_run
"""


@pytest.fixture
def command(tmp_path: Path):
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(STAGE, encoding="utf-8")
    variables = {
        **os.environ,
        "MARK": "mark",
        "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
    }
    start = [sys.executable, "-m", "afterimage", "stage"]

    def run(name: str, environment: dict[str, str], *, params: str = "{}", threads: int = 1):
        options = ["--params", params, "--threads", str(threads), "--device", "cpu"]
        return subprocess.Popen(
            [*start, name, *options], env=environment, cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return run, variables


def wait_for_address(environment: dict[str, str]) -> None:
    def listens() -> bool:
        lines = Path("/proc/net/unix").read_text().splitlines()
        return any(line.endswith(environment[VARIABLE]) and " 00010000 " in line for line in lines)

    until = time.monotonic() + 20
    while not listens() and time.monotonic() < until:
        time.sleep(0.02)


def test_a_job_has_its_streams_folder_environment_and_exit_code(command, tmp_path) -> None:
    run, variables = command
    with warm_process(variables) as environment:
        wait_for_address(environment)
        for name, code in (("good", 0), ("bad", 65), ("die", -signal.SIGKILL)):
            job = run(name, environment)
            _, err = job.communicate()
            assert job.returncode == code
            assert err == f"{name} {tmp_path} mark\n"


def test_what_jobs_load_again_and_again_is_there_for_the_next(command) -> None:
    run, variables = command
    with warm_process(variables) as environment:
        wait_for_address(environment)
        said = [run("good", environment).communicate()[0] for _ in range(N_JOBS + 1)]
        assert [line.split()[-1] for line in said] == ["False"] * N_JOBS + ["True"]
        # A job of several threads starts an interpreter of its own.
        assert run("good", environment, threads=2).communicate()[0].split()[-1] == "False"


def test_libraries_of_networks_are_loaded_before_the_first_job_with_weights(command) -> None:
    run, variables = command
    weights = '{"config": {"encoders": {"clip": {"path": "tiny/clip"}}}}'
    with warm_process(variables) as environment:
        wait_for_address(environment)
        # a report names the folders of other stages, and reads none
        for name, params, loaded in (
            ("report_subject", weights, "False"), ("good", weights, "True"), ("good", "{}", "True")
        ):  # fmt: skip
            said = run(name, environment, params=params).communicate()[0]
            assert said.split()[-1] == loaded
    for name in LIBRARIES:
        importlib.import_module(name)
    assert "torch" in sys.modules


def test_a_job_ends_with_the_command_that_asked_for_it(command, tmp_path) -> None:
    run, variables = command
    with warm_process(variables) as environment:
        wait_for_address(environment)
        file = tmp_path / "pid"
        job = run("wait", environment, params=f'{{"config": {{"file": "{file}"}}}}')
        until = time.monotonic() + 20
        while not (file.exists() and file.read_text()) and time.monotonic() < until:
            time.sleep(0.02)
        pid = int(file.read_text())
        assert pid != job.pid
        job.kill()
        job.communicate()
        while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
            time.sleep(0.02)
        assert not Path(f"/proc/{pid}").exists()


def test_a_kill_leaves_nothing_behind(command, tmp_path, monkeypatch) -> None:
    _, variables = command
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = sorted(tmp_path.iterdir())
    with warm_process(variables) as environment:
        wait_for_address(environment)
        assert sorted(tmp_path.iterdir()) == before
        listening = Path("/proc/net/unix").read_text()
        assert environment[VARIABLE] in listening
    assert environment[VARIABLE] not in Path("/proc/net/unix").read_text()


def test_without_the_process_a_stage_runs_by_itself(command, tmp_path) -> None:
    run, variables = command
    for address in ("off", str(tmp_path / "nothing")):
        job = run("bad", {**variables, VARIABLE: address})
        assert job.communicate()[1] == f"bad {tmp_path} mark\n"
        assert job.returncode == 65
    with warm_process({**variables, VARIABLE: "off"}) as environment:
        assert environment[VARIABLE] == "off"


def test_a_process_with_workers_ends() -> None:
    """Workers of joblib are told to end by the usual way out only: to wait for them is to wait for ever."""
    code = (
        "from joblib import Parallel, delayed\n"
        "from afterimage.warm import end\n"
        "found = Parallel(2)(delayed(abs)(n) for n in (-1, -2))\n"
        "print(found, flush=True)\n"
        "end(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "[1, 2]\n", "")
