"""A simulated head between sensors: electrodes, a helmet of coils, dipoles, one sphere model.

Electric and magnetic fields of a dipole in a layered sphere: Berg and Scherg 1994
(doi:10.1016/0013-4694(94)90051-5) and Sarvas 1987 (doi:10.1088/0031-9155/32/1/004), as MNE-Python
computes them (Gramfort et al. 2013, doi:10.3389/fnins.2013.00267).

What differs: the head is a sphere with the fiducials on it, a little larger or smaller, and turned,
from subject to subject. Electrodes have the names and the directions of the 10-05 system. The
helmet is ours: 102 places spread evenly over a cap that is open at the face, each with the three
coils of a VectorView device (a magnetometer and two planar gradiometers at right angles). Visual
areas lie where `head.ANCHORS` puts them; cortex is folded, so neighbouring dipoles of one area
point in different directions, most of them along the surface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from afterimage.simulate.head import ANCHORS
from afterimage.simulate.visual_brain import EARLY, SELECTIVE

if TYPE_CHECKING:
    import mne

#: Middle of the head in head coordinates (m), and its radius in an average subject.
CENTRE_M = np.array([0.0, 0.0, 0.04])
RADIUS_M = 0.093
#: Half axis of the brain that `head.ANCHORS` are shares of, in radii of the head.
BRAIN_SHARE = 0.88
HELMET_RADIUS_M = 0.118
N_HELMET_PLACES = 102
#: Electrode the amplifier measures against; it is none of the recorded ones.
REFERENCE = "TP9"
#: The electrodes of a cap of 64.
ELECTRODES = (
    "Fp1", "AF7", "AF3", "F1", "F3", "F5", "F7", "FT7", "FC5", "FC3", "FC1", "C1", "C3", "C5",
    "T7", "TP7", "CP5", "CP3", "CP1", "P1", "P3", "P5", "P7", "P9", "PO7", "PO3", "O1", "Iz",
    "Oz", "POz", "Pz", "CPz", "Fpz", "Fp2", "AF8", "AF4", "AFz", "Fz", "F2", "F4", "F6", "F8",
    "FT8", "FC6", "FC4", "FC2", "FCz", "Cz", "C2", "C4", "C6", "T8", "TP8", "CP6", "CP4", "CP2",
    "P2", "P4", "P6", "P8", "P10", "PO8", "PO4", "O2",
)  # fmt: skip
#: Dipoles of each early area in one hemisphere, and of each category-selective region.
N_EARLY_DIPOLES = {"V1": 8, "V2": 7, "V4": 6}
N_SELECTIVE_DIPOLES = 2


@dataclass(frozen=True)
class Anatomy:
    """The head of one subject.

    Attributes
    ----------
    radius_m : float
    turn : array of shape (3, 3)
        Rotation of the brain within the sphere.
    dev_head : array of shape (4, 4)
        From the coordinates of the helmet to those of the head.
    """

    radius_m: float
    turn: np.ndarray
    dev_head: np.ndarray


@dataclass(frozen=True)
class Dipoles:
    """Current dipoles of visual cortex.

    Attributes
    ----------
    roi : array of str, shape (n_dipoles,)
    hemisphere : array of str, shape (n_dipoles,)
        ``L`` or ``R``.
    place_m : array of shape (n_dipoles, 3)
        Head coordinates.
    direction : array of shape (n_dipoles, 3)
        Unit vectors.
    """

    roi: np.ndarray
    hemisphere: np.ndarray
    place_m: np.ndarray
    direction: np.ndarray


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a head: its size, how the brain is turned in it, how it lies in the helmet."""
    from scipy.spatial.transform import Rotation

    dev_head = np.eye(4)
    dev_head[:3, :3] = Rotation.from_euler("xyz", rng.normal(0, 3.0, 3), degrees=True).as_matrix()
    dev_head[:3, 3] = CENTRE_M + rng.normal(0, 0.002, 3)
    return Anatomy(
        radius_m=float(RADIUS_M * rng.uniform(0.95, 1.05)),
        turn=Rotation.from_euler("xyz", rng.normal(0, 4.0, 3), degrees=True).as_matrix(),
        dev_head=dev_head,
    )


