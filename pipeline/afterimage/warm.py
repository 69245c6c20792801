"""One warm interpreter for the jobs of a run: a job is a copy of it, and need not load libraries.

Loading torch, transformers and diffusers takes longer than many a job's own work. So `launch`
starts one process that waits at a socket; ``afterimage stage`` hands its arguments, its folder, its
environment and its standard streams to it, and waits for the exit code of a fork of it. What two
jobs had to load, the process loads itself, and the forks after that find it there. A job whose
settings name a folder of weights waits until the libraries of networks are loaded, once for all.

Nothing depends on it. Where there is no such process, where it belongs to another session (a job of
a cluster), has threads of its own, or a job wants more than one thread, the stage runs by itself as
it always can. A job dies with the command that asked for it, and all jobs die with the run.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import itertools
import json
import multiprocessing
import os
import re
import secrets
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

#: Environment variable that holds the name of the socket; ``off`` keeps `launch` from making one.
VARIABLE = "AFTERIMAGE_WARM"
#: Jobs that must have loaded a module before the process does.
N_JOBS = 2
#: A folder of weights among a job's settings, and what is loaded to read any such.
WEIGHTS = re.compile(r'"(path|generator)": "')
LIBRARIES = ("transformers.modeling_utils", "diffusers.models.autoencoders.autoencoder_kl")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@contextlib.contextmanager
def warm_process(variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Keep the process alive; yield the environment in which its socket is named.

    Parameters
    ----------
    variables : dict of str
        Environment of the run's jobs.
    """
    if sys.platform != "linux" or variables.get(VARIABLE) == "off":
        yield dict(variables)
        return
    # A name without a file, which the system forgets with the process: a kill leaves nothing.
    address = f"@afterimage-{secrets.token_hex(16)}"
    process = subprocess.Popen(
        [sys.executable, "-m", "afterimage", "serve", address],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**variables, **ONE_THREAD},
    )  # fmt: skip
    try:
        yield {**variables, VARIABLE: address}
    finally:
        assert process.stdin is not None  # noqa: S101  (for the type checker)
        process.stdin.close()  # tells it to end
        try:
            process.wait(timeout=1)
        except subprocess.TimeoutExpired:  # it is loading libraries, for nobody any more
            process.kill()
            process.wait()


def ask(arguments: Sequence[str]) -> int | None:
    """Let the warm process run a command; return its exit code, or None where it cannot.

    A job that was ended by a signal ends this process by the same signal.
    """
    address = os.environ.get(VARIABLE, "off")
    options = dict(itertools.pairwise(arguments))
    alone = (options.get("--threads"), options.get("--device")) == ("1", "cpu")
    if address == "off" or not alone:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(_abstract(address))
            pid, user = _peer(connection)
            if user != os.getuid() or os.getsid(pid) != os.getsid(0):
                return None
            job = {
                "arguments": list(arguments),
                "folder": str(Path.cwd()),
                "environment": {**os.environ},
            }
            text = json.dumps(job).encode()
            socket.send_fds(connection, [struct.pack("!I", len(text))], [0, 1, 2])
            connection.sendall(text)
            answer = connection.recv(16)
        except OSError:
            return None
        except KeyboardInterrupt:
            return 130
    if not answer:
        return None
    code = int(answer)
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


def _abstract(address: str) -> str:
    """Turn a name into the address of a socket that is no file."""
    return "\0" + address.removeprefix("@")


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Return process and user at the other end."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, user, _ = struct.unpack("3i", peer)
    return pid, user


def serve(address: str, main: Callable[[list[str]], int]) -> None:
    """Be the warm process, until the standard input is closed.

    Parameters
    ----------
    address : str
        Name of the socket to make.
    main : callable
        Runs a command line, in a fork; returns its exit code.
    """
    _Server(address, main).run()


def end(code: int) -> NoReturn:
    """End this process at once, after what it has to do at its end.

    Python takes two seconds to take apart what torch, transformers and diffusers have loaded, object
    by object, and the system frees it all the same. A process with workers of its own (joblib) ends in
    the usual way, which tells them to end before it waits for them.
    """
    waited_for = [thread for thread in threading.enumerate() if not thread.daemon]
    if multiprocessing.active_children() or len(waited_for) > 1:
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@dataclass
class _Job:
    """A command that is being received, or runs."""

    connection: socket.socket
    streams: list[int] = field(default_factory=list)
    n_bytes: int = 0
    text: bytes = b""
    pid: int = 0
    modules: bytes = b""


