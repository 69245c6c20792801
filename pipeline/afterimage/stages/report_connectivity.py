"""What the reports read of connectivity: matrices, series, and the scores of the group."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from afterimage.connectivity.measures import SENSORS
from afterimage.io.arrays import open_dataset
from afterimage.io.tables import Row, read_tsv
from afterimage.reports.connectivity import ConnectedRun, Connectivity, RegionGraph, VoxelMaps
from afterimage.stages.series_files import Recording, read_recording

#: Rows and samples of a carpet, at most, and recordings that are shown with one.
N_ROWS, N_TIMES, N_RUNS = 120, 400, 4
#: Sensors have tens of thousands of samples: this long a piece is shown, from the start.
PIECE = 4000


def read_connectivity(folder: Path, name: str) -> list[Connectivity]:
    """Read the connectivity of one subject, by set of regions.

    Parameters
    ----------
    folder : Path
        The subject's folder.
    name : str
        ``sub-01``.
    """
    found: list[Connectivity] = []
    for path in sorted((folder / "connectivity").glob(f"{name}_seg-*_connectivity.nc")):
        with open_dataset(path) as dataset:
            values = dataset["connectivity"].values.mean(axis=0)
            kinds = set(dataset["kind"].values.astype(str).tolist())
            seg = str(dataset.attrs["seg"])
            runs = [
                _run(folder, name, seg, dataset, index)
                for index in range(dataset.sizes["recording"])
            ]
            notes = str(dataset.attrs.get("notes", ""))
            found.append(
                Connectivity(
                    seg=seg,
                    names=dataset["roi"].values.astype(str).tolist(),
                    networks=dataset["network"].values.astype(str).tolist(),
                    centres=np.stack([dataset[axis].values for axis in "xyz"], 1),
                    matrices=dict(
                        zip(dataset["measure"].values.astype(str).tolist(), values, strict=True)
                    ),
                    runs=runs,
                    parcels=not kinds & SENSORS,
                    notes=[note for note in notes.split("; ") if note],
                    graphs=_graphs(path.with_name(f"{name}_seg-{seg}_graphs.tsv")),
                    voxels=None if found else _voxels(path.with_name(f"{name}_graphs.nc")),
                )
            )
    return found


def _graphs(path: Path) -> list[RegionGraph]:
    """Read the graphs of the regions of one subject, by density; none where they are absent."""
    by_density: dict[str, list[Row]] = {}
    for row in read_tsv(path) if path.is_file() else []:
        if row["session"] != "n/a":
            continue  # the matrices that are shown are over all sessions
        by_density.setdefault(row["density"], []).append(row)
    about = ("density", "roi", "network", "session", "n_sessions", "module", "modularity")
    return [
        RegionGraph(
            float(density),
            float(rows[0]["modularity"]),
            np.array([int(row["module"]) for row in rows]),
            {
                name: np.array([float(row[name]) for row in rows])
                for name in rows[0]
                if name not in about
            },
        )
        for density, rows in by_density.items()
    ]


def _voxels(path: Path) -> VoxelMaps | None:
    """Read the maps of the graph of voxels of one subject; None where they were not made."""
    if not path.is_file():
        return None
    with open_dataset(path) as dataset:
        mean = dataset["maps"].values.mean(axis=0)
        place = tuple(dataset[axis].values for axis in "ijk")
        node = dataset["node_of_voxel"].values
        maps = {}
        for name, values in zip(dataset["measure"].values.astype(str).tolist(), mean, strict=True):
            maps[name] = np.full(tuple(dataset.attrs["shape"]), np.nan)
            maps[name][place] = values[node]
        return VoxelMaps(
            maps,
            np.asarray(dataset.attrs["affine"], dtype=float).reshape(4, 4),
            dataset["density"].values.tolist(),
            dataset["threshold"].values.tolist(),
        )


def _run(folder: Path, name: str, seg: str, dataset: object, index: int) -> ConnectedRun:
    """Describe one recording; its series is read where it is among the first."""
    import xarray

    assert isinstance(dataset, xarray.Dataset)  # noqa: S101  (for the type checker)
    label = str(dataset["recording"].values[index])
    stem = name if label == name else f"{name}_{label}"
    ending = "desc-clean" if seg == "sensors" else f"seg-{seg}_desc-denoised"
    carpet = censored = None
    if index < N_RUNS:
        for path in sorted(folder.glob(f"**/{stem}_{ending}_series.nc"))[:1]:
            recording = read_recording(path)
            if isinstance(recording, Recording):
                carpet, censored = _carpet(recording)
    return ConnectedRun(
        label,
        int(dataset["n_samples"].values[index]),
        int(dataset["n_censored"].values[index]),
        int(dataset["n_confounds"].values[index]),
        int(dataset["degrees_of_freedom"].values[index]),
        float(dataset.attrs["sampling_rate_hz"]),
        carpet,
        censored,
    )


def _carpet(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Return series in standard deviations, thinned, (n_rows, n_times), and what is censored."""
    values, kept = recording.values[:PIECE], recording.kept[:PIECE]
    used = values[kept] if kept.any() else values
    spread = used.std(axis=0)
    scaled = (values - used.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    scaled[~kept] = 0.0
    rows = np.unique(np.linspace(0, scaled.shape[1] - 1, N_ROWS).astype(int))
    times = np.unique(np.linspace(0, len(scaled) - 1, N_TIMES).astype(int))
    return scaled[np.ix_(times, rows)].T, ~kept[times]


def read_group_connectivity(root: Path) -> list[Connectivity]:
    """Read the mean matrices of the group and its scores, by set of regions."""
    path, table = root / "group" / "connectivity.nc", root / "group" / "connectivity.tsv"
    if not path.is_file():
        return []
    rows = read_tsv(table) if table.is_file() else []
    found = []
    with open_dataset(path) as dataset:
        for variable in dataset.data_vars:
            seg = str(variable).removeprefix("mean_")
            if not str(variable).startswith("mean_"):
                continue
            measures = dataset[f"measure_{seg}"].values.astype(str).tolist()
            similar = {}
            if f"similarity_{seg}" in dataset:
                scored = dataset[f"scored_{seg}"].values.astype(str).tolist()
                tables = dataset[f"similarity_{seg}"].values
                similar = dict(zip(scored, tables, strict=True))
            found.append(
                Connectivity(
                    seg=seg,
                    names=dataset[f"roi_{seg}"].values.astype(str).tolist(),
                    networks=dataset[f"network_{seg}"].values.astype(str).tolist(),
                    centres=np.stack([dataset[f"{axis}_{seg}"].values for axis in "xyz"], 1),
                    matrices=dict(zip(measures, dataset[variable].values, strict=True)),
                    n_people=int(dataset[variable].attrs["n"]),
                    scores=[row for row in rows if row["seg"] == seg],
                    similarity=similar,
                )
            )
    return found
