"""xDAWN spatial filters (Rivet et al. 2009, doi:10.1109/TBME.2009.2012869).

Filters that enhance the evoked response of each class; the filtered trial is stacked on the
filtered mean responses, and the covariance of the stack is classified in tangent space (Barachant &
Congedo 2014, arXiv:1409.0107; pyriemann). What differs: covariances are shrunk (oracle approximating
shrinkage), and samples are averaged in short bins before, which is the low-pass filter.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.decoding.conditions.classifier import (
    ConditionClassifier,
    oas_covariances,
    time_bins,
)
from afterimage.decoding.conditions.registry import CLASSIFIERS
from afterimage.decoding.conditions.tangent_space import tangent_regression
from afterimage.settings import Settings


class XdawnSettings(Settings):
    """Settings of xDAWN covariances."""

    kind: Literal["xdawn"] = Field(
        "xdawn", description="xDAWN filters, covariances with the mean responses, tangent space."
    )
    n_filters: int = Field(4, ge=1, description="spatial filters a class, at most")
    bin_s: float = Field(0.008, gt=0, description="samples of this time are averaged before")
    inverse_penalty: float = Field(
        1.0, gt=0, description="C of the logistic regression: larger means less regularised"
    )


@CLASSIFIERS.register("xdawn", XdawnSettings)
class XdawnClassifier(ConditionClassifier):
    """Tangent-space classification of evoked responses."""

    settings: XdawnSettings

    def extract(self, trials: np.ndarray) -> np.ndarray:
        """Trials in the window, in bins of time, (n_trials, n_channels, n_bins)."""
        return time_bins(trials[:, :, self.inside], self.sampling_rate_hz, self.settings.bin_s)

    def supervised(self, n_classes: int) -> Any:
        """Chain filters, mean responses, tangent space and regression; all learn from labels."""
        from pyriemann.estimation import XdawnCovariances
        from pyriemann.tangentspace import TangentSpace
        from sklearn.pipeline import make_pipeline

        class BatchedCovariances(XdawnCovariances):
            """The same covariances, of all trials at once."""

            def transform(self, X: np.ndarray) -> np.ndarray:
                """(n_trials, n_channels, n_times) to (n_trials, 2 n_rows, 2 n_rows)."""
                means = np.broadcast_to(self.P_, (len(X), *self.P_.shape))
                return oas_covariances(np.concatenate([means, self.Xd_.transform(X)], axis=1))

        return make_pipeline(
            BatchedCovariances(self.settings.n_filters, xdawn_estimator=_oas),
            TangentSpace(metric="riemann"),
            tangent_regression(self.settings.inverse_penalty),
        )


def _oas(signal: np.ndarray) -> np.ndarray:
    """Shrunk covariance of one signal, (n_channels, n_times) to (n_channels, n_channels)."""
    return np.asarray(oas_covariances(signal[None])[0])
