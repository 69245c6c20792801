"""Time and peak memory of cleaning one run; ``--full``: 1,200 volumes of 80,000 brain voxels."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from afterimage.io.nifti import write_nifti, write_nifti_blocks
from afterimage.preprocess.fmri.resampling import Resampler, grid_center, parameters_to_matrix
from afterimage.stages.clean_bold import Config, Inputs, Outputs, run

SIZES = {"small": ((40, 40, 24), 300, 16_000), "full": ((64, 64, 40), 1200, 80_000)}
LIMIT_GB = 4.0
T_R_S = 1.5


def head(shape: tuple[int, int, int], n_voxels: int, rng: np.random.Generator) -> np.ndarray:
    """Return a textured ball of ``n_voxels`` on a dark background."""
    from scipy.ndimage import gaussian_filter

    centered = [np.linspace(-1, 1, size) for size in shape]
    radius = np.linalg.norm(np.stack(np.meshgrid(*centered, indexing="ij")), axis=0)
    inside = radius <= np.sort(radius.ravel())[n_voxels - 1]
    texture = gaussian_filter(rng.standard_normal(shape), 1.2)
    return np.where(inside, 800 + 150 * texture / texture.std(), 20).astype(np.float32)


def write_run(folder: Path, shape: tuple[int, int, int], n_volumes: int, n_voxels: int) -> Inputs:
    """Write a run whose head moves, its sidecar, reference and mask."""
    rng = np.random.default_rng(0)
    still = head(shape, n_voxels, rng)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    everywhere = Resampler(np.indices(shape).reshape(3, -1).T, affine)
    center = grid_center(shape, affine)
    poses = rng.normal(size=(24, 6)) * np.r_[[0.3] * 3, [0.005] * 3]
    moved = [
        everywhere.sample(still, affine, np.linalg.inv(parameters_to_matrix(pose, center)))
        for pose in poses
    ]
    noise = rng.normal(scale=12, size=(16, still.size)).astype(np.float32)

    def blocks() -> Iterator[np.ndarray]:
        for volume in range(n_volumes):
            values = moved[volume // 5 % len(moved)] + np.roll(noise[volume % 16], volume * 97)
            yield np.rint(values).reshape(shape).astype(np.int16)

    inputs = Inputs(
        folder / "sub-01_task-x_bold.nii.gz", (folder / "sub-01_task-x_bold.json",),
        folder / "reference.nii.gz", folder / "mask.nii.gz",
    )  # fmt: skip
    write_nifti_blocks(inputs.bold, blocks(), (*shape, n_volumes), affine, T_R_S, np.int16)
    times = np.arange(shape[2]) * T_R_S / shape[2]
    sidecar = {"RepetitionTime": T_R_S, "SliceTiming": times.tolist()}
    inputs.sidecars[0].write_text(json.dumps(sidecar))
    write_nifti(inputs.reference, still, affine)
    write_nifti(inputs.mask, still > 100, affine)
    return inputs


def clean(folder: Path) -> None:
    """Clean the run of `write_run` in this process; print seconds and peak memory as JSON."""
    bold = folder / "sub-01_task-x_bold.nii.gz"
    inputs = Inputs(
        bold, (bold.with_name("sub-01_task-x_bold.json"),),
        folder / "reference.nii.gz", folder / "mask.nii.gz",
    )  # fmt: skip
    outputs = Outputs(folder / "series.nc", folder / "confounds.tsv", folder / "quality.nc")
    started = time.perf_counter()
    run(inputs, outputs, Config(on_bad_run="fail", fd_threshold_mm=None))
    seconds = time.perf_counter() - started
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gb": peak_gb}))


def measure(size: str) -> dict[str, float]:
    """Write a run, clean it in a process of its own, and return what that took."""
    shape, n_volumes, n_voxels = SIZES[size]
    with tempfile.TemporaryDirectory() as name:
        write_run(Path(name), shape, n_volumes, n_voxels)
        done = subprocess.run(
            [sys.executable, __file__, "--clean", name], capture_output=True, text=True, check=True
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--clean", type=Path)
    arguments = parser.parse_args()
    if arguments.clean:
        clean(arguments.clean)
        return
    size = "full" if arguments.full else "small"
    shape, n_volumes, n_voxels = SIZES[size]
    found = measure(size)
    print(
        f"{n_volumes} volumes of {shape}, {n_voxels} brain voxels: {found['seconds']:.1f} s "
        f"({1000 * found['seconds'] / n_volumes:.0f} ms a volume), "
        f"peak memory {found['peak_gb']:.2f} GB"
    )
    if found["peak_gb"] > LIMIT_GB:
        raise SystemExit(f"more than {LIMIT_GB} GB")


if __name__ == "__main__":
    main()
