"""The same sources seen by different sensors: caps of 19, 32 and 64 electrodes, a helmet of coils.

What a model of any montage must learn is one field and many places to measure it. Dipoles lie where
they lie in everybody, heads differ in size and in how the brain lies in them; each layout samples
the fields of the same twelve dipoles through the sphere model of `meeg_geometry`.

What differs from `simulate.meeg`: no pictures, no blinks, no mains; courses are 1/f and a rhythm of
each dipole's own, so that a recording is low in rank, its rhythms wax and wane, and the share of
sensor noise is known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import ConfigError
from afterimage.simulate.meeg_geometry import (
    CENTRE_M,
    ELECTRODES,
    draw_anatomy,
    electrode_info,
    folded_directions,
    head_places,
    helmet_info,
    leadfield,
)
from afterimage.simulate.meeg_noise import alpha, background, coloured

if TYPE_CHECKING:
    import mne

    from afterimage.simulate.meeg_geometry import Anatomy

#: Strength of a dipole, A m.
STRENGTH_A_M = 1e-7
#: Frequencies of the rhythms, one a dipole, spread evenly over this band, Hz.
RHYTHMS_HZ = (4.0, 14.0)
LAYOUTS: dict[str, tuple[str, ...]] = {
    "eeg19": (
        "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3",
        "Pz", "P4", "P8", "O1", "O2",
    ),
    "eeg32": (
        "Fp1", "AF3", "F7", "F3", "FC1", "FC5", "T7", "C3", "CP1", "CP5", "P7", "P3", "Pz", "PO3",
        "O1", "Oz", "O2", "PO4", "P4", "P8", "CP6", "CP2", "C4", "T8", "FC6", "FC2", "F4", "F8",
        "AF4", "Fp2", "Fz", "Cz",
    ),
    "eeg64": ELECTRODES,
    "mag102": (),
    "grad204": (),
}  # fmt: skip


@dataclass(frozen=True)
class SharedSources:
    """Dipoles that everybody has.

    Attributes
    ----------
    anchors : array of shape (n_dipoles, 3)
        In half axes of the brain (right, front, up).
    turns : array of shape (n_dipoles, 3)
        Directions in a brain that is not turned, unit vectors.
    rhythms_hz : array of shape (n_dipoles,)
    rhythm_shares : array of shape (n_dipoles,)
        Part of the variance of a course that is its rhythm.
    """

    anchors: NDArray[np.float64]
    turns: NDArray[np.float64]
    rhythms_hz: NDArray[np.float64]
    rhythm_shares: NDArray[np.float64]


@dataclass(frozen=True)
class SeenSources:
    """One recording of shared sources.

    Attributes
    ----------
    values : array of shape (n_channels, n_times), float32
        V, T or T/m; electrodes against their mean.
    clean : array of shape (n_channels, n_times), float32
        The same without sensor noise.
    courses : array of shape (n_dipoles, n_times), float32
        Of the dipoles, A m.
    field : array of shape (n_channels, n_dipoles)
        What each sensor measures of a dipole of 1 A m, electrodes against their mean.
    positions_m, orientations : array of shape (n_channels, 3)
        Head coordinates. The orientation is the normal of a magnetometer and the baseline of a
        planar gradiometer, zeros for an electrode.
    kinds : array of str, shape (n_channels,)
        ``eeg``, ``mag`` or ``grad``.
    names : tuple of str
    sfreq_hz : float
    info : mne.Info
        Of the same sensors.
    """

    values: NDArray[np.float32]
    clean: NDArray[np.float32]
    courses: NDArray[np.float32]
    field: NDArray[np.float64]
    positions_m: NDArray[np.float64]
    orientations: NDArray[np.float64]
    kinds: NDArray[np.str_]
    names: tuple[str, ...]
    sfreq_hz: float
    info: mne.Info


def draw_sources(n_dipoles: int = 12, random_state: int = 0) -> SharedSources:
    """Spread dipoles over cortex, each with a rhythm of its own.

    Parameters
    ----------
    n_dipoles : int
    random_state : int
    """
    rng = np.random.default_rng(random_state)
    # The upper four fifths of a sphere, evenly, at three quarters of its radius.
    height = 0.95 - 1.15 * (np.arange(n_dipoles) + 0.5) / n_dipoles
    angle = np.pi * (1 + np.sqrt(5)) * np.arange(n_dipoles) + rng.uniform(0, 2 * np.pi)
    width = np.sqrt(1 - height**2)
    anchors = 0.75 * np.column_stack([width * np.cos(angle), width * np.sin(angle), height])
    rhythms_hz = rng.permutation(np.linspace(*RHYTHMS_HZ, n_dipoles))
    return SharedSources(
        anchors,
        folded_directions(CENTRE_M + anchors, 1.0, rng),
        rhythms_hz,
        rng.uniform(0.5, 0.9, n_dipoles),
    )


def draw_courses(
    sources: SharedSources, n_times: int, sfreq_hz: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw what the dipoles do, A m: 1/f and rhythms, (n_dipoles, n_times)."""
    n_dipoles = len(sources.anchors)
    share = sources.rhythm_shares[:, None]
    mixed = np.sqrt(share) * alpha(sources.rhythms_hz, n_times, sfreq_hz, rng)
    mixed = mixed + np.sqrt(1 - share) * background(n_dipoles, n_times, sfreq_hz, rng)
    return (STRENGTH_A_M * mixed).astype(np.float32)


