"""A simulated head: tissues as smooth functions of position, and the voxels its units live in.

The contrasts are those of real images (BrainWeb's digital phantom, Collins et al. 1998,
doi:10.1109/42.712135); the patches lie where category-selective cortex lies (Grill-Spector and
Weiner 2014, doi:10.1038/nrn3747).

What differs: the tissues are not voxels but smooth functions of the position in mm: an ellipsoid in
two hemispheres with a folded cortex, ventricles and a scalp. The anatomical image, every moved
volume and the masks are samples of the same functions, so that a moved head needs no interpolation
and carries no trace of any. The head is shrunk until it fits the field of view: a field of 26 x 32
x 18 voxels of 3 mm holds a brain of about 65 x 83 x 40 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from afterimage.errors import ConfigError
from afterimage.simulate.visual_brain import EARLY, SELECTIVE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from afterimage.simulate.visual_brain import VisualBrain

TISSUES = ("grey", "white", "csf", "scalp", "bone")
#: Brightness of the tissues in scanner units.
BOLD_INTENSITY = {"grey": 1000.0, "white": 830.0, "csf": 1300.0, "scalp": 250.0, "bone": 40.0}
T1W_INTENSITY = {"grey": 600.0, "white": 900.0, "csf": 220.0, "scalp": 800.0, "bone": 90.0}
#: Blur of an image, as a share of its voxels: borders between tissues are hyperbolic tangents of
#: this scale, which is a full width at half maximum of 1.4 voxels, as of echo-planar images.
BLUR = 0.75
CORTEX_MM = 6.0
FOLD_MM = 2.0
FOLD_LENGTH_MM = 17.0
#: Depth of the cleft between the hemispheres, which cortex lines on both sides.
FISSURE_MM = 15.0
#: From the brain's surface outwards: fluid, bone, scalp; and air to the edge of the field of view.
SHELLS_MM = {"csf": 1.0, "bone": 2.5, "scalp": 2.5}
AIR_MM = 1.0
#: Depth over which the cerebrospinal fluid around the brain ends, mm below its surface.
PIA_MM = 0.5
#: Share of the voxels of a patch that carry a unit; the others answer to nothing.
RESPONSIVE = 0.8
#: A voxel may carry a unit where it holds this share of grey matter.
GREY_SHARE = 0.6

#: Centres of the areas, in half axes of the brain from its middle (right, front, up), one
#: hemisphere; the other is its mirror image. The visual word form area is on the left only.
ANCHORS = {
    "V1": (0.1, -0.9, 0.0),
    "V2": (0.3, -0.8, 0.0),
    "V4": (0.45, -0.6, -0.4),
    "FFA": (0.6, -0.2, -0.6),
    "PPA": (0.3, -0.05, -0.75),
    "EBA": (0.85, -0.3, 0.15),
    "VWFA": (-0.75, -0.35, -0.35),
    "FoodROI": (0.4, -0.35, -0.75),
    "LOanimal": (0.8, -0.4, -0.15),
    "LOvehicle": (0.65, -0.55, 0.3),
    "LOtool": (0.75, -0.2, 0.45),
}


@dataclass(frozen=True)
class Head:
    """One subject's head at rest in its field of view.

    Attributes
    ----------
    shape : tuple of int
        Voxels of a volume.
    affine : array of shape (4, 4)
        Voxel indices to scanner coordinates in mm (right, anterior, superior).
    centre_mm : array of shape (3,)
        Middle of the field of view, of the brain, and of all rotations.
    half_axes_mm : array of shape (3,)
        Of the ellipsoid of the brain.
    fold_phases : array of shape (3, 3)
        Where the folds of this subject's cortex lie, radians.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    centre_mm: np.ndarray
    half_axes_mm: np.ndarray
    fold_phases: np.ndarray

    @property
    def voxel_size_mm(self) -> float:
        """Edge of a voxel."""
        return float(self.affine[0, 0])


@dataclass(frozen=True)
class Placement:
    """Where the units of a subject are.

    Attributes
    ----------
    unit_voxels : array of int, shape (n_units, 3)
        Indices i, j, k of the voxel of each unit.
    patches : dict of str to array of int, shape (n_voxels, 3)
        All voxels of each area, those without a unit too.
    brain : array of bool, shape of the volume
        Voxels of the brain.
    grey : array of bool, shape of the volume
        Voxels that are mostly grey matter.
    """

    unit_voxels: np.ndarray
    patches: dict[str, np.ndarray]
    brain: np.ndarray
    grey: np.ndarray


