"""Map the graph of one subject's voxels: degree, strength, distances, clustering and 3-cycles."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, model_validator

from afterimage.bids.entities import parse_name
from afterimage.bids.names import unit_of
from afterimage.connectivity.graph_measures import node_measures
from afterimage.connectivity.three_cycles import threshold_graph
from afterimage.errors import AfterimageError, InputError
from afterimage.io.arrays import write_dataset
from afterimage.io.nifti import write_nifti
from afterimage.io.series import Series, open_series
from afterimage.signal.projection import projection
from afterimage.stages.extract_series import Denoising, read_confounds
from afterimage.stages.graph_files import cubes_of
from afterimage.stages.runner import record_skipped
from afterimage.stages.series_files import varies

if TYPE_CHECKING:
    from scipy.sparse import csr_array

VERSION = 2
CITES = ("dey2012", "rubinov2010", "lindquist2019")
#: Voxels that are read at a time.
VOXELS = 4096

log = logging.getLogger("afterimage")


class Config(Denoising):
    """Which graph of voxels is mapped; off unless it is enabled."""

    enabled: bool = Field(False, description="map the graphs of voxels (minutes a subject)")
    node_mm: float = Field(
        6.0, gt=0, description="voxels are averaged in cubes of this size, the nodes of the graph"
    )
    density: float | None = Field(
        0.005,
        gt=0,
        le=1,
        description="share of the pairs of nodes that is joined; null: threshold",
    )
    threshold: float | None = Field(
        None, ge=0, lt=1, description="nodes that correlate above it are joined (0.8 in the paper)"
    )
    max_edges: int = Field(50_000_000, ge=1, description="a graph with more edges is refused")
    bands_mm: tuple[float, ...] = Field(
        (0, 40, 80, 200), description="edges of the bands of distance that degree is counted in"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.density is None) == (self.threshold is None):
            raise ValueError("give density or threshold, and set the other to null")
        if any(np.diff(self.bands_mm) <= 0):
            raise ValueError("bands_mm must increase")
        return self


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: cleaned runs and their confounds, in the same order.

    The name of the first of the images they come from (`bold`) tells the space.
    """

    series: tuple[Path, ...]
    confounds: tuple[Path, ...]
    bold: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What the stage writes; the mean of every map over recordings lies beside it as an image."""

    graphs: Path


@dataclass(frozen=True, eq=False)
class Nodes:
    """Cubes of voxels.

    Attributes
    ----------
    of_voxel : array of int, shape (n_voxels,)
        Number of the node of each voxel.
    centres : array of shape (n_nodes, 3)
        Mean of the voxels, in mm.
    """

    of_voxel: np.ndarray
    centres: np.ndarray


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Map every recording; one that cannot be used is left out."""
    errors: list[AfterimageError] = []
    notes: list[str] = []
    mapped: list[tuple[str, dict[str, np.ndarray], dict[str, float]]] = []
    nodes: Nodes | None = None
    grid: tuple[np.ndarray, np.ndarray, tuple[int, ...]] | None = None
    for path, table in zip(inputs.series, inputs.confounds, strict=True):
        where = f"{unit_of(path)}, {path.name}"
        label = path.name.partition("_desc-")[0]
        try:
            with open_series(path) as series:
                if problem := str(series.attrs.get("problem", "")):
                    notes.append(f"{label} was left out: {problem.splitlines()[0]}")
                    continue
                points = np.stack([series.units[axis] for axis in "xyz"], axis=1)
                own = nodes or make_nodes(points.astype(np.float64), config.node_mm)
                if len(points) != len(own.of_voxel):
                    raise InputError(
                        "runs of a subject are on different voxels", where=where,
                        found=f"{len(points)}", expected=f"{len(own.of_voxel)}",
                        fix="delete the _desc-clean_series.nc files and run again",
                    )  # fmt: skip
                maps, about = _map(series, table, own, config, where)
                nodes = own
                index = np.stack([series.units[axis] for axis in "ijk"])
                grid = index, series.attrs["affine"], series.attrs["shape"]
                mapped.append((label, maps, about))
        except InputError as error:
            errors.append(error)
            notes.append(f"{label} was left out: {error.what}")
    if nodes is None or grid is None:
        raise errors[0] if errors else InputError(
            "a subject has no run to make graphs of", where=unit_of(outputs.graphs),
            found=f"{len(inputs.series)} runs, all left out", expected="one that can be used",
            fix="see what is said of each run",
        )  # fmt: skip
    record_skipped("map_graphs", outputs.graphs, *errors)
    outputs.graphs.parent.mkdir(parents=True, exist_ok=True)
    image = parse_name(inputs.bold[0].name) if inputs.bold else None
    space = image.entities.get("space", "") if image else ""
    dataset = _dataset(mapped, nodes, grid, config, notes)
    write_dataset(outputs.graphs, dataset.assign_attrs(space=space))
    _write_images(outputs.graphs, mapped, nodes, grid)
    for note in notes:
        log.info("%s: %s", unit_of(outputs.graphs), note)


