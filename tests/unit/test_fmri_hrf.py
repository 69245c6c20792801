"""Responses to a brief stimulus: peaks where they are said to be, of height 1, nilearn's shapes."""

import numpy as np
import pytest
from nilearn.glm.first_level import glover_hrf, spm_hrf

from afterimage.preprocess.fmri.hrf import DISPERSIONS_S, canonical_hrf, hrf_library, hrf_set


def test_library_peaks_lie_where_it_says() -> None:
    library = hrf_library(dt_s=0.01)
    np.testing.assert_allclose(library.kernels.argmax(axis=1) * 0.01, library.peaks_s, atol=0.031)
    np.testing.assert_allclose(library.kernels.max(axis=1), 1)
    peaks = np.unique(library.peaks_s)
    assert peaks[0] == 3.5
    assert peaks[-1] == 8.5
    assert np.diff(peaks).max() <= 0.25
    assert len(library) == len(peaks) * len(DISPERSIONS_S)


def test_library_responses_rise_from_zero_undershoot_and_die_away() -> None:
    library = hrf_library()
    assert np.abs(library.kernels[:, 0]).max() < 1e-6
    assert np.abs(library.kernels[:, -1]).max() < 1e-3
    assert (library.kernels.min(axis=1) < -0.03).all()
    assert (library.kernels.min(axis=1) > -0.5).all()


def test_wider_members_last_longer() -> None:
    widths = (hrf_library().kernels > 0.5).sum(axis=1).reshape(-1, len(DISPERSIONS_S))
    assert (np.diff(widths, axis=1) > 0).all()


@pytest.mark.parametrize(("name", "theirs"), [("canonical", spm_hrf), ("glover", glover_hrf)])
def test_canonical_is_nilearns(name: str, theirs: object) -> None:
    ours = canonical_hrf(name, dt_s=0.05)  # type: ignore[arg-type]
    expected = theirs(0.001, oversampling=1, time_length=36.0)  # type: ignore[operator]
    expected = np.interp(
        np.arange(ours.kernels.shape[1]) * 0.05, np.linspace(0, 36, len(expected)), expected
    )
    np.testing.assert_allclose(ours.kernels[0], expected / expected.max(), atol=1e-6)
    assert abs(ours.peaks_s[0] - 5.0) < 0.03


def test_settings_name_sets() -> None:
    assert len(hrf_set("canonical")) == len(hrf_set("glover")) == 1
    assert len(hrf_set("library")) > 20