def draw_dipoles(anatomy: Anatomy, rng: np.random.Generator) -> Dipoles:
    """Place the dipoles of visual cortex in a head.

    Those of an early area run from the lower to the upper bank of its hemisphere, in the order of
    the table: the lower sees the upper half of the picture.

    Parameters
    ----------
    anatomy : Anatomy
    rng : Generator
    """
    roi: list[str] = []
    hemisphere: list[str] = []
    places: list[np.ndarray] = []
    for name in (*EARLY, *SELECTIVE):
        n_places = N_EARLY_DIPOLES.get(name, N_SELECTIVE_DIPOLES)
        right, front, up = ANCHORS[name]
        for side in ("L", "R"):
            if right < 0 and side == "R":
                continue
            for index in range(n_places):
                along = (index + 0.5) / n_places - 0.5
                spread = 0.3 if name in EARLY else 0.12
                across = abs(right) * (-1 if side == "L" else 1)
                places.append(np.array([across, front, up + spread * along]))
                roi.append(name)
                hemisphere.append(side)
    anchors = np.array(places) + rng.normal(0, 0.03, (len(places), 3))
    anchors *= np.minimum(1, 0.93 / np.linalg.norm(anchors, axis=1, keepdims=True))
    place_m = head_places(anatomy, anchors)
    direction = folded_directions(place_m, 1.0, rng)
    return Dipoles(np.array(roi), np.array(hemisphere), place_m, direction)


def head_places(anatomy: Anatomy, anchors: np.ndarray) -> np.ndarray:
    """Bring places given in half axes of the brain (right, front, up) to head coordinates, m."""
    places: np.ndarray = CENTRE_M + BRAIN_SHARE * anatomy.radius_m * anchors @ anatomy.turn.T
    return places


