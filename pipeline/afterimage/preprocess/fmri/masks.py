"""Masks of the brain and of regions: found, intersected, brought to the grid of the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afterimage.errors import InputError

#: Two grids are the same when no corner differs by more than this share of a voxel.
SAME_GRID_VOXELS = 0.02


def same_grid(
    shape: Sequence[int], affine: np.ndarray, other_shape: Sequence[int], other_affine: np.ndarray
) -> bool:
    """Say whether two images share shape and, to a fiftieth of a voxel, place."""
    return tuple(shape[:3]) == tuple(other_shape[:3]) and same_place(shape, affine, other_affine)


def same_place(shape: Sequence[int], affine: np.ndarray, other_affine: np.ndarray) -> bool:
    """Say whether two affines put every corner of a grid of ``shape`` at the same point."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape[:3]])).reshape(3, -1)
    homogeneous = np.vstack([corners, np.ones(corners.shape[1])])
    apart = np.linalg.norm(((affine - other_affine) @ homogeneous)[:3], axis=0)
    voxel = np.linalg.norm(affine[:3, :3], axis=0).min()
    return bool(apart.max() <= SAME_GRID_VOXELS * voxel)


def brain_mask(
    reference: np.ndarray, affine: np.ndarray, *, opening: int = 2, where: str = ""
) -> tuple[np.ndarray, list[str]]:
    """Find the brain in a mean image of BOLD.

    nilearn's ``compute_epi_mask`` (histogram valley, opening, largest component); where it fails
    or leaves nearly nothing or everything, as on a single slice or a small slab, Otsu's threshold.

    Parameters
    ----------
    reference : array of shape (x, y, z)
        Mean image.
    affine : array of shape (4, 4)
        Voxel indices to mm.
    opening : int
        Iterations of the morphological opening, voxels.
    where : str
        The subject, for error messages.

    Returns
    -------
    mask : array of bool, shape (x, y, z)
    notes : list of str

    Raises
    ------
    InputError
        If no threshold tells brain from background.
    """
    import warnings

    import nibabel
    from nilearn.masking import compute_epi_mask

    image = nibabel.Nifti1Image(np.asarray(reference, dtype=np.float32), affine)
    reason = f"a volume of {min(reference.shape)} slices"
    if min(reference.shape) > 2 * opening and np.ptp(reference) > 0:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = compute_epi_mask(image, opening=opening)
            mask = np.asarray(found.dataobj).astype(bool)
        except (ValueError, TypeError, IndexError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        else:
            if 0.02 < mask.mean() < 0.98:
                return mask, []
            reason = f"it kept {mask.mean():.0%} of the image"
    mask = _otsu(reference)
    if not 0.005 < mask.mean() < 0.9999:
        raise InputError(
            "no brain can be found in the mean image", where=where,
            found=f"a threshold that keeps {mask.mean():.1%} of the voxels",
            expected="a bright brain on a dark background",
            fix="give a brain mask as derivative, or look at the image",
        )  # fmt: skip
    return mask, [
        f"the usual brain mask could not be used ({reason}); Otsu's threshold was taken instead"
    ]


def _otsu(reference: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_fill_holes, label
    from skimage.filters import threshold_otsu

    if np.ptp(reference) <= 0:
        return np.zeros(reference.shape, dtype=bool)
    mask = reference > threshold_otsu(reference.ravel())
    for index in range(mask.shape[2]):
        mask[:, :, index] = binary_fill_holes(mask[:, :, index])
    labels, count = label(mask)
    if count > 1:
        sizes = np.bincount(labels.ravel())[1:]
        # Small islands are noise; larger ones can be parts of the brain that a slab cuts.
        mask = np.isin(labels, 1 + np.flatnonzero(sizes >= 0.05 * sizes.max()))
    return np.asarray(mask)


def to_grid(
    image: np.ndarray,
    image_affine: np.ndarray,
    shape: Sequence[int],
    affine: np.ndarray,
    *,
    where: str,
) -> np.ndarray:
    """Bring a mask, a segmentation or an atlas to another grid by nearest neighbour.

    Parameters
    ----------
    image : array of shape (x, y, z)
        Labels.
    image_affine : array of shape (4, 4)
        Its voxel indices to mm, in the same space as the target.
    shape, affine : sequence of int, array of shape (4, 4)
        Of the target, usually the reference image.
    where : str
        The image's file, for error messages.

    Returns
    -------
    array of shape ``shape``
        In the dtype of ``image``; 0 outside its field of view.

    Raises
    ------
    InputError
        If the image claims the same space and voxels but has another shape, or if nothing of
        what it labels lies in the target.
    """
    if same_grid(image.shape, image_affine, shape, affine):
        result = image
    elif same_place(shape, affine, image_affine):
        raise InputError(
            "a mask has another shape than the image it belongs to", where=where,
            found=f"shape {tuple(image.shape)}",
            expected=f"shape {tuple(shape)}: its affine is that of the image",
            fix="resample the mask to the image, or correct its affine",
        )  # fmt: skip
    else:
        import nibabel
        from nilearn.image import resample_img

        narrow = image.astype(np.int32 if image.dtype.kind in "iub" else np.float32)
        resampled = resample_img(
            nibabel.Nifti1Image(narrow, image_affine), target_affine=affine,
            target_shape=tuple(shape), interpolation="nearest", copy_header=True,
            force_resample=True,
        )  # fmt: skip
        result = np.asarray(resampled.dataobj).astype(image.dtype)
    if not (result > 0).any():
        raise InputError(
            "a mask does not overlap with the image", where=where,
            found=f"{int((image > 0).sum())} labelled voxels, none within the image",
            expected="a mask in the same space as the BOLD reference",
            fix="give the mask in the subject's own space, coregistered to the BOLD",
        )  # fmt: skip
    return np.asarray(result)


def roi_voxels(
    image: np.ndarray,
    image_affine: np.ndarray,
    shape: Sequence[int],
    affine: np.ndarray,
    *,
    where: str,
) -> np.ndarray:
    """Return the voxels of a region on the reference's grid: those where its mask is above 0.

    Parameters are those of `to_grid`; returns an array of bool of shape ``shape``.
    """
    return np.asarray(to_grid(image, image_affine, shape, affine, where=where) > 0)


def intersect(masks: Sequence[np.ndarray], *, where: str) -> np.ndarray:
    """Return the voxels that lie in all masks, bool, (x, y, z).

    Raises
    ------
    InputError
        If there are none.
    """
    mask = np.logical_and.reduce([np.asarray(mask) > 0 for mask in masks])
    if not mask.any():
        raise InputError(
            "the brain masks of the runs share no voxel", where=where,
            found=f"{len(masks)} masks", expected="masks of one brain, in one space",
            fix="check the masks; leave out the run whose mask lies elsewhere",
        )  # fmt: skip
    return mask


def voxel_coordinates(mask: np.ndarray, affine: np.ndarray) -> dict[str, np.ndarray]:
    """Return the coordinates of the voxels of a mask, in C order.

    Parameters
    ----------
    mask : array of bool, shape (x, y, z)
    affine : array of shape (4, 4)
        Voxel indices to scanner mm.

    Returns
    -------
    dict of array, each of shape (n_voxels,)
        ``i j k`` (int32), ``x y z`` (float32, mm) and ``kind`` (``voxel``).
    """
    index = np.argwhere(mask)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    coordinates = {
        name: index[:, axis].astype(np.int32) for axis, name in enumerate(("i", "j", "k"))
    }
    coordinates |= {
        name: points[:, axis].astype(np.float32) for axis, name in enumerate(("x", "y", "z"))
    }
    return coordinates | {"kind": np.full(len(index), "voxel")}