def draw_head(shape: tuple[int, int, int], voxel_size_mm: float, rng: np.random.Generator) -> Head:
    """Draw a head that fills its field of view.

    Parameters
    ----------
    shape : tuple of int
        Voxels of a volume.
    voxel_size_mm : float
    rng : Generator
        Size of the head, to 3 %, and the folds.
    """
    affine = np.diag([voxel_size_mm] * 3 + [1.0])
    # As on a scanner, its origin is neither a corner nor the middle of the field of view.
    half_field_mm = np.array(shape) * voxel_size_mm / 2
    centre_mm = np.array([1.5, -22.0, 8.0])
    affine[:3, 3] = centre_mm - (np.array(shape) - 1) / 2 * voxel_size_mm
    half_axes_mm = half_field_mm - sum(SHELLS_MM.values()) - AIR_MM
    if half_axes_mm.min() < CORTEX_MM + FOLD_MM:
        raise ConfigError(
            "the field of view is too small for a head",
            where="simulate_bold: shape_voxels, voxel_size_mm",
            found=" x ".join(f"{2 * half:g}" for half in half_field_mm) + " mm",
            expected=f"every side at least {2 * (CORTEX_MM + FOLD_MM + 7):.0f} mm",
            fix="ask for more or larger voxels",
        )
    return Head(
        shape,
        affine,
        centre_mm,
        half_axes_mm * rng.uniform(0.97, 1.0, 3),
        rng.uniform(0, 2 * np.pi, (3, 3)),
    )