def folded_directions(
    place_m: np.ndarray, outwards: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw directions of cortical dipoles.

    Parameters
    ----------
    place_m : array of shape (n, 3)
    outwards : float
        Component along the radius of the head, in units of that along its surface.
    rng : Generator

    Returns
    -------
    array of shape (n, 3)
        Unit vectors; the component along the surface is drawn at random.
    """
    radial = place_m - CENTRE_M
    radial = radial / np.linalg.norm(radial, axis=1, keepdims=True)
    drawn = rng.standard_normal(place_m.shape)
    drawn -= (drawn * radial).sum(axis=1, keepdims=True) * radial
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    direction: np.ndarray = drawn + outwards * rng.choice([-1, 1], len(radial))[:, None] * radial
    return direction / np.linalg.norm(direction, axis=1, keepdims=True)


def electrode_info(anatomy: Anatomy, sampling_rate_hz: float, names: tuple[str, ...]) -> mne.Info:
    """Describe electrodes on the head, in head coordinates.

    Parameters
    ----------
    anatomy : Anatomy
    sampling_rate_hz : float
    names : tuple of str
        Electrodes of the 10-05 system.
    """
    import mne

    template = mne.create_info([*ELECTRODES, REFERENCE], sampling_rate_hz, "eeg")
    directions = _directions(template.set_montage("colin27_1005"))
    info = mne.create_info(list(names), sampling_rate_hz, "eeg")
    where = {name: CENTRE_M + anatomy.radius_m * directions[name] for name in names}
    info.set_montage(
        mne.channels.make_dig_montage(where, coord_frame="head", **_fiducials(anatomy))
    )
    return info


def helmet_info(anatomy: Anatomy, sampling_rate_hz: float) -> mne.Info:
    """Describe a helmet of 102 magnetometers and 204 planar gradiometers around the head.

    Parameters
    ----------
    anatomy : Anatomy
    sampling_rate_hz : float

    Returns
    -------
    Info
        ``MEGxxx1`` are magnetometers, ``MEGxxx2`` and ``MEGxxx3`` gradiometers; digitised are the
        fiducials and 60 points of the scalp.
    """
    import mne
    from mne.io.constants import FIFF

    outwards = helmet_directions()
    names = [
        f"MEG{place:03d}{coil}" for place in range(1, len(outwards) + 1) for coil in (1, 2, 3)
    ]
    info = mne.create_info(names, sampling_rate_hz, ["mag", "grad", "grad"] * len(outwards))
    for number, channel in enumerate(info["chs"]):
        normal = outwards[number // 3]
        first = np.cross([0.0, 1.0, 0.0], normal)
        first /= np.linalg.norm(first)
        second = np.cross(normal, first)
        # The baseline of a planar gradiometer lies along the first axis of its coil.
        axes = (second, -first, normal) if number % 3 == 2 else (first, second, normal)
        channel["loc"] = np.concatenate([HELMET_RADIUS_M * normal, *axes])
        channel["coord_frame"] = FIFF.FIFFV_COORD_DEVICE
        is_magnetometer = number % 3 == 0
        channel["coil_type"] = (
            FIFF.FIFFV_COIL_VV_MAG_T3 if is_magnetometer else FIFF.FIFFV_COIL_VV_PLANAR_T1
        )
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", anatomy.dev_head)
    scalp = CENTRE_M + anatomy.radius_m * _spiral(120)[:60]
    info.set_montage(
        mne.channels.make_dig_montage(hsp=scalp, coord_frame="head", **_fiducials(anatomy))
    )
    return info


def helmet_directions() -> np.ndarray:
    """Return where the places of the helmet lie from its middle, unit vectors, from top to rim."""
    n_points = N_HELMET_PLACES
    while True:
        points = _spiral(n_points)
        # Lower at the back than at the face.
        inside = points[points[:, 2] > -0.45 + 0.75 * np.maximum(points[:, 1], 0)]
        if len(inside) >= N_HELMET_PLACES:
            return inside[:N_HELMET_PLACES]
        n_points += 1


def leadfield(
    anatomy: Anatomy, info: mne.Info, place_m: np.ndarray, direction: np.ndarray
) -> np.ndarray:
    """Compute what each sensor measures of each dipole.

    Parameters
    ----------
    anatomy : Anatomy
    info : Info
        Of `electrode_info` or of `helmet_info`.
    place_m, direction : array of shape (n_dipoles, 3)
        Head coordinates; directions are unit vectors.

    Returns
    -------
    array of shape (n_channels, n_dipoles), float64
        V, T or T/m for a dipole of 1 A m.
    """
    import mne

    sphere = mne.make_sphere_model(tuple(CENTRE_M), anatomy.radius_m, verbose="error")
    space = mne.setup_volume_source_space(
        pos={"rr": place_m, "nn": direction}, sphere_units="m", verbose="error"
    )
    solution = mne.make_forward_solution(info, None, space, sphere, mindist=0.0, verbose="error")
    # Three columns a dipole, along the axes of the head.
    free = solution["sol"]["data"].reshape(len(info["ch_names"]), -1, 3)
    if free.shape[1] != len(place_m):
        raise ValueError("a dipole lies outside the brain")
    field: np.ndarray = np.einsum("cdx,dx->cd", free, direction)
    return field


def _spiral(n_points: int) -> np.ndarray:
    """Spread points evenly over a sphere, from top to bottom, (n_points, 3)."""
    height = 1 - 2 * (np.arange(n_points) + 0.5) / n_points
    angle = np.pi * (1 + np.sqrt(5)) * np.arange(n_points)
    width = np.sqrt(1 - height**2)
    return np.column_stack([width * np.cos(angle), width * np.sin(angle), height])


def _fiducials(anatomy: Anatomy) -> dict[str, np.ndarray]:
    """Nasion and ears on the head, where the plane of the coordinates cuts it."""
    width = np.sqrt(anatomy.radius_m**2 - CENTRE_M[2] ** 2)
    return {
        "nasion": np.array([0.0, width, 0.0]),
        "lpa": np.array([-width, 0.0, 0.0]),
        "rpa": np.array([width, 0.0, 0.0]),
    }


def _directions(info: mne.Info) -> dict[str, np.ndarray]:
    """Direction of each electrode from the middle of the sphere that fits the cap best."""
    places = np.array([channel["loc"][:3] for channel in info["chs"]])
    fitted = np.column_stack([2 * places, np.ones(len(places))])
    solution, *_ = np.linalg.lstsq(fitted, (places**2).sum(axis=1), rcond=None)
    offsets = places - solution[:3]
    offsets /= np.linalg.norm(offsets, axis=1, keepdims=True)
    return dict(zip(info["ch_names"], offsets, strict=True))
