"""Graphs of people as features: measures of regions, and maps of voxels on common nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from afterimage.bids.entities import natural_key, parse_name
from afterimage.bids.files import RAW_SPACES
from afterimage.bids.names import entity
from afterimage.errors import InputError
from afterimage.io.arrays import open_dataset
from afterimage.io.tables import Row, read_tsv
from afterimage.stages.phenotype_files import People, rows_of_sessions

#: What the set of regions is called where the units are voxels.
VOXELS = "voxels"
#: Spaces in which two people's voxels are not the same places.
OWN_SPACES = RAW_SPACES | {"", "T1w", "T2w", "individual", "fsnative"}
#: Nodes that people have in common, as a share of those of the person with the fewest, at least.
MIN_COMMON = 0.5


def cubes_of(points: np.ndarray, node_mm: float) -> np.ndarray:
    """Return the cube of space that each point lies in, the same in all people.

    Parameters
    ----------
    points : array of shape (n_points, 3)
        In mm; a cube that ends at the origin of the space begins another one there.
    node_mm : float
        Edge of a cube.

    Returns
    -------
    array of int64, shape (n_points, 3)
    """
    return np.floor(np.asarray(points, np.float64) / node_mm + 1e-4).astype(np.int64)


# ---- regions ---------------------------------------------------------------------------------


def read_graphs(
    people: People, files: Sequence[Path], density: float | None
) -> dict[str, np.ndarray]:
    """Read what `measure_graphs` says of every person's regions.

    Parameters
    ----------
    people : People
    files : sequence of Path
        ``_graphs.tsv`` of all people and sets of regions.
    density : float or None
        Of the graphs; None: the first in the tables.

    Returns
    -------
    dict of str to array of shape (n_rows, n_features), float64
        ``degree``, ``strength``, ``clustering``, ``cycles``: one feature a region; ``distance``:
        degree by region and band; ``modules``: 1 for pairs of regions that share a module.

    Raises
    ------
    InputError
        If a person has no graph of these regions and this density.
    """
    by_person = {entity(p, "sub"): p for p in files if f"_seg-{people.seg}_" in p.name}
    tables = [
        _graph_rows(people, row, by_person.get(subject), density)
        for row, subject in enumerate(people.subjects)
    ]
    names = [name for name in tables[0][0] if all(name in rows[0] for rows in tables)]
    bands = [name for name in names if name.startswith("degree") and name != "degree"]
    found = {
        name: np.array([[float(row[name]) for row in rows] for rows in tables])
        for name in ("degree", "strength", "clustering", "cycles")
    }
    if bands:
        found["distance"] = np.array(
            [[float(row[name]) for name in bands for row in rows] for rows in tables]
        )
    module = np.array([[int(row["module"]) for row in rows] for rows in tables])
    lower = np.tril_indices(module.shape[1], -1)
    found["modules"] = (module[:, lower[0]] == module[:, lower[1]]).astype(np.float64)
    return found


def _graph_rows(people: People, row: int, path: Path | None, density: float | None) -> list[Row]:
    """Return the rows of one person's graph, in the order of the regions that all have."""
    where = f"sub-{people.subjects[row]}"
    rows = read_tsv(path) if path is not None else []
    session = people.sessions[row] or "n/a"
    # A person with one session has the rows over all recordings only.
    own = [r for r in rows if r["session"] == session] or [
        r for r in rows if r["session"] == "n/a" and r["n_sessions"] == "1"
    ]
    chosen = own[0]["density"] if own and density is None else f"{density:g}" if density else ""
    of = {r["roi"]: r for r in own if r["density"] == chosen}
    if any(name not in of for name in people.units):
        raise InputError(
            "a person has no graph of the regions that all have", where=where,
            found=f"{len(of)} regions in {path.name if path else 'no table'}, density {chosen or 'none'}",
            expected=f"{len(people.units)} regions in session {session}",
            fix="set predict_phenotypes.graph_density to one of measure_graphs.densities",
        )  # fmt: skip
    return [of[name] for name in people.units]


