"""One job on several devices: torchrun starts a process a device, and one of them writes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from afterimage.bids.names import derivative_root
from afterimage.io.atomic import write_json

#: Stages that several devices can share: networks are trained, or pictures painted.
SHARED_BY_DEVICES = (
    "train_tokenizer", "train_generator", "train_decoder", "train_shared_decoder", "reconstruct",
    "pretrain_series", "pretrain_tokens",
)  # fmt: skip


def processes_for(name: str, device: str) -> int:
    """Return how many processes a stage is run by where nobody says: one a device it was given.

    A scheduler, or the user, says by ``CUDA_VISIBLE_DEVICES`` which devices a job has; where it
    says nothing, the job takes one, since others may be somebody else's.
    """
    given = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    return max(1, len(given)) if device != "cpu" and name in SHARED_BY_DEVICES else 1


def run_by_processes(arguments: Sequence[str], n_processes: int) -> int:
    """Run ``afterimage stage`` by several processes of torchrun; return the exit code.

    All of them run the whole stage; the first one writes, the others write into a folder that is
    thrown away (`joined`).
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={n_processes}", "-m", "afterimage", "stage", *arguments]
    variables = {"AFTERIMAGE_WARM": "off", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=os.environ | variables, check=False).returncode


@contextmanager
def joined(device: str, outputs: Mapping[str, Sequence[str]]) -> Iterator[dict[str, list[str]]]:
    """Join the other processes of this job, if there are any; yield where this one writes.

    Parameters
    ----------
    device : str
    outputs : dict of list of str
        Paths as the stage was given them; all processes but the first get others, which are
        thrown away.
    """
    plain = {name: list(values) for name, values in outputs.items()}
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield plain
        return
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu")  # also makes this process's device the current one
    try:
        if state.is_main_process:
            yield plain
            return
        with tempfile.TemporaryDirectory(prefix="afterimage-") as scratch:
            write_json(Path(scratch) / "dataset_description.json", {})
            yield {
                name: [str(Path(scratch) / _below_root(Path(value))) for value in values]
                for name, values in plain.items()
            }
    finally:
        state.destroy_process_group()


def _below_root(path: Path) -> Path:
    return path.resolve().relative_to(derivative_root(path))