def make_nodes(points: np.ndarray, node_mm: float) -> Nodes:
    """Put voxels into cubes, which are the same in all people of a space.

    Parameters
    ----------
    points : array of shape (n_voxels, 3), float64
        In mm.
    node_mm : float
        Edge of a cube; a smaller one than the voxels makes every voxel a node.
    """
    _, of_voxel = np.unique(cubes_of(points, node_mm), axis=0, return_inverse=True)
    of_voxel = np.asarray(of_voxel).ravel()  # a column in numpy 2.0
    sizes = np.bincount(of_voxel)
    centres = [np.bincount(of_voxel, weights=points[:, axis]) / sizes for axis in range(3)]
    return Nodes(of_voxel, np.stack(centres, axis=1))


def _map(
    series: Series, table: Path, nodes: Nodes, config: Config, where: str
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return the maps of one recording over nodes, and what is known of its graph."""
    confounds, _ = read_confounds(table, series.n_times, config, where)
    free = projection(
        series.n_times, confounds=confounds, kept=~series.censored,
        sampling_rate_hz=float(series.attrs["sampling_rate_hz"]),
        high_pass_hz=config.high_pass_hz, low_pass_hz=config.low_pass_hz,
        min_degrees_of_freedom=config.min_degrees_of_freedom, where=where,
    )  # fmt: skip
    raw, n_bad = _average(series, nodes, free.kept)
    values = free.apply(raw)[free.kept]
    values[:, ~varies(raw[free.kept])] = 0.0
    graph = threshold_graph(
        values.astype(np.float32), threshold=config.threshold, density=config.density,
        max_edges=config.max_edges, where=where,
    )  # fmt: skip
    weights: csr_array = graph.weights
    maps = node_measures(weights, nodes.centres, config.bands_mm)
    return maps, {
        "threshold": graph.threshold, "density": graph.density, "n_samples": int(free.kept.sum()),
        "n_censored": int((~free.kept).sum()),
        "n_constant": graph.n_constant, "n_voxels_left_out": n_bad,
        "degrees_of_freedom": free.degrees_of_freedom,
    }  # fmt: skip


def _average(series: Series, nodes: Nodes, kept: np.ndarray) -> tuple[np.ndarray, int]:
    """Average the voxels of each node, (n_times, n_nodes) float32; bad voxels are left out."""
    from scipy.sparse import csr_array

    n_voxels, n_nodes = len(nodes.of_voxel), len(nodes.centres)
    total = np.zeros((n_nodes, series.n_times))
    counts = np.zeros(n_nodes)
    for start in range(0, n_voxels, VOXELS):
        block = series.read(units=slice(start, start + VOXELS))
        good = np.isfinite(block[kept]).all(axis=0)
        good[good] = varies(block[kept][:, good])
        number = nodes.of_voxel[start : start + VOXELS][good]
        sums = csr_array(
            (np.ones(len(number), np.float32), (number, np.arange(len(number)))),
            shape=(n_nodes, len(number)),
        )
        total += sums @ np.nan_to_num(block[:, good]).T
        counts += np.bincount(number, minlength=n_nodes)
    mean = total / np.maximum(counts, 1)[:, None]
    return mean.T.astype(np.float32), int(n_voxels - counts.sum())


def _dataset(
    mapped: Sequence[tuple[str, dict[str, np.ndarray], dict[str, float]]],
    nodes: Nodes,
    grid: tuple[np.ndarray, np.ndarray, tuple[int, ...]],
    config: Config,
    notes: Sequence[str],
) -> Any:
    import xarray

    measures = list(mapped[0][1])
    values = np.array([[maps[name] for name in measures] for _, maps, _ in mapped], np.float32)
    index, affine, shape = grid
    return xarray.Dataset(
        {
            "maps": (("recording", "measure", "node"), values),
            "node_of_voxel": ("voxel", nodes.of_voxel.astype(np.int32)),
        },
        coords={
            "recording": ("recording", np.array([name for name, _, _ in mapped], dtype=object)),
            "measure": ("measure", np.array(measures, dtype=object)),
            **{
                key: ("recording", np.array([about[key] for _, _, about in mapped]))
                for key in mapped[0][2]
            },
            **{
                axis: ("node", nodes.centres[:, n].astype(np.float32))
                for n, axis in enumerate("xyz")
            },
            **{axis: ("voxel", index[n].astype(np.int32)) for n, axis in enumerate("ijk")},
        },
        attrs={
            "affine": np.asarray(affine).ravel(), "shape": np.array(shape),
            "node_mm": config.node_mm, "notes": "; ".join(notes),
        },
    )  # fmt: skip


def _write_images(
    path: Path,
    mapped: Sequence[tuple[str, dict[str, np.ndarray], dict[str, float]]],
    nodes: Nodes,
    grid: tuple[np.ndarray, np.ndarray, tuple[int, ...]],
) -> None:
    """Write the mean of every map over recordings on the grid of the subject."""
    index, affine, shape = grid
    for name in mapped[0][1]:
        mean = np.mean([maps[name] for _, maps, _ in mapped], axis=0)
        volume = np.zeros(shape, dtype=np.float32)
        volume[tuple(index)] = mean[nodes.of_voxel]
        file = path.name.replace("_graphs.nc", f"_stat-{name}_statmap.nii.gz")
        write_nifti(path.with_name(file), volume, affine)
