"""Average of the volumes of a block (Shen et al. 2019, doi:10.1371/journal.pcbi.1006633).

For long stimuli shown back to back, where a model of single trials tells neighbours apart badly:
the mean of the signal from ``delay_s`` after the onset to ``delay_s`` after the end of the
stimulus. What differs: the nuisance (drift, confounds, constant) is projected out before, and
censored volumes do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.preprocess.fmri.design import RunDesign, orthonormal_basis
from afterimage.preprocess.fmri.registry import (
    ESTIMATORS,
    Estimates,
    Reader,
    batches,
    read_block,
)
from afterimage.settings import Settings

#: A volume of which the nuisance takes all but this share is censored: nothing of it is left.
CENSORED = 1e-6


class BlockAverageSettings(Settings):
    """Settings of the block average."""

    kind: Literal["block_average"] = Field(
        "block_average", description="Mean of the volumes of a block, moved by a delay."
    )
    delay_s: float = Field(
        4.0, ge=0, description="The window begins this long after the onset of the stimulus."
    )
    window_s: float | None = Field(
        None, gt=0, description="Length of the window; default: as long as the stimulus was on."
    )


@ESTIMATORS.register("block_average", BlockAverageSettings)
class BlockAverage:
    """Mean of cleaned volumes, from onset + delay to offset + delay.

    Volumes at the beginning of the window count, volumes at its end do not. A window without a
    volume takes the volume nearest to its middle.

    Parameters
    ----------
    settings : BlockAverageSettings
    """

    def __init__(self, settings: BlockAverageSettings) -> None:
        self.settings = settings
        self.summary_: dict[str, Any] = {}

    def estimate(
        self,
        designs: Sequence[RunDesign],
        read: Reader,
        n_voxels: int,
        *,
        n_voxels_batch: int = 2048,
    ) -> Iterator[Estimates]:
        """Yield the responses of all voxels, some at a time; see `ResponseEstimator`."""
        weights, counts = [], []
        for design in designs:
            basis = orthonormal_basis(design.nuisance)
            chosen = self.windows(design, basis)
            counts.append(chosen.sum(axis=1))
            average = chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)
            weights.append(average - (average @ basis) @ basis.T)
        for voxels in batches(designs, n_voxels, n_voxels_batch):
            found = [w @ read_block(designs, read, run, voxels) for run, w in enumerate(weights)]
            yield Estimates(voxels, np.concatenate(found).astype(np.float32))
        count = np.concatenate(counts) if counts else np.zeros(0)
        self.summary_ = {
            "n_trials": len(count),
            "n_volumes_median": float(np.median(count)) if len(count) else 0.0,
            "n_trials_without_volumes": int((count == 0).sum()),
        }

    def windows(self, design: RunDesign, basis: np.ndarray) -> np.ndarray:
        """Which volumes count for which trial, (n_trials, n_volumes) bool."""
        length_s = self.settings.window_s
        lengths = design.durations_s if length_s is None else np.full(design.n_trials, length_s)
        begin = (design.onsets_s + self.settings.delay_s)[:, None]
        times = design.volume_times_s[None]
        # a hundredth of a millisecond: onsets and times are sums of rounded numbers
        chosen = (times >= begin - 1e-5) & (times < begin + lengths[:, None] - 1e-5)
        empty = np.flatnonzero(~chosen.any(axis=1))
        middle = begin[empty] + lengths[empty, None] / 2
        chosen[empty, np.abs(times - middle).argmin(axis=1)] = True
        censored = 1 - (basis**2).sum(axis=1) < CENSORED
        return np.asarray(chosen & ~censored)
