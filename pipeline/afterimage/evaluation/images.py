"""Pixel metrics of the MindEye2 line (Scotti et al. 2024, arXiv:2403.11207): PixCorr, SSIM, MSE.

What differs: images keep their native size (no resize to 425 px), a constant image has correlation
0 instead of NaN, and every metric also exists for all pairs of images, for permutation tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import InputError

SSIM_SIGMA_PX = 1.5
SSIM_RADIUS_PX = 5  # int(3.5 * sigma + 0.5), as scikit-image truncates its Gaussian
SSIM_LUMINANCE = (0.01 * 1.0) ** 2  # (K1 * data_range)^2
SSIM_CONTRAST = (0.03 * 1.0) ** 2  # (K2 * data_range)^2
GREY_WEIGHTS = (0.2125, 0.7154, 0.0721)  # skimage.color.rgb2gray
CONSTANT_RANGE = 1e-6
CHUNK_VALUES = 2**22


def as_unit_float(images: NDArray[np.generic], name: str = "images") -> NDArray[np.float32]:
    """Return RGB images as float32 between 0 and 1.

    Parameters
    ----------
    images : ndarray, shape (n, height, width, 3)
        uint8 (0..255) or floating point (0..1).
    name : str
        What to call the array in an error.

    Returns
    -------
    ndarray of float32, shape (n, height, width, 3)
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise InputError(
            f"{name} are not a stack of RGB images",
            found=f"shape {images.shape}",
            expected="shape (n, height, width, 3)",
        )
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    values = images.astype(np.float32, copy=False)
    if values.size and not (values.min() >= -1e-4 and values.max() <= 1 + 1e-4):
        raise InputError(
            f"{name} hold values that are not intensities",
            found=f"{values.min():.4g} to {values.max():.4g}",
            expected="uint8, or floating point between 0 and 1",
            fix="clip the images, and divide 8-bit values by 255",
        )
    return values


