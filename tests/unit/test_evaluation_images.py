"""Pixel metrics against scikit-image and numpy, one pair at a time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from afterimage.errors import InputError
from afterimage.evaluation.images import (
    as_unit_float,
    constant_images,
    mse,
    pairwise_mse,
    pairwise_pixcorr,
    pairwise_ssim,
    pixcorr,
    ssim,
)


def noisy_pairs(
    n: int, height: int, width: int, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    truth = generator.random((n, height, width, 3), np.float32)
    noise = generator.random(truth.shape, np.float32)
    return truth, (0.6 * truth + 0.4 * noise).astype(np.float32)


@pytest.mark.parametrize("shape", [(11, 11), (32, 32), (40, 25)])
def test_ssim_is_that_of_scikit_image(shape: tuple[int, int]) -> None:
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    truth, recon = noisy_pairs(5, *shape)
    expected = [
        structural_similarity(
            rgb2gray(b.astype(np.float64)),
            rgb2gray(a.astype(np.float64)),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
        )
        for a, b in zip(truth, recon, strict=True)
    ]
    np.testing.assert_allclose(ssim(truth, recon), expected, atol=1e-9)


def test_pixcorr_and_mse_are_those_of_numpy() -> None:
    truth, recon = noisy_pairs(6, 9, 14)
    flat = [(a.ravel().astype(float), b.ravel()) for a, b in zip(truth, recon, strict=True)]
    np.testing.assert_allclose(
        pixcorr(truth, recon), [np.corrcoef(a, b)[0, 1] for a, b in flat], atol=1e-9
    )
    np.testing.assert_allclose(
        mse(truth, recon), [np.mean((a - b) ** 2) for a, b in flat], atol=1e-9
    )


@pytest.mark.parametrize(
    ("pairwise", "single", "tolerance"),
    [(pairwise_pixcorr, pixcorr, 2e-6), (pairwise_mse, mse, 2e-6), (pairwise_ssim, ssim, 2e-5)],
)
def test_pairwise_rows_are_reconstructions(pairwise, single, tolerance, monkeypatch) -> None:
    monkeypatch.setattr("afterimage.evaluation.images.CHUNK_VALUES", 4000)  # several chunks
    truth, recon = noisy_pairs(7, 16, 20)
    matrix = pairwise(truth, recon)
    for row in range(7):
        expected = single(truth, np.repeat(recon[row : row + 1], 7, axis=0))
        np.testing.assert_allclose(matrix[row], expected, atol=tolerance)


def test_chunks_do_not_change_values(monkeypatch) -> None:
    truth, recon = noisy_pairs(7, 16, 20)
    whole = [metric(truth, recon) for metric in (pixcorr, mse, ssim)]
    monkeypatch.setattr("afterimage.evaluation.images.CHUNK_VALUES", 1)
    for metric, expected in zip((pixcorr, mse, ssim), whole, strict=True):
        np.testing.assert_allclose(metric(truth, recon), expected, atol=1e-12)


def test_identical_images_score_perfectly() -> None:
    truth, _ = noisy_pairs(3, 16, 16)
    np.testing.assert_allclose(pixcorr(truth, truth), 1)
    np.testing.assert_allclose(ssim(truth, truth), 1)
    np.testing.assert_array_equal(mse(truth, truth), 0)


@pytest.mark.parametrize("level", [0.0, 0.1, 0.7, 1.0])
def test_constant_images_correlate_zero_and_are_counted(level: float) -> None:
    truth, recon = noisy_pairs(4, 16, 16)
    recon[1] = level
    assert constant_images(recon).tolist() == [False, True, False, False]
    assert pixcorr(truth, recon)[1] == 0
    matrix = pairwise_pixcorr(truth, recon)
    assert np.all(matrix[1] == 0)
    assert np.all(np.isfinite(matrix))
    assert np.all(pairwise_pixcorr(recon, truth)[:, 1] == 0)


def test_a_picture_of_rounding_errors_counts_as_constant() -> None:
    truth, recon = noisy_pairs(2, 16, 16)
    recon[0] = 0.5
    recon[0, :8] += 3e-7
    assert constant_images(recon).tolist() == [True, False]
    assert pixcorr(truth, recon)[0] == 0
    assert np.all(pairwise_pixcorr(truth, recon)[0] == 0)


def test_uint8_equals_the_scaled_floats() -> None:
    stored = (noisy_pairs(3, 12, 12)[0] * 255).astype(np.uint8)
    np.testing.assert_array_equal(as_unit_float(stored), stored.astype(np.float32) / 255)
    np.testing.assert_array_equal(mse(stored, as_unit_float(stored)), 0)


def test_small_images_are_refused_with_the_reason() -> None:
    truth, recon = noisy_pairs(2, 10, 32)
    with pytest.raises(InputError, match="too small for SSIM") as caught:
        ssim(truth, recon)
    assert "10 x 32" in str(caught.value)
    assert "11 x 11" in str(caught.value)


@pytest.mark.parametrize(
    ("truth", "recon", "reason"),
    [
        (np.zeros((2, 12, 12, 3)), np.zeros((3, 12, 12, 3)), "differ in number or size"),
        (np.zeros((2, 12, 12, 3)), np.zeros((2, 12, 13, 3)), "differ in number or size"),
        (np.zeros((2, 12, 12)), np.zeros((2, 12, 12)), "not a stack of RGB"),
        (np.full((2, 12, 12, 3), 200.0), np.zeros((2, 12, 12, 3)), "not intensities"),
        (np.full((2, 12, 12, 3), np.nan), np.zeros((2, 12, 12, 3)), "not intensities"),
    ],
)
def test_unusable_images_are_refused(truth, recon, reason) -> None:
    with pytest.raises(InputError, match=reason):
        pixcorr(truth, recon)
