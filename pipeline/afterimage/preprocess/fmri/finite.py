"""Values of a run that are not finite: filled in where they are few, counted, and judged."""

from __future__ import annotations

import numpy as np

#: A volume is censored where more than this share of the brain is not finite.
CENSOR_SHARE = 0.01


class FiniteFilter:
    """Fill values that are not finite, block by block, and count them.

    A value that is not finite takes the last finite value of its voxel in the run (at the start of
    the run, the first of the block; 0 where there is none). So an isolated damaged value or volume
    does no harm to the interpolations that follow; damaged volumes are censored afterwards.

    Parameters
    ----------
    brain : array of bool, shape (x, y, z)
        Voxels of the brain on the grid of the run.

    Attributes
    ----------
    n_outside : int
        Values filled outside the brain.
    """

    def __init__(self, brain: np.ndarray) -> None:
        self._brain = brain
        self._last: np.ndarray | None = None
        self._per_volume: list[np.ndarray] = []
        self.n_outside = 0
        self._voxels = np.zeros(brain.shape, dtype=bool)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Return a block of shape (x, y, z, k), float32, with finite values only."""
        bad = ~np.isfinite(block)
        n_bad = bad.sum(axis=(0, 1, 2))
        in_brain = bad[self._brain].sum(axis=0)
        self._per_volume.append(in_brain)
        self.n_outside += int((n_bad - in_brain).sum())
        if n_bad.any():
            self._voxels |= bad.any(axis=3)
            block = self._filled(block, bad)
        self._last = block[..., -1].copy()
        return block

    def _filled(self, block: np.ndarray, bad: np.ndarray) -> np.ndarray:
        block = block.copy()
        last = self._last
        if last is None:
            first = np.argmin(bad, axis=3)[..., None]  # 0 where no value is finite
            last = np.take_along_axis(block, first, axis=3)[..., 0]
            last = np.nan_to_num(last, nan=0.0, posinf=0.0, neginf=0.0)
        for volume in range(block.shape[3]):
            values = block[..., volume]
            np.copyto(values, last, where=bad[..., volume])
            last = values
        return block

    @property
    def n_voxels(self) -> int:
        """Voxels of the brain that had any value that is not finite."""
        return int((self._voxels & self._brain).sum())

    @property
    def share(self) -> float:
        """Share of the brain's values that were not finite."""
        counts = np.concatenate(self._per_volume)
        return float(counts.sum() / max(1, len(counts) * int(self._brain.sum())))

    @property
    def damaged(self) -> np.ndarray:
        """Volumes in which more than `CENSOR_SHARE` of the brain was not finite, bool."""
        counts = np.concatenate(self._per_volume)
        return np.asarray(counts > CENSOR_SHARE * max(1, int(self._brain.sum())))

    def notes(self) -> list[str]:
        """Return what was filled, in words; empty where all was finite."""
        said = []
        if self.n_outside:
            said.append(f"{self.n_outside} values outside the brain were not finite; filled")
        if n_bad := int(np.concatenate(self._per_volume).sum()):
            said.append(
                f"{n_bad} values in {self.n_voxels} voxels of the brain were not finite; each "
                "took the last finite value of its voxel"
            )
        if n_damaged := int(self.damaged.sum()):
            said.append(f"{n_damaged} volumes with many values that were not finite are censored")
        return said