def constant_images(images: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Say which images hold one single value: their correlation with anything is set to 0.

    Parameters
    ----------
    images : ndarray, shape (n, height, width, 3)

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    flat = as_unit_float(images).reshape(len(images), -1)
    return np.asarray(np.ptp(flat, axis=1) <= CONSTANT_RANGE)


def pixcorr(truth: NDArray[np.generic], recon: NDArray[np.generic]) -> NDArray[np.float64]:
    """Pearson correlation of the flattened RGB values of each image and its reconstruction.

    Parameters
    ----------
    truth, recon : ndarray, shape (n, height, width, 3)
        Intensities, float 0..1 or uint8.

    Returns
    -------
    ndarray of float64, shape (n,)
        Between -1 and 1; exactly 0 where either image is constant. Such images stay in the mean
        (`constant_images` finds them), since dropping them would reward a generator for failing.
    """
    truth, recon = _same_shape(truth, recon)
    result = np.zeros(len(truth))
    for rows in _chunks(len(truth), int(np.prod(truth.shape[1:]))):
        a, a_norm = _centred(truth[rows], np.float64)
        b, b_norm = _centred(recon[rows], np.float64)
        result[rows] = _ratio(np.einsum("ij,ij->i", a, b), a_norm * b_norm)
    return result


def mse(truth: NDArray[np.generic], recon: NDArray[np.generic]) -> NDArray[np.float64]:
    """Mean squared difference of each image and its reconstruction, intensities 0..1.

    Parameters
    ----------
    truth, recon : ndarray, shape (n, height, width, 3)

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    truth, recon = _same_shape(truth, recon)
    result = np.zeros(len(truth))
    for rows in _chunks(len(truth), int(np.prod(truth.shape[1:]))):
        difference = truth[rows].astype(np.float64) - recon[rows]
        result[rows] = np.mean(difference**2, axis=(1, 2, 3))
    return result


def ssim(truth: NDArray[np.generic], recon: NDArray[np.generic]) -> NDArray[np.float64]:
    """Structural similarity of each image and its reconstruction, in grey.

    Equal to ``skimage.metrics.structural_similarity(rgb2gray(recon), rgb2gray(truth),
    gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0)`` (Wang et al.
    2004, doi:10.1109/TIP.2003.819861), for all images at once.

    Parameters
    ----------
    truth, recon : ndarray, shape (n, height, width, 3)
        At least 11 x 11 pixels: the Gaussian window is 11 wide.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    truth, recon = _same_shape(truth, recon)
    window = _Window(truth.shape[1], truth.shape[2], np.dtype(np.float64))
    result = np.zeros(len(truth))
    for rows in _chunks(len(truth), truth.shape[1] * truth.shape[2]):
        a, b = _grey(truth[rows], np.float64), _grey(recon[rows], np.float64)
        a_mean, a_variance = window.moments(a)
        b_mean, b_variance = window.moments(b)
        covariance = window.smooth(a * b) - a_mean * b_mean
        result[rows] = _ssim_mean(a_mean, a_variance, b_mean, b_variance, covariance)
    return result


def pairwise_pixcorr(
    truth: NDArray[np.generic], recon: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Correlate every reconstruction with every true image.

    Parameters
    ----------
    truth, recon : ndarray, shape (n, height, width, 3)

    Returns
    -------
    ndarray of float64, shape (n, n)
        Row = reconstruction, column = true image; constant images give 0. One float32 matrix
        product a chunk, so entries agree with `pixcorr` to about 1e-6.
    """
    truth, recon = _same_shape(truth, recon)
    product, recon_norm, truth_norm = _centred_product(truth, recon)
    return np.clip(_ratio(product, recon_norm[:, None] * truth_norm[None, :]), -1.0, 1.0)


def pairwise_mse(truth: NDArray[np.generic], recon: NDArray[np.generic]) -> NDArray[np.float64]:
    """Mean squared difference of every reconstruction and every true image.

    Parameters
    ----------
    truth, recon : ndarray, shape (n, height, width, 3)

    Returns
    -------
    ndarray of float64, shape (n, n)
        Row = reconstruction, column = true image. With centred images a, b of D values and means
        m: ``(|a|^2 + |b|^2 - 2 a.b) / D + (m_a - m_b)^2``.
    """
    truth, recon = _same_shape(truth, recon)
    product, recon_norm, truth_norm = _centred_product(truth, recon)
    n_values = int(np.prod(truth.shape[1:]))
    shift = _means(recon)[:, None] - _means(truth)[None, :]
    squares = recon_norm[:, None] ** 2 + truth_norm[None, :] ** 2 - 2 * product
    return np.asarray(np.maximum(squares, 0) / n_values + shift**2)


def pairwise_ssim(truth: NDArray[np.generic], recon: NDArray[np.generic]) -> NDArray[np.float64]:
    """Structural similarity of every reconstruction and every true image.

    Parameters
    ----------
    truth, recon : ndarray, shape (n, height, width, 3)

    Returns
    -------
    ndarray of float64, shape (n, n)
        Row = reconstruction, column = true image; float32 inside, so entries agree with `ssim`
        to about 1e-5. The moments of each image are smoothed once, only the product of a pair is
        smoothed for each pair.
    """
    truth, recon = _same_shape(truth, recon)
    window = _Window(truth.shape[1], truth.shape[2], np.dtype(np.float32))
    grey_recon = _grey(recon, np.float32)
    recon_mean, recon_variance = window.moments(grey_recon)
    result = np.empty((len(recon), len(truth)))
    # Small chunks keep the dozen intermediate arrays of the formula inside the processor's cache.
    for columns in _chunks(len(truth), truth.shape[1] * truth.shape[2], 2**16):
        a = _grey(truth[columns], np.float32)
        a_mean, a_variance = window.moments(a)
        for row, (b, b_mean, b_variance) in enumerate(
            zip(grey_recon, recon_mean, recon_variance, strict=True)
        ):
            covariance = window.smooth(a * b) - a_mean * b_mean
            result[row, columns] = _ssim_mean(a_mean, a_variance, b_mean, b_variance, covariance)
    return result


class _Window:
    """The 11 x 11 Gaussian of SSIM as two matrix products.

    scikit-image crops the 5 outer pixels of its map, so only windows that lie wholly inside the
    image count and no rule for the border is needed.
    """

    def __init__(self, height: int, width: int, dtype: np.dtype[np.floating]) -> None:
        smallest = 2 * SSIM_RADIUS_PX + 1
        if min(height, width) < smallest:
            raise InputError(
                "the images are too small for SSIM",
                found=f"{height} x {width} pixels",
                expected=f"at least {smallest} x {smallest}: the width of its Gaussian window",
                fix="present or store the images larger, or leave out the metric `ssim`",
            )
        self.rows = _band(height).astype(dtype)
        self.columns = np.ascontiguousarray(_band(width).T.astype(dtype))

    def smooth(self, images: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the weighted mean in every window: (n, height - 10, width - 10)."""
        return np.asarray(self.rows @ images @ self.columns)

    def moments(
        self, images: NDArray[np.floating]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return the local mean and the local (population) variance."""
        mean = self.smooth(images)
        return mean, self.smooth(images * images) - mean * mean


def _band(length: int) -> NDArray[np.float64]:
    """Return the banded matrix of the normalised Gaussian: (length - 10, length)."""
    offsets = np.arange(-SSIM_RADIUS_PX, SSIM_RADIUS_PX + 1)
    weights = np.exp(-0.5 * (offsets / SSIM_SIGMA_PX) ** 2)
    weights /= weights.sum()
    band = np.zeros((length - 2 * SSIM_RADIUS_PX, length))
    for row in range(len(band)):
        band[row, row : row + len(weights)] = weights
    return band


def _ssim_mean(
    a_mean: NDArray[np.floating],
    a_variance: NDArray[np.floating],
    b_mean: NDArray[np.floating],
    b_variance: NDArray[np.floating],
    covariance: NDArray[np.floating],
) -> NDArray[np.float64]:
    luminance = (2 * a_mean * b_mean + SSIM_LUMINANCE) * (2 * covariance + SSIM_CONTRAST)
    scale = (a_mean**2 + b_mean**2 + SSIM_LUMINANCE) * (a_variance + b_variance + SSIM_CONTRAST)
    return np.asarray(np.mean(luminance / scale, axis=(1, 2), dtype=np.float64))


def _same_shape(
    truth: NDArray[np.generic], recon: NDArray[np.generic]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    a, b = as_unit_float(truth, "true images"), as_unit_float(recon, "reconstructions")
    if a.shape != b.shape:
        raise InputError(
            "true images and reconstructions differ in number or size",
            found=f"true images {a.shape}, reconstructions {b.shape}",
            expected="the same shape (n, height, width, 3)",
            fix="resize the true images to the size of the reconstructions before scoring",
        )
    return a, b


def _chunks(n: int, n_values: int, limit: int = CHUNK_VALUES) -> Iterator[slice]:
    step = max(1, limit // max(1, n_values))
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def _grey(images: NDArray[np.float32], dtype: type[np.floating]) -> NDArray[np.floating]:
    return np.asarray(images.astype(dtype, copy=False) @ np.array(GREY_WEIGHTS, dtype))


def _means(images: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(images.mean(axis=(1, 2, 3), dtype=np.float64))


def _centred(
    images: NDArray[np.float32], dtype: type[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
    """Return flattened images minus their mean, and their norm: 0 for a constant image."""
    flat = images.reshape(len(images), -1)
    values = (flat - flat.mean(axis=1, keepdims=True, dtype=np.float64)).astype(dtype, copy=False)
    norm = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    return values, np.where(np.ptp(flat, axis=1) <= CONSTANT_RANGE, 0.0, norm)


def _centred_product(
    truth: NDArray[np.float32], recon: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (n, n) dot products of centred images (row = reconstruction) and both norms."""
    n, n_values = len(truth), int(np.prod(truth.shape[1:]))
    product = np.empty((n, n))
    recon_norm, truth_norm = np.empty(n), np.empty(n)
    for columns in _chunks(n, n_values):
        a, truth_norm[columns] = _centred(truth[columns], np.float32)
        for rows in _chunks(n, n_values):
            b, recon_norm[rows] = _centred(recon[rows], np.float32)
            product[rows, columns] = b @ a.T
    return product, recon_norm, truth_norm


def _ratio(values: NDArray[np.floating], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    result = np.zeros(scale.shape)
    np.divide(values, scale, out=result, where=scale > 0)
    return result
