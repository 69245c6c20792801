"""A small brain for the tests of regions and series."""

from __future__ import annotations

import numpy as np

SHAPE = (10, 12, 8)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
AFFINE[:3, 3] = [-15, -18, -12]


def make_mask() -> np.ndarray:
    """Make an ellipsoid without its corners, which fills most of the grid."""
    axes = np.meshgrid(*[np.linspace(-1.2, 1.2, n) for n in SHAPE], indexing="ij")
    return np.asarray(sum(np.square(axis) for axis in axes) < 2.2)


def slabs(n: int = 4) -> np.ndarray:
    """Make an atlas of slabs along y, labels 1 to n."""
    labels = np.zeros(SHAPE, dtype=np.int32)
    for index, part in enumerate(np.array_split(np.arange(SHAPE[1]), n), 1):
        labels[:, part] = index
    return labels
