"""Seconds to read sets of pictures one by one, as `evaluate` does: `read_blocks` beside xarray.

    python tests/benchmarks/bench_read_blocks.py [--pictures 50] [--size-px 64]

The file is that of one decoder: four groups (brain and three controls) of four methods. Both read
every set in an opening of its own, five times; what is read is compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray

from afterimage.io.arrays import block_shapes, block_writer, read_blocks

GROUPS = ("brain", "shuffled", "mean", "noise")
METHODS = ("linear_pixels", "low_level", "retrieval", "latent_diffusion")


def by_xarray(path: Path, group: str, method: str) -> np.ndarray:
    """Read one set through xarray."""
    with xarray.open_dataset(path, engine="h5netcdf", group=group) as dataset:
        variable = dataset[method]
        return variable.values.reshape(-1, *variable.attrs["shape"])


def by_blocks(path: Path, group: str, method: str) -> np.ndarray:
    """Read one set as the stages do."""
    values = read_blocks(path, group, names=[method])[1][method]
    return values.reshape(-1, *block_shapes(path, group)[method])


def main() -> None:
    """Write, read in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--size-px", type=int, default=64)
    asked = parser.parse_args()
    shape = (asked.size_px, asked.size_px, 3)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recon.nc"
        with block_writer(path) as writer:
            for group in GROUPS:
                writer.group(group, [f"picture{i:03d}" for i in range(asked.pictures)])
                for method in METHODS:
                    made = rng.integers(0, 256, (asked.pictures, *shape), dtype=np.uint8)
                    writer.write(group, method, [made], shape, {}, dtype="uint8")
        seconds = {by_xarray: [], by_blocks: []}
        for _ in range(6):  # the first one warms both up
            found = []
            for read, spent in seconds.items():
                started = time.perf_counter()
                found.append([read(path, group, method) for group in GROUPS for method in METHODS])
                spent.append(time.perf_counter() - started)
            for one, other in zip(*found, strict=True):
                np.testing.assert_array_equal(one, other)
        xarray_s, blocks_s = (float(np.median(spent[1:])) for spent in seconds.values())
        n = len(GROUPS) * len(METHODS)
        print(
            f"{n} sets of {asked.pictures} pictures of {asked.size_px} px: xarray "
            f"{1000 * xarray_s / n:.1f} ms a set, read_blocks {1000 * blocks_s / n:.1f} ms, "
            f"{xarray_s / blocks_s:.1f} times faster"
        )


if __name__ == "__main__":
    main()
