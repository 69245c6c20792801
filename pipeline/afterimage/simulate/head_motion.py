"""Head motion of a simulated session: slow drift, sudden spikes, and volumes that really move.

Spurious but systematic correlations in functional connectivity MRI networks arise from subject
motion (Power et al. 2012, doi:10.1016/j.neuroimage.2011.10.018) for the two kinds of motion and
their size.

The convention. Six numbers a volume, in the order of fMRIPrep's confounds: ``trans_x trans_y
trans_z`` in mm and ``rot_x rot_y rot_z`` in radians. They say where the head went: tissue that
rests at x is found at

    y = R (x - c) + c + t,    R = R_z R_y R_x,

in scanner coordinates (right, anterior, superior), with c the middle of the field of view and
positive angles counter-clockwise when one looks against the axis (R_x turns y towards z). What
differs from a real head: it holds still while a volume is acquired.
"""

from __future__ import annotations

import numpy as np

from afterimage.simulate.head import Head, brightness

COLUMNS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
#: One radian counts as this many mm (the radius of a head), in drawing and in displacement.
HEAD_RADIUS_MM = 50.0
#: The slow drift has periods from this one upwards.
DRIFT_PERIOD_S = 60.0


def draw_motion(
    n_volumes: int,
    t_r_s: float,
    start: np.ndarray,
    drift_mm: float,
    n_spikes: int,
    spike_mm: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the motion of one run.

    Parameters
    ----------
    n_volumes : int
    t_r_s : float
    start : array of shape (6,)
        Pose in the first volume, mm and radians.
    drift_mm : float
        Standard deviation of the slow drift of each parameter over the run; angles by
        `HEAD_RADIUS_MM`.
    n_spikes : int
        Sudden moves; each lasts one or two volumes, and half of every second one stays.
    spike_mm : float
        Size of a spike: the sum of the six parameters' moves, in mm.
    rng : Generator

    Returns
    -------
    array of shape (n_volumes, 6), float64
    """
    to_unit = np.array([1.0] * 3 + [1 / HEAD_RADIUS_MM] * 3)
    n_waves = max(1, int(2 * n_volumes * t_r_s / DRIFT_PERIOD_S))
    wave = np.arange(1, n_waves + 1)
    phase = np.pi * (np.arange(n_volumes)[:, None] + 0.5) / n_volumes * wave
    # Amplitudes fall as one over the frequency; half of the variance is in the first wave.
    drift = np.cos(phase) / wave @ rng.normal(size=(n_waves, 6))
    drift /= max(float(np.sqrt(0.5 * (1.0 / wave**2).sum())), 1e-9)
    motion = drift_mm * drift
    for volume in np.sort(rng.choice(np.arange(1, n_volumes), n_spikes, replace=False)):
        direction = rng.normal(size=6)
        move = spike_mm * direction / np.abs(direction).sum()
        stays = rng.choice([0.0, 0.5])
        motion[volume : volume + rng.integers(1, 3)] += (1 - stays) * move
        motion[volume:] += stays * move
    moved: np.ndarray = start + (motion - motion[0]) * to_unit
    return moved


def rigid_matrix(parameters: np.ndarray, centre_mm: np.ndarray) -> np.ndarray:
    """Return the (4, 4) matrix that moves resting tissue to where it is in a volume.

    Parameters
    ----------
    parameters : array of shape (6,)
        Three translations in mm, three angles in radians.
    centre_mm : array of shape (3,)
    """
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    # Small letters turn about fixed axes, x first: R_z R_y R_x.
    matrix[:3, :3] = Rotation.from_euler("xyz", parameters[3:]).as_matrix()
    matrix[:3, 3] = parameters[:3] + centre_mm - matrix[:3, :3] @ centre_mm
    return matrix


def framewise_displacement(motion: np.ndarray) -> np.ndarray:
    """Sum of the absolute changes from volume to volume, (n_volumes,), mm; the first is NaN."""
    change = np.abs(np.diff(motion, axis=0))
    change[:, 3:] *= HEAD_RADIUS_MM
    return np.concatenate([[np.nan], change.sum(axis=1)])


def moved_volume(
    head: Head, points_mm: np.ndarray, percent: np.ndarray, parameters: np.ndarray
) -> np.ndarray:
    """Sample a moved head whose signal deviates from its mean by some percent.

    The anatomy is evaluated at the places that the voxels see in the resting head; the deviations,
    known at the voxels, are resampled by cubic splines.

    Parameters
    ----------
    head : Head
    points_mm : array of shape (n_voxels, 3), float32
        Centres of all voxels, C order.
    percent : array of the volume's shape, float32
        Deviation of each voxel of the resting head, percent of its mean signal.
    parameters : array of shape (6,)

    Returns
    -------
    array of the volume's shape, float32
        Scanner units, without thermal noise.
    """
    from scipy.ndimage import affine_transform

    to_rest = np.linalg.inv(rigid_matrix(parameters, head.centre_mm))
    seen_mm = points_mm @ to_rest[:3, :3].T.astype(np.float32) + to_rest[:3, 3].astype(np.float32)
    still = brightness(head, seen_mm).reshape(head.shape)
    if np.any(parameters):
        indices = np.linalg.inv(head.affine) @ to_rest @ head.affine
        percent = affine_transform(percent, indices, order=3, mode="nearest", output=np.float32)
    moved: np.ndarray = still * (1 + percent / np.float32(100))
    return moved
