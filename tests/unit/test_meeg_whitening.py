"""Whitening: as sklearn one by one, white noise out of coloured, of lower rank and of one epoch."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.preprocess.meeg.whitening import fit_whitening, residuals, shrunk_covariances

KIND = np.full(24, "eeg")


def noise(n_epochs: int, n_units: int = 24, n_times: int = 120, seed: int = 0) -> np.ndarray:
    """Spatially mixed noise with a 1/f spectrum, in V."""
    rng = np.random.default_rng(seed)
    distance = np.abs(np.subtract.outer(np.arange(n_units), np.arange(n_units)))
    mixing = np.linalg.cholesky(np.exp(-distance / 4) + 0.05 * np.eye(n_units))
    white = np.fft.rfft(rng.normal(size=(n_epochs, n_units, n_times)), axis=2)
    coloured = white / np.sqrt(np.maximum(np.arange(white.shape[2]), 1))
    return 1e-6 * np.matmul(mixing, np.fft.irfft(coloured, n_times, axis=2))


def batches(epochs: np.ndarray, conditions: np.ndarray | None = None, size: int = 50):  # type: ignore[no-untyped-def]
    labels = np.arange(len(epochs)) if conditions is None else conditions
    return lambda: (
        (epochs[start : start + size], labels[start : start + size])
        for start in range(0, len(epochs), size)
    )


def correlations(matrix: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    centred = epochs - epochs.mean(axis=2, keepdims=True)
    white = np.matmul(matrix, centred).transpose(1, 0, 2).reshape(len(matrix), -1)
    return np.cov(white)


@pytest.mark.parametrize("n_times", [12, 120])
def test_batched_covariances_are_those_of_sklearn(n_times: int) -> None:
    from sklearn.covariance import ledoit_wolf

    epochs = noise(20, n_times=n_times)
    epochs[3] *= 40
    covariances, intensities = shrunk_covariances(epochs)
    for epoch, covariance, intensity in zip(epochs, covariances, intensities, strict=True):
        expected, shrinkage = ledoit_wolf(epoch.T)
        np.testing.assert_allclose(covariance, expected, rtol=1e-6, atol=1e-6 * expected.max())
        assert intensity == pytest.approx(shrinkage, abs=1e-6)
    assert intensities.max() > 0.01
    from sklearn.discriminant_analysis import _cov

    standardised, _ = shrunk_covariances(epochs, standardise=True)
    for epoch, covariance in zip(epochs, standardised, strict=True):
        expected = _cov(epoch.T, shrinkage="auto")
        np.testing.assert_allclose(covariance, expected, rtol=1e-6, atol=1e-6 * expected.max())
    assert not np.allclose(standardised, covariances, rtol=1e-3, atol=0)
    single, _ = shrunk_covariances(epochs, dtype=np.float32)
    largest = np.abs(covariances).max(axis=(1, 2), keepdims=True)
    assert (np.abs(single - covariances) / largest).max() < 1e-6
    fixed, _ = shrunk_covariances(epochs, 0.3)
    assert not np.allclose(fixed, covariances, rtol=1e-3, atol=0)


def test_noise_comes_out_white_on_trials_that_were_not_fitted() -> None:
    fitted = fit_whitening(batches(noise(1500), np.zeros(1500)), KIND)
    found = correlations(fitted.matrix, noise(1500, seed=1))
    off = ~np.eye(24, dtype=bool)
    assert np.abs(found[off]).max() < 0.05
    np.testing.assert_allclose(np.diag(found), 1, atol=0.06)
    assert fitted.rank == 24 and fitted.n_epochs == 1500
    before = np.corrcoef(noise(400, seed=1).transpose(1, 0, 2).reshape(24, -1))
    assert np.abs(before[off]).max() > 0.3


def test_shrinkage_of_each_epoch_is_stronger() -> None:
    pooled = fit_whitening(batches(noise(100), np.zeros(100)), KIND)
    each = fit_whitening(batches(noise(100), np.zeros(100)), KIND, "epoch")
    fixed = fit_whitening(batches(noise(100), np.zeros(100)), KIND, 0.5)
    assert pooled.shrinkage < each.shrinkage < fixed.shrinkage == 0.5


def test_condition_shown_once_keeps_its_noise() -> None:
    epochs = noise(200)
    once = fit_whitening(batches(epochs), KIND)
    repeated = fit_whitening(batches(epochs, np.repeat(np.arange(100), 2)), KIND)
    ratio = np.trace(once.covariance) / np.trace(repeated.covariance)
    assert ratio == pytest.approx(1, abs=0.05)
    mixed = np.array([0, 0, 1])
    left = residuals(epochs[:3], mixed)
    np.testing.assert_array_equal(left[2], epochs[2])
    np.testing.assert_allclose(left[0], -left[1], atol=1e-18)


def test_signal_of_repeated_conditions_is_not_taken_for_noise() -> None:
    signal = np.repeat(noise(5, seed=9) * 30, 40, axis=0)
    conditions = np.repeat(np.arange(5), 40)
    with_signal = fit_whitening(batches(noise(200) + signal, conditions, 200), KIND)
    without = fit_whitening(batches(noise(200), conditions, 200), KIND)
    np.testing.assert_allclose(with_signal.matrix, without.matrix, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("shrinkage", ["pooled", "epoch"])
def test_average_reference_is_whitened_in_its_own_space(shrinkage: str) -> None:
    def referenced(seed: int) -> np.ndarray:
        epochs = noise(300, seed=seed)
        return (epochs - epochs.mean(axis=1, keepdims=True)).astype(np.float32)

    fitted = fit_whitening(batches(referenced(0)), KIND, shrinkage)  # type: ignore[arg-type]
    assert fitted.rank == 23
    white = correlations(fitted.matrix, referenced(1))
    values = np.linalg.eigvalsh(white)
    assert values[0] == pytest.approx(0, abs=1e-3)
    # The shrinkage of single epochs holds small directions down, that of all together hardly.
    assert values[1] > (0.7 if shrinkage == "pooled" else 0.2) and values[-1] < 1.5
    # What lies outside of the data is not blown up.
    assert np.abs(fitted.matrix @ np.ones(24)).max() < 1e-3 * np.abs(fitted.matrix).max()


def test_kinds_have_their_own_scale() -> None:
    kinds = np.repeat(["mag", "grad"], 12)
    factor = np.where(kinds == "mag", 1e-7, 1e-5)[:, None]
    mixed = fit_whitening(batches(noise(1500) * factor, np.zeros(1500)), kinds)
    found = correlations(mixed.matrix, noise(1500, seed=1) * factor)
    assert np.abs(found - np.eye(24)).max() < 0.06


def test_flat_data_are_refused() -> None:
    with pytest.raises(ValueError, match="no epochs that vary"):
        fit_whitening(batches(np.zeros((3, 4, 5))), np.full(4, "eeg"))
