"""Rigid transforms and the one interpolation that brings volumes to the grid of the reference."""

from __future__ import annotations

import numpy as np


def parameters_to_matrix(parameters: np.ndarray, center_mm: np.ndarray) -> np.ndarray:
    """Return the motion matrix of six parameters: x -> Rz Ry Rx (x - c) + c + t.

    Parameters
    ----------
    parameters : array of shape (6,)
        Translations in mm, rotations about x, y and z in rad.
    center_mm : array of shape (3,)
        The point c about which the rotations turn.

    Returns
    -------
    array of shape (4, 4), float64
    """
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_euler("xyz", np.asarray(parameters)[3:]).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = np.asarray(parameters)[:3] + center_mm - rotation @ center_mm
    return matrix


def matrix_to_parameters(matrix: np.ndarray, center_mm: np.ndarray) -> np.ndarray:
    """Return the six parameters of a motion matrix; the inverse of `parameters_to_matrix`."""
    from scipy.spatial.transform import Rotation

    angles = Rotation.from_matrix(matrix[:3, :3]).as_euler("xyz")
    return np.concatenate([apply(matrix, center_mm[:, None])[:, 0] - center_mm, angles])


def small_move(move: np.ndarray, center_mm: np.ndarray) -> np.ndarray:
    """Return the matrix of a translation (mm) and a rotation vector (rad) about a point."""
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_rotvec(move[3:]).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = move[:3] + center_mm - rotation @ center_mm
    return matrix


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Move points of shape (3, n) by a matrix of shape (4, 4)."""
    return matrix[:3, :3] @ points + matrix[:3, 3:]


def grid_center(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return the centre of a grid in scanner mm, (3,) float64."""
    return apply(affine, (np.array(shape[:3]) - 1.0)[:, None] / 2)[:, 0]


def mass_center(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the centre of an image's brightness in scanner mm, (3,) float64."""
    weights = np.clip(image.astype(np.float64) - 0.2 * np.percentile(image, 98), 0, None)
    total = weights.sum()
    if total <= 0:
        return grid_center(image.shape, affine)
    index = [
        np.tensordot(weights.sum(axis=tuple(a for a in range(3) if a != axis)), np.arange(size), 1)
        for axis, size in enumerate(image.shape)
    ]
    return apply(affine, np.array(index)[:, None] / total)[:, 0]


def smooth(image: np.ndarray, affine: np.ndarray, fwhm_mm: float) -> np.ndarray:
    """Smooth an image with a Gaussian; axes of one sample are left as they are.

    Parameters
    ----------
    image : array of shape (x, y, z)
    affine : array of shape (4, 4)
        Voxel indices to mm.
    fwhm_mm : float
        Full width at half maximum.

    Returns
    -------
    array of shape (x, y, z), float32
    """
    from scipy.ndimage import gaussian_filter

    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    sigma = np.where(np.array(image.shape) > 1, fwhm_mm / 2.3548 / sizes, 0.0)
    return np.asarray(gaussian_filter(image.astype(np.float32), sigma, mode="nearest"))


def spline_coefficients(image: np.ndarray) -> np.ndarray:
    """Return the cubic B-spline coefficients of an image, float32, mirrored at its edges."""
    from scipy.ndimage import spline_filter

    return np.asarray(spline_filter(image, order=3, output=np.float32, mode="mirror"))


class Resampler:
    """Sample volumes at voxels of the reference, with motion and grids in one cubic interpolation.

    Parameters
    ----------
    index : array of int, shape (n_voxels, 3)
        Voxels of the reference's grid.
    affine : array of shape (4, 4)
        Of the reference.
    """

    def __init__(self, index: np.ndarray, affine: np.ndarray) -> None:
        self._index = np.asarray(index)
        self._affine = np.asarray(affine, dtype=np.float64)
        self._points = apply(self._affine, self._index.T.astype(np.float64))

    def sample(self, volume: np.ndarray, affine: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Sample one volume.

        Parameters
        ----------
        volume : array of shape (x, y, z), float32
        affine : array of shape (4, 4)
            Of the volume.
        matrix : array of shape (4, 4)
            Its motion matrix: where the point at x in the reference is in the volume.

        Returns
        -------
        array of shape (n_voxels,), float32
            Voxels that lie outside the volume take the value at its edge.
        """
        from scipy.ndimage import map_coordinates

        to_index = np.linalg.inv(affine) @ matrix
        if np.allclose(to_index @ self._affine, np.eye(4), atol=1e-7):
            return volume[tuple(self._index.T)].astype(np.float32)
        index = apply(to_index, self._points)
        np.clip(index, 0, np.array(volume.shape)[:, None] - 1.0, out=index)
        values = map_coordinates(
            spline_coefficients(volume), index, order=3, prefilter=False, mode="mirror",
            output=np.float32,
        )  # fmt: skip
        return np.asarray(values)

    def covered(
        self, shape: tuple[int, ...], affine: np.ndarray, matrix: np.ndarray
    ) -> np.ndarray:
        """Say which voxels lie inside a volume's grid (half a voxel beyond counts), (n_voxels,)."""
        index = apply(np.linalg.inv(affine) @ matrix, self._points)
        inside = (index >= -0.5) & (index <= np.array(shape)[:, None] - 0.5)
        return np.asarray(inside.all(axis=0))
