"""Say which voxels of one subject make up each region: an atlas, masks, or clusters."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from afterimage.bids.entities import parse_name
from afterimage.bids.files import RAW_SPACES
from afterimage.bids.names import entity, unit_of
from afterimage.errors import InputError
from afterimage.io.arrays import open_dataset, write_dataset
from afterimage.io.nifti import open_bold, read_volume, write_nifti
from afterimage.io.series import Series, open_series
from afterimage.io.tables import Row, read_tsv, write_tsv
from afterimage.preprocess.fmri.confounds import cosine_drift
from afterimage.preprocess.fmri.masks import same_grid, to_grid
from afterimage.preprocess.fmri.parcels import (
    Parcels,
    check_overlap,
    cluster_voxels,
    from_labels,
    label_table,
    share_in_mask,
    whole_labels,
)
from afterimage.settings import StageConfig
from afterimage.stages.response_maps import label_rois

VERSION = 1
CITES = ("abraham2014", "thirion2014")
#: Labels of the regions that come from masks of the subject, and of those found by clustering.
ROIS, CLUSTERS = "rois", "clusters"
COLUMNS = ("index", "name", "network", "n_voxels", "coverage", "x", "y", "z", "status")

log = logging.getLogger("afterimage")


class Config(StageConfig):
    """Where the regions come from that series are extracted of."""

    atlases: dict[str, str] = Field(
        default={},
        description="label: path of an atlas image (absolute, or below the dataset), its table .tsv "
        "beside it; empty: masks of regions where the dataset has them, else clusters",
    )
    n_parcels: int = Field(100, ge=2, description="clusters, where there is no atlas and no mask")
    clustering: Literal["ward", "rena", "kmeans"] = Field(
        "ward", description="how voxels are clustered; ward and rena join neighbours only"
    )
    max_volumes: int = Field(
        400, ge=10, description="volumes of the first session that clusters are fitted on"
    )
    min_overlap: float = Field(
        0.5, ge=0, le=1, description="an atlas with a smaller share in the brain mask is refused"
    )
    min_voxels: int = Field(1, ge=1, description="a region with fewer voxels is left out")
    map_threshold: float = Field(
        0.0, ge=0, description="values of probabilistic maps up to this are set to 0"
    )
    trust_space: bool = Field(
        False, description="use an atlas although its name says another space than the images"
    )
    random_state: int | None = Field(None, description="seed of k-means; default: the root seed")

    @field_validator("atlases")
    @classmethod
    def _labels(cls, atlases: dict[str, str]) -> dict[str, str]:
        for name in atlases:
            if not (name.isalnum() and name.isascii()) or name in (ROIS, CLUSTERS, "sensors"):
                raise ValueError(
                    f"the label {name!r} must be letters and digits only (it becomes part of file "
                    f"names), and not {ROIS}, {CLUSTERS} or sensors"
                )
        return atlases


@dataclass(frozen=True)
class Inputs:
    """What the stage reads; which of `atlas` and `rois` count is said by the label asked for."""

    series: tuple[Path, ...]
    bold: tuple[Path, ...]
    mask: Path
    dataset: Path
    atlas: tuple[Path, ...] = ()
    rois: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: weights over voxels, and a table with all regions, kept or not."""

    parcels: Path
    table: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Make the regions of one label, and drop those without voxels."""
    seg = entity(outputs.parcels, "seg")
    data, affine = read_volume(inputs.mask)
    mask = np.asarray(data > 0)
    notes: list[str] = []
    with ExitStack() as stack:
        opened = [(path, stack.enter_context(open_series(path))) for path in inputs.series]
        usable = [(path, series) for path, series in opened if not series.attrs.get("problem")]
        if not usable:
            raise InputError(
                "a subject has no run to take series from", where=unit_of(outputs.parcels),
                found=f"{len(opened)} runs, all left out", expected="one that can be used",
                fix="see what is said of each run",
            )  # fmt: skip
        if seg == ROIS:
            regions, notes = label_rois(
                inputs.rois, inputs.dataset.parent, usable[0][1], outputs.parcels, "parcellate"
            )
            names = sorted(set(regions.tolist()) - {"n/a"})
            number = {name: index for index, name in enumerate(names, 1)}
            labels = np.array([number.get(name, 0) for name in regions.tolist()])
            parcels = from_labels(labels, {i: (n, "n/a") for n, i in number.items()}, {})
        elif seg == CLUSTERS:
            parcels = _clusters(usable, mask, config, notes)
        else:
            _check_space(inputs.atlas[0], inputs.bold[0], config)
            parcels = _from_atlas(inputs.atlas, mask, affine, config)
    _write(outputs, parcels, mask, affine, config, notes, seg)


def _check_space(atlas: Path, bold: Path, config: Config) -> None:
    """Raise where the names of atlas and images say different spaces."""
    said = parse_name(atlas.name)
    entities = said.entities if said else {}
    own = entities.get("space", entities.get("tpl", ""))
    if not own and "mni" in atlas.name.lower():
        own = "MNI"
    image = parse_name(bold.name)
    space = image.entities.get("space", "") if image else ""
    space = "" if space in RAW_SPACES else space
    # Versions of the MNI template differ by millimetres; the person differs by centimetres.
    same = own == space or (own.startswith("MNI") and space.startswith("MNI"))
    if own and own not in RAW_SPACES and not same and not config.trust_space:
        raise InputError(
            "an atlas is in another space than the images", where=f"{unit_of(bold)}, {atlas.name}",
            found=f"an atlas in {own}, images in {space or 'the space of the scanner'}",
            expected="both in one space",
            fix="read fMRIPrep output in the space of the atlas (--space), or set "
            "parcellate.trust_space if the name is wrong",
        )  # fmt: skip


def _from_atlas(
    files: tuple[Path, ...], mask: np.ndarray, affine: np.ndarray, config: Config
) -> Parcels:
    """Bring an atlas to the grid of the subject: labels by nearest neighbour, maps linearly."""
    path, where = files[0], str(files[0])
    rows = read_tsv(files[1], required=("index", "name")) if len(files) > 1 else None
    if len(open_bold(path, 1).image.shape) > 3:
        return _from_maps(path, rows, mask, affine, config)
    image, image_affine = read_volume(path)
    labels = whole_labels(image, where)
    values = np.unique(labels[labels > 0])
    if not len(values):
        raise InputError(
            "an atlas is empty", where=where, found="no voxel with a label",
            expected="labels from 1 on", fix="give another image",
        )  # fmt: skip
    table = label_table(rows, values, str(files[1]) if rows is not None else where)
    check_overlap(share_in_mask(labels, image_affine, mask, affine), where, config.min_overlap)
    on_grid = to_grid(labels, image_affine, mask.shape, affine, where=where)
    volume = abs(np.linalg.det(image_affine[:3, :3]) / np.linalg.det(affine[:3, :3]))
    found, counts = np.unique(labels, return_counts=True)
    sizes = {int(v): float(n) * volume for v, n in zip(found, counts, strict=True)}
    return from_labels(on_grid[mask], table, sizes)


def _from_maps(
    path: Path, rows: list[Row] | None, mask: np.ndarray, affine: np.ndarray, config: Config
) -> Parcels:
    """Read a probabilistic atlas map by map."""
    import nibabel
    from nilearn.image import resample_img
    from scipy.sparse import csr_array, vstack

    maps = open_bold(path, 1)
    if rows is not None and len(rows) != maps.n_volumes:
        raise InputError(
            "the table of an atlas does not belong to its image", where=str(path),
            found=f"{len(rows)} rows, {maps.n_volumes} maps", expected="one row a map, in order",
            fix="give the table of this image",
        )  # fmt: skip
    table = label_table(rows, np.arange(1, maps.n_volumes + 1), str(path)) if rows else None
    names = list(table.values()) if table else []
    weights, sums, inside = [], [], []
    same = same_grid(maps.shape, maps.affine, mask.shape, affine)
    for _, block in maps.blocks(volumes_per_block=1):
        values = np.nan_to_num(block[..., 0])
        values[values <= config.map_threshold] = 0
        inside.append((share_in_mask(values, maps.affine, mask, affine), np.count_nonzero(values)))
        if not same:
            image = nibabel.Nifti1Image(values, maps.affine)
            values = np.asarray(resample_img(
                image, target_affine=affine, target_shape=mask.shape,
                interpolation="continuous", copy_header=True, force_resample=True,
            ).dataobj)  # fmt: skip
            values[np.abs(values) < 1e-3 * np.abs(values).max(initial=0)] = 0
        sums.append(float(values.sum()))
        weights.append(csr_array(values[mask].astype(np.float32)[None, :]))
    share = np.average([part[0] for part in inside], weights=[part[1] + 1e-9 for part in inside])
    check_overlap(float(share), str(path), config.min_overlap)
    stacked = csr_array(vstack(weights, format="csr"))
    covered = np.asarray(stacked.sum(axis=1)).ravel() / np.where(np.array(sums) > 0, sums, np.nan)
    number = range(maps.n_volumes)
    return Parcels(
        stacked,
        np.array([names[i][0] if names else f"map{i + 1:04d}" for i in number]),
        np.array([names[i][1] if names else "n/a" for i in number]),
        covered.astype(np.float32),
        overlap=True,
    )


def _clusters(
    usable: list[tuple[Path, Series]], mask: np.ndarray, config: Config, notes: list[str]
) -> Parcels:
    """Cluster the voxels by the runs of the first session, so that later ones stay unseen."""
    sessions = [_session(path) for path, _ in usable]
    first = sessions[0]
    chosen = [series for (_, series), own in zip(usable, sessions, strict=True) if own == first]
    each = max(1, config.max_volumes // len(chosen))
    parts = []
    for series in chosen:
        values = series.read().astype(np.float32)
        rate = float(series.attrs["sampling_rate_hz"])
        drift = cosine_drift(len(values), 1 / rate, 0.01)
        basis = np.linalg.qr(np.column_stack([drift, np.ones(len(values))]))[0].astype(np.float32)
        values -= basis @ (basis.T @ values)
        kept = np.flatnonzero(~series.censored)
        taken = kept[np.unique(np.linspace(0, len(kept) - 1, min(each, len(kept))).astype(int))]
        spread = values[taken].std(axis=0)
        parts.append(values[taken] / np.where(spread > 0, spread, 1.0))
        del values
    n_parcels = min(config.n_parcels, int(mask.sum()) // 4)
    labels = cluster_voxels(
        np.concatenate(parts), mask, n_parcels, config.clustering, config.random_state or 0
    )
    found = np.unique(labels)
    notes.append(
        f"regions are {len(found)} clusters of voxels ({config.clustering}), fitted on "
        f"{sum(map(len, parts))} volumes of {len(chosen)} runs"
        + (f" of session {first}" if first != "n/a" else "")
    )
    return from_labels(labels, {int(v): (f"cluster{int(v):04d}", "n/a") for v in found}, {})


def _session(path: Path) -> str:
    name = parse_name(path.name)
    return name.entities.get("ses", "n/a") if name else "n/a"


def _write(
    outputs: Outputs,
    parcels: Parcels,
    mask: np.ndarray,
    affine: np.ndarray,
    config: Config,
    notes: list[str],
    seg: str,
) -> None:
    """Write the regions that have voxels; the table lists the others too."""
    import xarray

    points = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    good = parcels.n_voxels >= config.min_voxels
    centres = parcels.centres(points)
    rows = [
        {
            "index": index + 1, "name": str(parcels.names[index]),
            "network": str(parcels.network[index]), "n_voxels": int(parcels.n_voxels[index]),
            "coverage": float(parcels.coverage[index]),
            **{axis: float(centres[index, n]) for n, axis in enumerate("xyz")},
            "status": "used" if good[index] else "no voxels in the brain mask",
        }
        for index in range(len(parcels.names))
    ]  # fmt: skip
    if good.sum() < 2:
        raise InputError(
            "fewer than two regions have voxels in the brain", where=str(outputs.table.name),
            found=f"{int(good.sum())} of {len(good)}", expected="two or more",
            fix="check the space of the atlas or the masks",
        )  # fmt: skip
    if not good.all():
        lost = parcels.names[~good]
        notes.append(
            f"{len(lost)} regions have no voxels in the brain and were left out: "
            + ", ".join(lost[:8]) + (", ..." if len(lost) > 8 else "")
        )  # fmt: skip
    chosen = parcels.select(good)
    entries = chosen.weights.tocoo()
    own: dict[str, Any] = {
        "name": ("parcel", chosen.names.astype(object)),
        "network": ("parcel", chosen.network.astype(object)),
        "coverage": ("parcel", chosen.coverage),
        **{axis: ("parcel", centres[good, n].astype(np.float32)) for n, axis in enumerate("xyz")},
    }
    dataset = xarray.Dataset(
        {
            "voxel": ("entry", entries.coords[1].astype(np.int32)),
            "parcel_of_entry": ("entry", entries.coords[0].astype(np.int32)),
            "weight": ("entry", entries.data.astype(np.float32)),
        },
        coords=own,
        attrs={
            "seg": seg, "overlap": int(chosen.overlap), "n_voxels": int(mask.sum()),
            # Clusters of two people are different regions.
            "individual": int(seg == CLUSTERS), "notes": "; ".join(notes),
        },
    )  # fmt: skip
    write_tsv(outputs.table, rows, COLUMNS)
    write_dataset(outputs.parcels, dataset)
    if not chosen.overlap:
        volume = np.zeros(mask.shape, dtype=np.int32)
        flat = np.zeros(int(mask.sum()), dtype=np.int32)
        # The numbers of the table.
        flat[entries.coords[1]] = (np.flatnonzero(good) + 1)[entries.coords[0]]
        volume[mask] = flat
        name = outputs.parcels.name.replace("_parcels.nc", "_dseg.nii.gz")
        write_nifti(outputs.parcels.with_name(name), volume, affine)
    for note in notes:
        log.info("%s", note)


def read_parcels(path: Path) -> tuple[Parcels, dict[str, np.ndarray], dict[str, Any]]:
    """Read what the stage wrote: regions, their coordinates ``x y z``, and attributes."""
    from scipy.sparse import csr_array

    with open_dataset(path) as dataset:
        names = dataset["name"].values.astype(str)
        shape = (len(names), int(dataset.attrs["n_voxels"]))
        place = (dataset["parcel_of_entry"].values, dataset["voxel"].values)
        parcels = Parcels(
            csr_array((dataset["weight"].values, place), shape=shape),
            names,
            dataset["network"].values.astype(str),
            dataset["coverage"].values,
            bool(dataset.attrs["overlap"]),
        )
        centres = {axis: dataset[axis].values for axis in "xyz"}
        return parcels, centres, dict(dataset.attrs)
