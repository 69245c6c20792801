"""Every registered measure of connectivity behaves: shapes, symmetry, null, planted truth, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from afterimage.connectivity.registry import CONNECTIVITY
from afterimage.errors import InputError

NAMES = CONNECTIVITY.names()
RATE_HZ, N_TIMES, N_UNITS = 100.0, 6000, 10
BLOCK = (2, 3, 5)


def make_measure(name: str, fitted: bool = True) -> Any:
    """One measure with default settings, its reference made of noise."""
    measure = CONNECTIVITY.get(name)(CONNECTIVITY.settings(name)())
    rng = np.random.default_rng(99)
    return (
        measure.fit([rng.standard_normal((500, N_UNITS)) for _ in range(3)]) if fitted else measure
    )


def make_noise(seed: int = 0) -> np.ndarray:
    """Independent white noise, whose band holds no relation."""
    return np.random.default_rng(seed).standard_normal((N_TIMES, N_UNITS))


def make_planted(seed: int = 0) -> np.ndarray:
    """Noise with a 10 Hz rhythm in three units, a few ms apart, whose strength waxes and wanes."""
    from scipy.ndimage import gaussian_filter1d

    rng = np.random.default_rng(seed)
    series = make_noise(seed + 1)
    slow = gaussian_filter1d(rng.standard_normal(N_TIMES + 50), 60)
    phase = 2 * np.pi * 10 * np.arange(N_TIMES + 50) / RATE_HZ
    phase += np.cumsum(rng.standard_normal(N_TIMES + 50)) * 0.15
    rhythm = np.exp(1.5 * slow / slow.std()) * np.sin(phase)
    rhythm /= rhythm.std()
    for lag, unit in enumerate(BLOCK):
        series[:, unit] += 1.5 * rhythm[lag : lag + N_TIMES]
    return series


def compute(measure: Any, *series: np.ndarray, **about: Any) -> np.ndarray:
    return np.asarray(measure.transform(series, **{"sampling_rate_hz": RATE_HZ, **about}))


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    return matrix[np.tril_indices(len(matrix), -1)]


@pytest.mark.parametrize("name", NAMES)
def test_matrices_are_symmetric_finite_and_deterministic(name: str) -> None:
    series = [make_planted(), make_noise()]
    before = [values.copy() for values in series]
    found = compute(make_measure(name), *series)
    assert found.shape == (2, N_UNITS, N_UNITS)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, found.transpose(0, 2, 1))
    np.testing.assert_array_equal(found, compute(make_measure(name), *series))
    for values, kept in zip(series, before, strict=True):
        np.testing.assert_array_equal(values, kept)


@pytest.mark.parametrize("name", NAMES)
def test_it_does_not_depend_on_the_order_of_units_or_the_offset(name: str) -> None:
    series, order = make_planted(), np.random.default_rng(5).permutation(N_UNITS)
    measure = make_measure(name, fitted=False)
    noise = [make_noise(7), make_noise(8)]
    plain = compute(measure.fit(noise), series)[0]
    permuted = compute(measure.fit([values[:, order] for values in noise]), series[:, order])[0]
    np.testing.assert_allclose(permuted, plain[np.ix_(order, order)], atol=2e-5)
    shifted = compute(measure.fit(noise), series + 450.0)[0]
    np.testing.assert_allclose(shifted, plain, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_independent_noise_gives_little_and_a_planted_block_is_found(name: str) -> None:
    measure = make_measure(name)
    null = np.abs(off_diagonal(compute(measure, make_noise(3))[0]))
    found = np.abs(compute(measure, make_planted(3))[0])
    inside = np.array([found[a, b] for a in BLOCK for b in BLOCK if a < b])
    outside = np.array(
        [found[a, b] for a in range(N_UNITS) for b in range(a) if not {a, b} <= set(BLOCK)]
    )
    # The phase lag index of few windows is above 0 for noise too: it is compared with its own null.
    assert null.mean() < (0.15 if name != "wpli" else 0.4)
    assert inside.min() > outside.max()
    assert inside.min() > null.max()


@pytest.mark.parametrize("name", NAMES)
def test_censored_samples_have_no_influence(name: str) -> None:
    series = make_planted()
    kept = np.ones(N_TIMES, dtype=bool)
    kept[2000:2400] = False
    spoilt = series.copy()
    if name != "envelope_correlation":  # its filter reaches a second into what is kept
        spoilt[~kept] = 1e3 * np.random.default_rng(0).standard_normal((400, N_UNITS))
    measure = make_measure(name)
    clean = compute(measure, series, kept=[kept])
    np.testing.assert_allclose(compute(measure, spoilt, kept=[kept]), clean, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_measured_is_refused(name: str) -> None:
    measure, series = make_measure(name), make_noise()
    constant, broken = series.copy(), series.copy()
    constant[:, 3] = 5.0
    broken[17, 4] = np.nan
    for values, word in ((constant, "does not vary"), (broken, "finite"), (series[:2], "short")):
        with pytest.raises(InputError, match=word):
            compute(measure, values)
    with pytest.raises(InputError, match="short"):
        compute(measure, series, kept=[np.zeros(N_TIMES, dtype=bool)])


@pytest.mark.parametrize(
    "name", [n for n in NAMES if "band_hz" in CONNECTIVITY.settings(n).model_fields]
)
def test_a_band_needs_a_sampling_rate(name: str) -> None:
    with pytest.raises(InputError, match="not in the series"):
        compute(make_measure(name), make_noise(), sampling_rate_hz=0.0)


def test_tangent_space_needs_a_group() -> None:
    with pytest.raises(InputError, match="needs a group"):
        make_measure("tangent", fitted=False).fit([make_noise()])
