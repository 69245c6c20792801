"""Regions as weights over voxels: atlases, masks, clusters (nilearn, doi:10.3389/fninf.2014.00014).

Signals of labelled regions are means, those of probabilistic maps are least squares, as in nilearn's
maskers. What differs: series are read in blocks of voxels, so that memory does not grow with
the image, and clusters (Ward, Thirion 2014, doi:10.3389/fnins.2014.00167) are fitted on a sample of
volumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from afterimage.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class Parcels:
    """Regions on the voxels of one subject.

    Attributes
    ----------
    weights : sparse array of shape (n_parcels, n_voxels), float32
        1 inside a labelled region; the values of a map.
    names : array of str, shape (n_parcels,)
        Each once.
    network : array of str, shape (n_parcels,)
        ``n/a`` where not known.
    coverage : array of shape (n_parcels,), float32
        Share of the region, as the atlas has it, that lies in the brain mask; NaN where not known.
    overlap : bool
        Whether the regions are maps that may overlap, whose signals are least squares.
    """

    weights: csr_array
    names: np.ndarray
    network: np.ndarray
    coverage: np.ndarray
    overlap: bool = False

    @property
    def n_voxels(self) -> np.ndarray:
        """Voxels of each region in the brain mask, (n_parcels,) int."""
        return np.diff(self.weights.indptr)

    def select(self, chosen: np.ndarray) -> Parcels:
        """Return some of the regions, by a mask."""
        weights = self.weights[np.flatnonzero(chosen)]
        return Parcels(
            weights, self.names[chosen], self.network[chosen], self.coverage[chosen], self.overlap
        )

    def centres(self, points: np.ndarray) -> np.ndarray:
        """Return the weighted centre of each region; ``points`` (n_voxels, 3) to (n_parcels, 3)."""
        total = np.asarray(self.weights.sum(axis=1)).reshape(-1, 1)
        return np.asarray(self.weights @ points) / np.where(total > 0, total, np.nan)


def label_table(
    rows: Sequence[Mapping[str, str]] | None, values: np.ndarray, where: str
) -> dict[int, tuple[str, str]]:
    """Return name and network of every label of an atlas image.

    Parameters
    ----------
    rows : sequence of dict or None
        Its table: ``index``, ``name`` and where known ``network`` (or ``network_label``); None
        where there is no table: labels are then named by their numbers.
    values : array of int
        Labels that occur in the image, background left out.
    where : str
        The table, for error messages.

    Raises
    ------
    InputError
        If the table has a label or a name twice, lacks a label of the image, or has labels that are
        not in the image.
    """
    if rows is None:
        return {int(value): (f"region{int(value):04d}", "n/a") for value in values}
    table: dict[int, tuple[str, str]] = {}
    named: dict[str, int] = {}
    for row in rows:
        try:
            index = int(float(row["index"]))
        except (ValueError, OverflowError):
            raise InputError(
                "a table of regions has an index that is no number", where=where,
                found=row["index"], expected="a whole number, the label in the image",
                fix="correct the column index",
            ) from None  # fmt: skip
        if index == 0:
            continue  # the background
        name = row["name"]
        if index in table or name in named:
            raise InputError(
                "a table of regions has an entry twice", where=where,
                found=f"index {index}, name {name!r}", expected="each index and each name once",
                fix="correct the table; give regions of both hemispheres different names",
            )  # fmt: skip
        network = row.get("network", row.get("network_label", "n/a")) or "n/a"
        table[index], named[name] = (name, network), index
    present = {int(value) for value in values}
    for what, extra in (("image", present - set(table)), ("table", set(table) - present)):
        if extra:
            first = ", ".join(map(str, sorted(extra)[:10]))
            raise InputError(
                "the table of an atlas does not belong to its image", where=where,
                found=f"{len(extra)} labels only in the {what}: {first}",
                expected="the same labels in both",
                fix="give the table of this image: index and name, one row a label",
            )  # fmt: skip
    return table


def whole_labels(image: np.ndarray, where: str) -> np.ndarray:
    """Return a label image as int32; raise where its values are no labels."""
    rounded = np.rint(image)
    if np.abs(image - rounded).max(initial=0) > 1e-3 or rounded.min(initial=0) < 0:
        raise InputError(
            "an atlas has values that are no labels", where=where,
            found=f"values from {image.min():g} to {image.max():g}",
            expected="whole numbers, 0 outside; or four dimensions, one map a region",
            fix="was it resampled with interpolation? resample it by nearest neighbour",
        )  # fmt: skip
    return rounded.astype(np.int32)


def check_overlap(in_brain: float, where: str, min_overlap: float) -> None:
    """Raise where too small a share of an atlas lies in the brain mask."""
    if in_brain < min_overlap:
        raise InputError(
            "an atlas is in another space than the images", where=where,
            found=f"{100 * in_brain:.0f} % of its labelled volume lies in the brain mask",
            expected=f"{100 * min_overlap:.0f} % or more",
            fix="give the atlas in the space of the BOLD images, or BOLD in the space of the atlas "
            "(fMRIPrep: --output-spaces MNI152NLin2009cAsym, then --space)",
        )  # fmt: skip


def share_in_mask(
    weights: np.ndarray, affine: np.ndarray, mask: np.ndarray, mask_affine: np.ndarray
) -> float:
    """Return the share of the volume of an atlas that lies in a mask, by world coordinates.

    Parameters
    ----------
    weights : array of shape (x, y, z)
        What is not 0 is labelled.
    affine, mask_affine : array of shape (4, 4)
        Voxel indices to mm.
    mask : array of bool, shape (i, j, k)
    """
    points = np.argwhere(weights != 0)
    world = points @ affine[:3, :3].T + affine[:3, 3]
    inverse = np.linalg.inv(mask_affine)
    index = np.rint(world @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    inside = ((index >= 0) & (index < mask.shape)).all(axis=1)
    hits = np.zeros(len(index), dtype=bool)
    hits[inside] = mask[tuple(index[inside].T)]
    return float(hits.mean()) if len(hits) else 0.0


def from_labels(
    labels: np.ndarray, table: Mapping[int, tuple[str, str]], sizes: Mapping[int, float]
) -> Parcels:
    """Make regions of labels.

    Parameters
    ----------
    labels : array of int, shape (n_voxels,)
        0 outside all.
    table : dict
        Label to name and network; the order of the regions is that of the labels.
    sizes : dict
        Label to its size in the atlas, in voxels of the grid of ``labels``; may be empty.
    """
    from scipy.sparse import csr_array

    indices = np.array(sorted(table), dtype=int)
    voxels = np.flatnonzero(np.isin(labels, indices))
    rows = np.searchsorted(indices, labels[voxels])
    ones = np.ones(len(voxels), dtype=np.float32)
    weights = csr_array((ones, (rows, voxels)), shape=(len(indices), len(labels)))
    counts = np.diff(weights.indptr)
    size = np.array([sizes.get(int(index), np.nan) for index in indices])
    return Parcels(
        weights,
        np.array([table[int(index)][0] for index in indices]),
        np.array([table[int(index)][1] for index in indices]),
        np.minimum(counts / np.where(size > 0, size, np.nan), 1.0).astype(np.float32),
    )


def extract(
    read: Callable[[slice], np.ndarray], parcels: Parcels, n_voxels_batch: int = 8192
) -> np.ndarray:
    """Return the signal of every region, reading the series in blocks of voxels.

    Parameters
    ----------
    read : callable
        ``read(slice)`` gives (n_times, n) values of these voxels.
    parcels : Parcels
        Every region has a voxel.
    n_voxels_batch : int
        Voxels read at a time; the result does not depend on it beyond rounding.

    Returns
    -------
    array of shape (n_times, n_parcels), float64
        Means over the voxels of a label; of maps M, the least squares (M M')^-1 M Y.
    """
    weights = parcels.weights.tocsc()
    total: np.ndarray | None = None
    for start in range(0, weights.shape[1], n_voxels_batch):
        block = weights[:, start : start + n_voxels_batch]
        if not block.nnz:
            continue
        values = read(slice(start, start + n_voxels_batch)).astype(np.float64)
        part = (block @ values.T).T
        total = part if total is None else total + part
    assert total is not None  # noqa: S101  (every region has a voxel)
    if not parcels.overlap:
        return np.asarray(total / parcels.n_voxels)
    gram = (parcels.weights @ parcels.weights.T).toarray().astype(np.float64)
    return np.asarray(np.linalg.lstsq(gram, total.T, rcond=None)[0].T)


def cluster_voxels(
    series: np.ndarray, mask: np.ndarray, n_parcels: int, method: str, random_state: int = 0
) -> np.ndarray:
    """Cluster voxels by their series; neighbours only, but for k-means.

    Parameters
    ----------
    series : array of shape (n_times, n_voxels)
        Cleaned; the voxels of ``mask`` in C order.
    mask : array of bool, shape (x, y, z)
    n_parcels : int
        Clusters wanted.
    method : str
        ``ward``, ``kmeans`` or ``rena`` (nilearn's recursive nearest agglomeration).
    random_state : int
        Seed of k-means.

    Returns
    -------
    array of int, shape (n_voxels,)
        1 to ``n_parcels``, numbered by their first voxel.
    """
    spread = series.std(axis=0)
    features = (series - series.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    if method == "ward":
        from sklearn.cluster import AgglomerativeClustering
        from sklearn.feature_extraction.image import grid_to_graph

        near = grid_to_graph(*mask.shape, mask=mask)
        model = AgglomerativeClustering(n_clusters=n_parcels, connectivity=near, linkage="ward")
        found = model.fit(features.T).labels_
    elif method == "kmeans":
        from sklearn.cluster import MiniBatchKMeans

        model = MiniBatchKMeans(n_clusters=n_parcels, random_state=random_state, n_init=3)
        found = model.fit(features.T).labels_
    else:
        import nibabel
        from nilearn.regions import ReNA

        image = nibabel.Nifti1Image(mask.astype(np.uint8), np.eye(4))
        found = ReNA(image, n_clusters=n_parcels).fit(features).labels_
    # Numbered by place, so that the same clusters have the same numbers.
    first = {label: index for index, label in reversed(list(enumerate(found.tolist())))}
    rank = {label: number for number, label in enumerate(sorted(first, key=lambda k: first[k]), 1)}
    return np.array([rank[label] for label in found.tolist()])