def record(
    sources: SharedSources,
    layout: str,
    *,
    duration_s: float,
    sfreq_hz: float = 128.0,
    noise_share: float = 0.1,
    random_state: int,
) -> SeenSources:
    """Record a new person's shared sources with one layout.

    Parameters
    ----------
    sources : SharedSources
    layout : str
        One of `LAYOUTS`.
    duration_s, sfreq_hz : float
    noise_share : float
        Variance of the noise of a sensor over that of its kind's mean signal; white.
    random_state : int
        Seed of the person's head, of the courses and of the noise.
    """
    if layout not in LAYOUTS:
        raise ConfigError("unknown layout", found=layout, expected=", ".join(LAYOUTS))
    rng = np.random.default_rng((random_state, 7))
    anatomy = draw_anatomy(rng)
    info, positions_m, orientations, kinds = _sensors(anatomy, layout, sfreq_hz)
    places = head_places(anatomy, sources.anchors)
    field = leadfield(anatomy, info, places, sources.turns @ anatomy.turn.T)
    if kinds[0] == "eeg":
        field = field - field.mean(0)
    n_times = round(duration_s * sfreq_hz)
    courses = draw_courses(sources, n_times, sfreq_hz, rng)
    clean = field @ courses
    noise = coloured(len(field), n_times, sfreq_hz, np.ones_like, rng)
    noise = noise * np.sqrt(noise_share * clean.var(1).mean())
    if kinds[0] == "eeg":
        noise -= noise.mean(0)
    return SeenSources(
        (clean + noise).astype(np.float32), clean.astype(np.float32), courses, field,
        positions_m, orientations, kinds, tuple(info["ch_names"]), sfreq_hz, info,
    )  # fmt: skip


def _sensors(
    anatomy: Anatomy, layout: str, sfreq_hz: float
) -> tuple[mne.Info, NDArray[np.float64], NDArray[np.float64], NDArray[np.str_]]:
    """Describe the sensors of a layout: info, positions and orientations in head coordinates."""
    import mne

    if layout.startswith("eeg"):
        info = electrode_info(anatomy, sfreq_hz, LAYOUTS[layout])
        positions_m = np.array([channel["loc"][:3] for channel in info["chs"]])
        return info, positions_m, np.zeros_like(positions_m), np.full(len(positions_m), "eeg")
    info = helmet_info(anatomy, sfreq_hz)
    kind = layout.rstrip("0123456789")
    info = mne.pick_info(info, mne.pick_types(info, meg=kind))
    places = np.array([channel["loc"] for channel in info["chs"]])
    turn, shift = anatomy.dev_head[:3, :3], anatomy.dev_head[:3, 3]
    axis = places[:, 9:12] if kind == "mag" else places[:, 3:6]
    return info, places[:, :3] @ turn.T + shift, axis @ turn.T, np.full(len(places), kind)