class _Server:
    """The warm process: one thread, which does one thing after the other."""

    def __init__(self, address: str, main: Callable[[list[str]], int]) -> None:
        self._main = main
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(_abstract(address))
        self._listener.listen(64)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._jobs: list[_Job] = []
        self._loaded: Counter[str] = Counter()

    def run(self) -> None:
        """Serve until the standard input, which the run holds, is closed."""
        for number in (signal.SIGINT, signal.SIGTERM):  # the jobs get them too, and end by them
            signal.signal(number, signal.SIG_IGN)
        self._selector.register(0, selectors.EVENT_READ, None)
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    for job in self._jobs:
                        self._kill(job)
                    return
                key.data()

    def _accept(self) -> None:
        job = _Job(self._listener.accept()[0])
        if _peer(job.connection)[1] != os.getuid():  # anybody can see the name
            job.connection.close()
            return
        self._jobs.append(job)
        self._selector.register(job.connection, selectors.EVENT_READ, lambda: self._receive(job))

    def _receive(self, job: _Job) -> None:
        """Take what a client sends, and fork when all is there; later: the client is gone."""
        piece = b""
        with contextlib.suppress(OSError):
            if job.streams:
                piece = job.connection.recv(1 << 16)
            else:
                head, job.streams, _, _ = socket.recv_fds(job.connection, 4, 3)
                if len(head) == 4 and len(job.streams) == 3:
                    job.n_bytes = struct.unpack("!I", head)[0]
                    return
        job.text += piece
        if not piece:
            self._kill(job)
            if not job.pid:
                self._forget(job)
        elif len(job.text) == job.n_bytes:
            self._start(job)

    def _start(self, job: _Job) -> None:
        if (
            len([*Path("/proc/self/task").iterdir()]) > 1
        ):  # a fork would have the locks of the others
            self._forget(job)
            return
        stage, *options = json.loads(job.text)["arguments"][1:]
        # a report tells of the settings of others
        if not stage.startswith("report_") and any(WEIGHTS.search(option) for option in options):
            self._load(LIBRARIES)
        reading, writing = os.pipe()
        job.pid = os.fork()
        if not job.pid:
            self._become(job, writing)
        os.close(writing)
        self._selector.register(reading, selectors.EVENT_READ, lambda: self._follow(job, reading))

    def _become(self, job: _Job, writing: int) -> NoReturn:
        """Be the job, in the fork."""
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the server
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._selector.close()
        self._listener.close()
        for other in self._jobs:
            other.connection.close()
        asked = json.loads(job.text)
        for number, stream in enumerate(job.streams):
            os.dup2(stream, number)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv[1:] = asked["arguments"]
        sys.path[0] = asked["folder"]
        before = set(sys.modules)
        code = self._main(asked["arguments"])
        with open(writing, "w", encoding="utf-8", closefd=False) as names:
            names.write("\n".join(name for name in sys.modules if name not in before))
        end(code)

    def _follow(self, job: _Job, reading: int) -> None:
        """Take what a job says; when it has ended, answer, and load what jobs load again and again."""
        piece = os.read(reading, 1 << 16)
        job.modules += piece
        if piece:
            return
        self._selector.unregister(reading)
        os.close(reading)
        code = os.waitstatus_to_exitcode(os.waitpid(job.pid, 0)[1])
        job.pid = 0
        with contextlib.suppress(OSError):
            job.connection.sendall(str(code).encode())
        self._forget(job)
        names = job.modules.decode().splitlines()
        self._loaded.update(names)
        self._load(name for name in names if self._loaded[name] == N_JOBS)

    def _load(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(Exception):
                importlib.import_module(name)

    def _kill(self, job: _Job) -> None:
        if job.pid:
            os.kill(job.pid, signal.SIGKILL)

    def _forget(self, job: _Job) -> None:
        self._jobs.remove(job)
        with contextlib.suppress(KeyError):
            self._selector.unregister(job.connection)
        job.connection.close()
        for stream in job.streams:
            os.close(stream)
