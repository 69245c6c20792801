"""Common spatial patterns (Ramoser, Mueller-Gerking & Pfurtscheller 2000, doi:10.1109/86.895946).

Spatial filters whose power differs most between classes (pyriemann), log power, then shrinkage LDA.
What differs: the covariance of each trial is shrunk (oracle approximating shrinkage) and computed
once, however often the labels are permuted; and of more than two classes the filters that show the
most mutual information are kept (Grosse-Wentrup & Buss 2008, doi:10.1109/TBME.2008.921154).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.decoding.conditions.classifier import (
    ConditionClassifier,
    band_pass,
    oas_covariances,
)
from afterimage.decoding.conditions.registry import CLASSIFIERS
from afterimage.settings import Settings


class CSPLDASettings(Settings):
    """Settings of common spatial patterns and LDA."""

    kind: Literal["csp_lda"] = Field(
        "csp_lda", description="Common spatial patterns, log power, shrinkage LDA."
    )
    n_components: int = Field(4, ge=1, description="spatial filters that are kept")
    low_hz: float | None = Field(8.0, gt=0, description="lower edge of the band; null: none")
    high_hz: float | None = Field(30.0, gt=0, description="upper edge of the band; null: none")


@CLASSIFIERS.register("csp_lda", CSPLDASettings)
class CSPLDA(ConditionClassifier):
    """Log power through common spatial patterns: for oscillations such as the motor rhythm."""

    settings: CSPLDASettings

    def extract(self, trials: np.ndarray) -> np.ndarray:
        """Shrunk covariance of each trial in the band, (n_trials, n_channels, n_channels)."""
        filtered = band_pass(
            trials, self.sampling_rate_hz, self.settings.low_hz, self.settings.high_hz
        )
        return oas_covariances(filtered[:, :, self.inside])

    def supervised(self, n_classes: int) -> Any:
        """Spatial filters and LDA, both from the labels of the training trials."""
        from pyriemann.spatialfilters import CSP
        from sklearn.pipeline import make_pipeline

        return make_pipeline(CSP(self.settings.n_components, log=True), shrinkage_lda(n_classes))


def shrinkage_lda(n_classes: int) -> Any:
    """Return an LDA whose covariance within classes is shrunk, with equal priors."""
    from sklearn.covariance import LedoitWolf
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=LedoitWolf(), priors=np.full(n_classes, 1 / n_classes)
    )
