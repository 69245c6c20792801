"""Tangent-space classification (Barachant et al. 2012, doi:10.1109/TBME.2011.2172210).

Covariances of the channels, mapped to the tangent space of symmetric positive definite matrices at
the Riemannian mean of the training trials (pyriemann), then logistic regression. What differs: each
covariance is shrunk (oracle approximating shrinkage, Chen et al. 2010, doi:10.1109/TSP.2010.2053029),
so that many channels, a common reference and short trials are no trouble; classes count equally.
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


class TangentSpaceSettings(Settings):
    """Settings of the tangent-space classifier."""

    kind: Literal["tangent_space"] = Field(
        "tangent_space", description="Covariances in tangent space, logistic regression."
    )
    low_hz: float | None = Field(8.0, gt=0, description="lower edge of the band; null: none")
    high_hz: float | None = Field(30.0, gt=0, description="upper edge of the band; null: none")
    inverse_penalty: float = Field(
        1.0, gt=0, description="C of the logistic regression: larger means less regularised"
    )


@CLASSIFIERS.register("tangent_space", TangentSpaceSettings)
class TangentSpaceClassifier(ConditionClassifier):
    """Logistic regression of covariances in their tangent space: for power and its pattern."""

    settings: TangentSpaceSettings

    def extract(self, trials: np.ndarray) -> np.ndarray:
        """Shrunk covariance of each trial in the band, (n_trials, n_channels, n_channels)."""
        filtered = band_pass(
            trials, self.sampling_rate_hz, self.settings.low_hz, self.settings.high_hz
        )
        return oas_covariances(filtered[:, :, self.inside])

    def label_free(self) -> Any:
        """Tangent space at the Riemannian mean of the training trials."""
        from pyriemann.tangentspace import TangentSpace

        return TangentSpace(metric="riemann")

    def supervised(self, n_classes: int) -> Any:
        """Logistic regression, classes weighted equally."""
        return tangent_regression(self.settings.inverse_penalty)


def tangent_regression(inverse_penalty: float) -> Any:
    """Return the logistic regression that reads coordinates in tangent space."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=2000)