# ---- voxels ----------------------------------------------------------------------------------


def read_mapped(files: Sequence[Path], sessions: str) -> People | str:
    """Say who has maps of voxels, one row a person or a person and session; else why not.

    Parameters
    ----------
    files : sequence of Path
        ``_graphs.nc`` of `map_graphs`.
    sessions : str
        As for `read_people`.

    Returns
    -------
    People or str
        ``units`` is empty; a reason where voxels of two people are not the same places.
    """
    picked: dict[str, list] = {
        name: [] for name in ("subjects", "sessions", "files", "recordings", "names", "censored")
    }
    spaces, measures = set(), []
    for path in files:
        with open_dataset(path) as dataset:
            spaces.add(str(dataset.attrs.get("space", "")))
            labels = dataset["recording"].values.astype(str).tolist()
            measures.append(dataset["measure"].values.astype(str).tolist())
            n_out, n_used = dataset["n_censored"].values, dataset["n_samples"].values
        parsed = [parse_name(f"{label}_bold.nii.gz") for label in labels]
        found = np.array([name.entities.get("ses", "n/a") if name else "n/a" for name in parsed])
        for label, chosen in rows_of_sessions(found, sessions):
            out = float(n_out[chosen].sum())
            picked["subjects"].append(entity(path, "sub"))
            picked["sessions"].append(label)
            picked["files"].append(path)
            picked["recordings"].append(chosen)
            picked["names"].append({labels[index] for index in chosen})
            picked["censored"].append(out / max(out + float(n_used[chosen].sum()), 1.0))
    if len(spaces) > 1 or spaces & OWN_SPACES:
        said = ", ".join(sorted((space or "the scanner's" for space in spaces), key=natural_key))
        return (
            f"maps of voxels are not compared, as people's are in spaces of their own ({said}): "
            "read images in a standard space (--space)"
        )
    if not picked["subjects"]:
        return f"nobody has a map of voxels in session {sessions}"
    shared = [name for name in measures[0] if all(name in own for own in measures)]
    return People(seg=VOXELS, units=[], measures=shared, **picked)


def read_maps(people: People, measure: str) -> np.ndarray:
    """Read a map of everybody on the nodes that all have, averaged over recordings.

    Parameters
    ----------
    people : People
        From `read_mapped`.
    measure : str
        A measure of the maps, or ``density``, of the graphs.

    Returns
    -------
    array of shape (n_rows, n_nodes), float32; one column for ``density``

    Raises
    ------
    InputError
        If the map was not made, or people have few nodes in common.
    """
    if measure != "density" and measure not in people.measures:
        raise InputError(
            "there is no such map of voxels", where="predict_phenotypes.voxel_maps",
            found=measure, expected=", ".join(people.measures), fix="correct its name",
        )  # fmt: skip
    values: list[dict[tuple[int, ...], float]] = []
    density = []
    for path, chosen in zip(people.files, people.recordings, strict=True):
        with open_dataset(path) as dataset:
            density.append(float(dataset["density"].values[chosen].mean()))
            if measure == "density":
                continue
            index = dataset["measure"].values.astype(str).tolist().index(measure)
            mean = dataset["maps"].values[chosen, index].mean(axis=0)
            centres = np.stack([dataset[axis].values for axis in "xyz"], axis=1)
            cubes = cubes_of(centres, float(dataset.attrs["node_mm"]))
        values.append(dict(zip(map(tuple, cubes.tolist()), mean.tolist(), strict=True)))
    if measure == "density":
        return np.array(density)[:, None]
    common = set(values[0]).intersection(*values[1:])
    fewest = min(map(len, values))
    if len(common) < max(2, MIN_COMMON * fewest):
        raise InputError(
            "people have few voxels in common", where="map_graphs",
            found=f"{len(common)} nodes of at least {fewest} a person",
            expected=f"{MIN_COMMON:.0%} or more", fix="leave people of small coverage out",
        )  # fmt: skip
    order = sorted(common)
    return np.array([[own[cube] for cube in order] for own in values], dtype=np.float32)