def grid_mm(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """Return the scanner coordinates of all voxels in C order, (n_voxels, 3) float32, mm."""
    indices = np.indices(shape).reshape(3, -1).T
    return (indices @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)


def tissue_shares(
    head: Head, points_mm: np.ndarray, voxel_size_mm: float | None = None
) -> dict[str, np.ndarray]:
    """Return how much of each tissue an image shows at each point.

    Parameters
    ----------
    head : Head
    points_mm : array of shape (n, 3), float32
        Places in the resting head, scanner coordinates.
    voxel_size_mm : float or None
        Edge of the image's voxels, which sets its blur; None for those of the BOLD images.

    Returns
    -------
    dict of str to array of shape (n,), float32
        For each of `TISSUES`; they sum to at most 1, the rest is air.
    """
    border_mm = BLUR * (voxel_size_mm or head.voxel_size_mm)
    offset = points_mm - head.centre_mm.astype(np.float32)
    scaled = offset / head.half_axes_mm.astype(np.float32)
    radius = np.sqrt(np.einsum("nd,nd->n", scaled, scaled))
    distance = np.sqrt(np.einsum("nd,nd->n", offset, offset))
    # Along the line from the centre, which is exact enough for shells of a few mm.
    depth = distance / np.maximum(radius, np.float32(1e-3)) * (1 - radius)
    fissure = np.hypot(offset[:, 0], np.maximum(depth - np.float32(FISSURE_MM), 0))
    within = np.minimum(depth, fissure)

    wave = np.float32(2 * np.pi / FOLD_LENGTH_MM)
    phases = head.fold_phases.astype(np.float32)
    folds = np.zeros_like(depth)
    for axis in range(3):
        along, across = offset[:, axis], offset[:, (axis + 1) % 3]
        folds += np.sin(wave * along + phases[axis, 0]) * np.sin(wave * across + phases[axis, 1])
    inside = _above(within - PIA_MM, border_mm)
    deep = _above(within - CORTEX_MM - FOLD_MM * folds, border_mm)
    ventricles = np.zeros_like(depth)
    for side in (-1.0, 1.0):
        middle = np.array([0.17 * side, 0.12, 0.1], dtype=np.float32)
        half = np.array([0.1, 0.3, 0.22], dtype=np.float32)
        away = (scaled - middle) / half
        ventricles += _above(4 * (1 - np.sqrt(np.einsum("nd,nd->n", away, away))), border_mm)
    shells = [_above(depth + limit, border_mm) for limit in np.cumsum(list(SHELLS_MM.values()))]
    return {
        "grey": inside * (1 - deep),
        "white": inside * deep * (1 - ventricles),
        "csf": inside * deep * ventricles + np.maximum(shells[0] - inside, 0),
        "bone": np.maximum(shells[1] - np.maximum(shells[0], inside), 0),
        "scalp": np.maximum(shells[2] - shells[1], 0),
    }


def brightness(
    head: Head,
    points_mm: np.ndarray,
    intensity: Mapping[str, float] = BOLD_INTENSITY,
    voxel_size_mm: float | None = None,
) -> np.ndarray:
    """Return the signal of the resting head at the points, (n,) float32, scanner units.

    See `tissue_shares`.
    """
    shares = tissue_shares(head, points_mm, voxel_size_mm)
    total = np.zeros(len(points_mm), dtype=np.float32)
    for name in TISSUES:
        total += np.float32(intensity[name]) * shares[name]
    return total


def draw_anatomy(
    head: Head, voxel_size_mm: float, noise: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sample a T1-weighted image of the same field of view.

    Parameters
    ----------
    head : Head
    voxel_size_mm : float
        Edge of its voxels.
    noise : float
        Standard deviation of the noise, scanner units.
    rng : Generator

    Returns
    -------
    image : array of int16, 3-D
    affine : array of shape (4, 4)
    """
    extent_mm = np.array(head.shape) * head.voxel_size_mm
    n_x, n_y, n_z = (int(n) for n in np.ceil(extent_mm / voxel_size_mm))
    shape = (n_x, n_y, n_z)
    affine = np.diag([voxel_size_mm] * 3 + [1.0])
    affine[:3, 3] = head.centre_mm - (np.array(shape) - 1) / 2 * voxel_size_mm
    signal = brightness(head, grid_mm(shape, affine), T1W_INTENSITY, voxel_size_mm)
    real, imaginary = rng.normal(scale=noise, size=(2, len(signal)))
    noisy = np.hypot(signal + real, imaginary)
    return np.rint(noisy).astype(np.int16).reshape(shape), affine


def place_units(head: Head, brain: VisualBrain, rng: np.random.Generator) -> Placement:
    """Give every unit a grey-matter voxel in the patches of its area.

    The units of an early area are laid out by their receptive fields: the left half of the field of
    vision on the right, the upper half below, neighbours beside neighbours.

    Parameters
    ----------
    head : Head
    brain : VisualBrain
    rng : Generator
        Chooses the voxels of a patch that answer to nothing.

    Returns
    -------
    Placement
    """
    from scipy.optimize import linear_sum_assignment

    points_mm = grid_mm(head.shape, head.affine)
    shares = tissue_shares(head, points_mm)
    grey = (shares["grey"] > GREY_SHARE).reshape(head.shape)
    voxels = np.argwhere(grey)
    places = (points_mm[grey.ravel()] - head.centre_mm) / head.half_axes_mm
    n_needed = sum(_n_voxels(brain, roi) for roi in (*SELECTIVE, *EARLY))
    if n_needed > len(voxels):
        raise ConfigError(
            "the simulated brain is too small for its units",
            where="simulate_bold: n_early_units, n_selective_units, shape_voxels",
            found=f"{len(brain.roi)} units, which need {n_needed} voxels of grey matter",
            expected=f"at most {len(voxels)} voxels",
            fix="ask for fewer units, or for more voxels",
        )
    free = np.ones(len(voxels), dtype=bool)
    unit_voxels = np.zeros((len(brain.roi), 3), dtype=np.int64)
    patches = {}
    # The small patches first: V1 to V4 then take what is left around the occipital pole.
    for roi in (*SELECTIVE, *EARLY):
        units = np.flatnonzero(brain.roi == roi)
        chosen = _nearest(places, free, np.array(ANCHORS[roi]), _n_voxels(brain, roi))
        free[chosen] = False
        patches[roi] = voxels[chosen]
        active = np.sort(rng.choice(chosen, len(units), replace=False))
        if roi in EARLY and len(units):
            wanted = _ranks(np.stack([1 - brain.x[units], brain.y[units]], axis=1))
            found = _ranks(places[active][:, [0, 2]])
            cost = ((wanted[:, None] - found[None]) ** 2).sum(axis=-1)
            active = active[linear_sum_assignment(cost)[1]]
        unit_voxels[units] = voxels[active]
    inside = shares["grey"] + shares["white"] + shares["csf"] > 0.5
    inside &= np.linalg.norm((points_mm - head.centre_mm) / head.half_axes_mm, axis=1) < 1
    return Placement(unit_voxels, patches, inside.reshape(head.shape), grey)


def _above(signed_mm: np.ndarray, border_mm: float) -> np.ndarray:
    """Smooth step: 0 well below zero, 1 well above."""
    return np.float32(0.5) + np.float32(0.5) * np.tanh(signed_mm * np.float32(1 / border_mm))


def _n_voxels(brain: VisualBrain, roi: str) -> int:
    """Size of the patch of an area."""
    return int(np.ceil((brain.roi == roi).sum() / RESPONSIVE))


def _nearest(places: np.ndarray, free: np.ndarray, anchor: np.ndarray, n: int) -> np.ndarray:
    """Find the ``n`` free places nearest to an anchor or, but for words, its mirror image."""
    distance = np.linalg.norm(places - anchor, axis=1)
    if anchor[0] > 0:
        mirrored = np.linalg.norm(places - anchor * (-1, 1, 1), axis=1)
        distance = np.minimum(distance, mirrored)
    order = np.argsort(np.where(free, distance, np.inf), kind="stable")
    return order[:n]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value within its column, 0 to 1."""
    ranks: np.ndarray = values.argsort(axis=0).argsort(axis=0) / len(values)
    return ranks
