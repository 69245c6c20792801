"""Confounds, band and censoring as one projection: against nilearn, least squares, closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.signal.projection import out_of_band, projection

N, RATE_HZ = 180, 0.5


def make_run(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Series, confounds and kept volumes of one run."""
    rng = np.random.default_rng(seed)
    confounds = np.cumsum(rng.standard_normal((N, 4)), axis=0)
    series = 400 + confounds @ rng.standard_normal((4, 6)) + rng.standard_normal((N, 6))
    kept = np.ones(N, dtype=bool)
    kept[[0, 40, 41, 120]] = False
    return series, confounds, kept


def test_it_equals_the_simultaneous_regression_of_nilearn() -> None:
    from nilearn.signal import clean

    series, _, _ = make_run()
    # White ones: nilearn leaves its cosines out where a confound looks like one of them.
    confounds = np.random.default_rng(1).standard_normal((N, 4)) + 3
    free = projection(N, confounds=confounds, sampling_rate_hz=RATE_HZ, high_pass_hz=0.01)
    expected = clean(
        series, confounds=confounds, detrend=False, standardize=None, filter="cosine",
        high_pass=0.01, t_r=1 / RATE_HZ,
    )  # fmt: skip
    np.testing.assert_allclose(free.apply(series), expected - expected.mean(axis=0), atol=1e-8)


def test_spikes_are_the_same_as_leaving_volumes_out() -> None:
    series, confounds, kept = make_run()
    band = out_of_band(N, RATE_HZ, 0.01, 0.1)
    spikes = np.eye(N)[:, ~kept]
    design = np.column_stack([np.ones(N), confounds, band, spikes])
    expected = series - design @ np.linalg.lstsq(design, series, rcond=None)[0]
    free = projection(
        N, confounds=confounds, kept=kept, sampling_rate_hz=RATE_HZ, high_pass_hz=0.01,
        low_pass_hz=0.1,
    )  # fmt: skip
    np.testing.assert_allclose(free.apply(series), expected, atol=1e-8)
    assert free.degrees_of_freedom == N - np.linalg.matrix_rank(design)


def test_nothing_that_was_taken_out_comes_back() -> None:
    series, confounds, kept = make_run()
    free = projection(
        N, confounds=confounds, kept=kept, sampling_rate_hz=RATE_HZ, high_pass_hz=0.01,
        low_pass_hz=0.1,
    )  # fmt: skip
    cleaned = free.apply(series)
    assert np.abs(cleaned[~kept]).max() == 0
    assert np.abs(cleaned[kept].mean(axis=0)).max() < 1e-10
    assert np.abs(confounds[kept].T @ cleaned[kept]).max() < 1e-7
    assert np.abs(out_of_band(N, RATE_HZ, 0.01, 0.1)[kept].T @ cleaned[kept]).max() < 1e-9
    np.testing.assert_allclose(free.apply(cleaned), cleaned, atol=1e-10)


def test_the_band_passes_what_is_in_it_and_stops_the_rest() -> None:
    times_s = np.arange(N) / RATE_HZ
    cosines = np.column_stack(
        [np.cos(2 * np.pi * f * (times_s + 0.5 / RATE_HZ)) for f in (9 / 720, 36 / 720, 144 / 720)]
    )
    free = projection(N, sampling_rate_hz=RATE_HZ, high_pass_hz=0.02, low_pass_hz=0.1)
    power = np.square(free.apply(cosines)).sum(axis=0) / np.square(cosines).sum(axis=0)
    np.testing.assert_allclose(power, [0, 1, 0], atol=1e-9)


def test_degrees_of_freedom_count_collinear_and_constant_confounds_once() -> None:
    _, confounds, _ = make_run()
    doubled = np.column_stack([confounds, 2 * confounds[:, 0] - confounds[:, 1], np.full(N, 7.0)])
    assert projection(N, confounds=doubled).degrees_of_freedom == N - 5


def test_missing_values_of_confounds_are_their_mean() -> None:
    series, confounds, _ = make_run()
    confounds[0, 0] = np.nan
    filled = confounds.copy()
    filled[0, 0] = np.nanmean(confounds[:, 0])
    np.testing.assert_allclose(
        projection(N, confounds=confounds).apply(series),
        projection(N, confounds=filled).apply(series),
        atol=1e-8,
    )


def test_a_large_baseline_costs_no_digits() -> None:
    series, confounds, kept = make_run()
    free = projection(N, confounds=confounds, kept=kept)
    np.testing.assert_allclose(free.apply(series + 1e6), free.apply(series), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kept": np.zeros(N, dtype=bool)}, "all volumes of a run are censored"),
        ({"kept": np.ones(N - 1, dtype=bool)}, "another length"),
        ({"confounds": np.ones((N + 2, 3))}, "another length"),
        ({"high_pass_hz": 0.01}, "cannot be filtered"),
        (
            {"confounds": np.random.default_rng(0).standard_normal((N, N + 20))},
            "too little of a run is left",
        ),
    ],
)
def test_what_cannot_be_cleaned_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        projection(N, **change)  # type: ignore[arg-type]
