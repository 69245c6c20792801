"""Shrinkage linear discriminant analysis (Blankertz et al. 2011, doi:10.1016/j.neuroimage.2010.06.048).

Of means over short windows of time: the plain baseline for evoked responses. What differs: each
feature is scaled by median and quartiles and clipped, so that an artefact does not set the scale;
the fit runs in the space the training trials span (which loses nothing of them, and costs trials
cubed instead of features cubed); the covariance is shrunk by the rule of Ledoit & Wolf (2004,
doi:10.1016/S0047-259X(03)00096-4) in that space, and classes count equally.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.decoding.conditions.classifier import ConditionClassifier, time_bins
from afterimage.decoding.conditions.registry import CLASSIFIERS
from afterimage.settings import Settings


class WindowLDASettings(Settings):
    """Settings of shrinkage LDA on time windows."""

    kind: Literal["window_lda"] = Field(
        "window_lda", description="Shrinkage LDA on means over windows of time."
    )
    bin_s: float = Field(0.04, gt=0, description="length of the windows")
    clip_sd: float = Field(
        3.0, gt=0, description="features are clipped at so many standard deviations"
    )


@CLASSIFIERS.register("window_lda", WindowLDASettings)
class WindowLDA(ConditionClassifier):
    """Linear discriminant analysis of the course of all channels."""

    settings: WindowLDASettings

    def extract(self, trials: np.ndarray) -> np.ndarray:
        """Mean of every channel and window of time, (n_trials, n_channels * n_bins)."""
        means = time_bins(trials[:, :, self.inside], self.sampling_rate_hz, self.settings.bin_s)
        return means.reshape(len(means), -1)

    def label_free(self) -> Any:
        """Scale, clip, and turn into the axes that the training trials span."""
        from sklearn.decomposition import PCA
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer, RobustScaler

        limits = {"a_min": -self.settings.clip_sd, "a_max": self.settings.clip_sd}
        clip = FunctionTransformer(np.clip, kw_args=limits)
        return make_pipeline(RobustScaler(unit_variance=True), clip, PCA(svd_solver="full"))

    def supervised(self, n_classes: int) -> Any:
        """LDA with a shrunk covariance and equal priors."""
        return shrinkage_lda(n_classes)


def shrinkage_lda(n_classes: int) -> Any:
    """Return an LDA whose covariance within classes is shrunk, with equal priors."""
    from sklearn.covariance import LedoitWolf
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=LedoitWolf(), priors=np.full(n_classes, 1 / n_classes)
    )
