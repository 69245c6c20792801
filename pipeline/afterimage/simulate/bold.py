"""A simulated visual brain in a scanner: BOLD runs whose single-trial responses are known.

A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence (Allen et al.
2022, doi:10.1038/s41593-021-00962-x) for the design, pictures 4 s apart and repeated over runs and
sessions, and for the noise ceiling.

What differs: the truth is known. The units of `visual_brain` sit in voxels of grey matter; a trial
adds to its voxel a haemodynamic response of the voxel's own form, whose height is the planted
response; everything a scanner adds follows (`scanner_noise`, `head_motion`).

The calibration. All noise keeps its proportions and has one scale. For every unit the error of
single-trial least squares (one regressor a trial with the unit's true response, cosines below
1 / 128 Hz and a constant, the head still) is computed for noise of scale 1: from the series drawn
for the noise of the tissue, as an expectation for the thermal noise. Its variance v over trials
scales with the square of the scale, s. A unit with signals of variance 1 and ceiling r then needs
the amplitude

    a = s sqrt(v) r / sqrt(1 - r^2),

and s is chosen so that the median amplitude is the one asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from afterimage.simulate.head import (
    BOLD_INTENSITY,
    Head,
    Placement,
    brightness,
    draw_head,
    grid_mm,
    place_units,
    tissue_shares,
)
from afterimage.simulate.head_motion import HEAD_RADIUS_MM, draw_motion, moved_volume
from afterimage.simulate.hemodynamics import Responses, draw_responses, trial_regressors
from afterimage.simulate.scanner_noise import (
    SHARES,
    NoiseMaps,
    add_thermal_noise,
    draw_noise_maps,
    drift,
    tissue_noise,
)
from afterimage.simulate.scanning import ScannedRun
from afterimage.simulate.visual_brain import VisualBrain, respond

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The calibration's model removes slower cosines than this, as analyses usually do.
HIGH_PASS_S = 128.0


@dataclass(frozen=True)
class Scanner:
    """How the brain is scanned, and how well.

    Attributes
    ----------
    shape : tuple of int
        Voxels of a volume.
    voxel_size_mm, t_r_s : float
    stimulus_s : float
        How long a picture is on.
    response_percent : float
        Median standard deviation of the planted responses over pictures, percent of the signal.
    mean_response : float
        Mean planted response of a unit, in its own standard deviations.
    peak_range_s : tuple of float
        Earliest and latest peak of the haemodynamic response.
    noise_scale : float
        1 for noise that gives the ceilings of the brain, 0 for none at all.
    drift_percent : float
        Standard deviation of the slow drift, percent of the signal.
    motion_mm, spike_mm, session_shift_mm : float
        Slow motion within a run, sudden moves, and the change of pose between sessions.
    n_spikes : int
        Sudden moves a run.
    """

    shape: tuple[int, int, int]
    voxel_size_mm: float
    t_r_s: float
    stimulus_s: float
    response_percent: float
    mean_response: float
    peak_range_s: tuple[float, float]
    noise_scale: float
    drift_percent: float
    motion_mm: float
    n_spikes: int
    spike_mm: float
    session_shift_mm: float

    @property
    def slice_times_s(self) -> np.ndarray:
        """When each slice is read after the start of its volume: bottom to top, no gap."""
        return np.round(np.arange(self.shape[2]) * self.t_r_s / self.shape[2], 4)

    def times_s(self, n_volumes: int) -> np.ndarray:
        """When each slice of each volume is read, (n_volumes, n_slices)."""
        return np.arange(n_volumes)[:, None] * self.t_r_s + self.slice_times_s


@dataclass(frozen=True)
class Subject:
    """All that is true of one simulated subject.

    Attributes
    ----------
    scanner : Scanner
    head : Head
    brain : VisualBrain
    placement : Placement
    responses : Responses
        Haemodynamic responses of the units.
    maps : NoiseMaps
    runs : tuple of ScannedRun
    planted : tuple of array of shape (n_trials, n_units), float32
        Height of the response to each trial of each run, percent of the signal.
    motion : tuple of array of shape (n_volumes, 6)
        See `head_motion`; relative to the pose of the first volume of the first run.
    noise_percent : float
        Standard deviation of the noise of a grey-matter voxel, drift and motion apart.
    ceiling : array of shape (n_units,)
        Correlation of least-squares estimates of single trials with the planted responses.
    seed : tuple of int
        Of the noise.
    """

    scanner: Scanner
    head: Head
    brain: VisualBrain
    placement: Placement
    responses: Responses
    maps: NoiseMaps
    runs: tuple[ScannedRun, ...]
    planted: tuple[np.ndarray, ...]
    motion: tuple[np.ndarray, ...]
    noise_percent: float
    ceiling: np.ndarray
    seed: tuple[int, ...]

    @property
    def unit_slices(self) -> np.ndarray:
        """Slice of each unit, (n_units,)."""
        return np.asarray(self.placement.unit_voxels[:, 2])


def draw_subject(
    scanner: Scanner,
    brain: VisualBrain,
    runs: Sequence[ScannedRun],
    images: np.ndarray,
    attributes: Mapping[str, np.ndarray],
    seed: tuple[int, ...],
) -> Subject:
    """Draw one subject and calibrate its amplitudes.

    Parameters
    ----------
    scanner : Scanner
    brain : VisualBrain
        The units and the ceilings they shall have.
    runs : sequence of ScannedRun
    images : array of shape (n_pictures, height, width, 3), uint8
    attributes : mapping of str to array
        See `visual_brain.respond`.
    seed : tuple of int
        The same seed gives the same subject.
    """
    rng = np.random.default_rng([*seed, 0])
    head = draw_head(scanner.shape, scanner.voxel_size_mm, rng)
    placement = place_units(head, brain, rng)
    places_mm = placement.unit_voxels @ head.affine[:3, :3].T + head.affine[:3, 3]
    signal = respond(brain, images, attributes)
    subject = Subject(
        scanner=scanner,
        head=head,
        brain=brain,
        placement=placement,
        responses=draw_responses(places_mm, scanner.peak_range_s, scanner.stimulus_s, rng),
        maps=_noise_maps(head, placement, rng),
        runs=tuple(runs),
        planted=tuple(signal[run.shown] for run in runs),
        motion=_draw_motion(scanner, runs, rng),
        noise_percent=1.0,
        ceiling=brain.ceiling,
        seed=seed,
    )
    return _calibrated(subject)


def simulate_run(subject: Subject, number: int) -> np.ndarray:
    """Scan one run.

    Parameters
    ----------
    subject : Subject
    number : int
        Which of its runs.

    Returns
    -------
    array of shape (nx, ny, nz, n_volumes), int16
    """
    scanner, head, brain = subject.scanner, subject.head, subject.placement.brain
    n_volumes = subject.runs[number].n_volumes
    scale = scanner.noise_scale * subject.noise_percent
    percent = np.zeros((n_volumes, int(brain.sum())), dtype=np.float32)
    if scanner.noise_scale:
        percent += scale * _run_noise(subject, number)
        rng = _generator(subject, number, 2)
        percent += scanner.drift_percent * drift(subject.maps, n_volumes, scanner.t_r_s, rng)
    percent[:, _unit_columns(subject)] += evoked_percent(subject, number)

    rng = _generator(subject, number, 3)
    heat = scale / 100 * np.sqrt(SHARES["thermal"]) * BOLD_INTENSITY["grey"]
    points_mm = grid_mm(head.shape, head.affine)
    motion = subject.motion[number]
    still = brightness(head, points_mm).reshape(head.shape)
    volumes = np.empty((n_volumes, *head.shape), dtype=np.int16)
    field = np.zeros(head.shape, dtype=np.float32)
    for volume in range(n_volumes):
        field[brain] = percent[volume]
        if motion[volume].any():
            seen = moved_volume(head, points_mm, field, motion[volume])
        else:
            seen = still * (1 + field / np.float32(100))
        volumes[volume] = add_thermal_noise(seen, heat, rng)
    return np.moveaxis(volumes, 0, -1)


def evoked_percent(subject: Subject, number: int) -> np.ndarray:
    """Return what the pictures of a run add to each unit's signal.

    Parameters
    ----------
    subject : Subject
    number : int
        Which of its runs.

    Returns
    -------
    array of shape (n_volumes, n_units), float32
        Percent of the signal, at the time the unit's slice is read.
    """
    run, planted = subject.runs[number], subject.planted[number]
    times_s = subject.scanner.times_s(run.n_volumes)
    evoked = np.zeros((run.n_volumes, planted.shape[1]), dtype=np.float32)
    for index in np.unique(subject.unit_slices):
        units = np.flatnonzero(subject.unit_slices == index)
        tables = subject.responses.tables[units]
        regressors = trial_regressors(tables, run.onsets_s, times_s[:, index])
        evoked[:, units] = np.matmul(regressors, planted[:, units].T[..., None])[..., 0].T
    return evoked


def least_squares_error(subject: Subject) -> np.ndarray:
    """Return the variance of single-trial least squares around the planted responses.

    Parameters
    ----------
    subject : Subject
        Its noise has a standard deviation of ``noise_percent`` = 1.

    Returns
    -------
    array of shape (n_units,)
        Over the trials of all runs, about their mean; see the module for the model.
    """
    voxels = tuple(subject.placement.unit_voxels.T)
    points_mm = grid_mm(subject.head.shape, subject.head.affine)
    still = brightness(subject.head, points_mm).reshape(subject.head.shape)[voxels]
    heat = SHARES["thermal"] * (BOLD_INTENSITY["grey"] / still) ** 2
    n_trials = sum(len(run.onsets_s) for run in subject.runs)
    errors, own, common = [], np.zeros(len(still)), np.zeros(len(still))
    columns = _unit_columns(subject)
    for number, run in enumerate(subject.runs):
        noise = _run_noise(subject, number)[:, columns].astype(np.float64)
        times_s = subject.scanner.times_s(run.n_volumes)
        basis = _drift_basis(run.n_volumes, subject.scanner.t_r_s)
        error = np.empty((len(run.onsets_s), len(still)))
        for index in np.unique(subject.unit_slices):
            units = np.flatnonzero(subject.unit_slices == index)
            tables = subject.responses.tables[units]
            X = trial_regressors(tables, run.onsets_s, times_s[:, index]).astype(np.float64)
            X -= np.matmul(basis, np.matmul(basis.T, X))
            inverse = np.linalg.inv(np.matmul(X.transpose(0, 2, 1), X))
            projected = np.matmul(X.transpose(0, 2, 1), noise[:, units].T[..., None])
            error[:, units] = np.matmul(inverse, projected)[..., 0].T
            own[units] += np.trace(inverse, axis1=1, axis2=2)
            common[units] += inverse.sum(axis=(1, 2))
        errors.append(error)
    thermal = (own - common / n_trials) / n_trials
    variance: np.ndarray = np.concatenate(errors).var(axis=0) + heat * thermal
    return variance


def _calibrated(subject: Subject) -> Subject:
    """Scale the planted signals and the noise; see the module."""
    scanner, asked = subject.scanner, subject.brain.ceiling
    deviation = np.concatenate(subject.planted).std(axis=0)
    # A unit that no picture shown here drives has no amplitude that would give it a ceiling.
    driven = deviation > 1e-6
    error = np.sqrt(least_squares_error(subject))
    needed = error * asked / np.sqrt(1 - asked**2)
    noise_percent = scanner.response_percent / float(np.median(needed[driven]))
    amplitude = np.where(driven, noise_percent * needed / np.where(driven, deviation, 1), 0)
    noise = scanner.noise_scale * noise_percent * error
    found = amplitude * deviation
    return replace(
        subject,
        planted=tuple(
            (amplitude * (scanner.mean_response + signal)).astype(np.float32)
            for signal in subject.planted
        ),
        noise_percent=noise_percent,
        ceiling=found / np.maximum(np.hypot(found, noise), 1e-12),
    )


def _draw_motion(
    scanner: Scanner, runs: Sequence[ScannedRun], rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Motion of all runs: each starts where the one before ended, a session in a new pose."""
    to_unit = np.array([1.0] * 3 + [1 / HEAD_RADIUS_MM] * 3)
    pose, session, motion = np.zeros(6), runs[0].session, []
    for run in runs:
        if run.session != session:
            pose, session = scanner.session_shift_mm * rng.uniform(-1, 1, 6) * to_unit, run.session
        drawn = draw_motion(
            run.n_volumes, scanner.t_r_s, pose, scanner.motion_mm,
            scanner.n_spikes if scanner.spike_mm else 0, scanner.spike_mm, rng,
        )  # fmt: skip
        # A head that wandered off is put back halfway between runs.
        pose = 0.5 * drawn[-1]
        motion.append(drawn)
    return tuple(motion)


def _noise_maps(head: Head, placement: Placement, rng: np.random.Generator) -> NoiseMaps:
    """Draw the maps of noise: the heartbeat is near fluid, breathing near the surface."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    points_mm = grid_mm(head.shape, head.affine)
    fluid = tissue_shares(head, points_mm)["csf"].reshape(head.shape)
    near_fluid = np.clip(gaussian_filter(fluid, 1.0) * 3, 0, 1)[placement.brain]
    depth_mm = distance_transform_edt(placement.brain) * head.voxel_size_mm
    near_edge = np.exp(-depth_mm[placement.brain] / 6.0)
    return draw_noise_maps(placement.brain, near_fluid, near_edge, head.voxel_size_mm, rng)


def _run_noise(subject: Subject, number: int) -> np.ndarray:
    """Noise of the tissue in one run at scale 1, (n_volumes, n_brain_voxels), percent."""
    scanner = subject.scanner
    times_s = scanner.times_s(subject.runs[number].n_volumes)
    slices = np.nonzero(subject.placement.brain)[2]
    rng = _generator(subject, number, 1)
    return tissue_noise(subject.maps, times_s, slices, scanner.t_r_s, rng)


def _unit_columns(subject: Subject) -> np.ndarray:
    """Position of each unit's voxel among the brain's voxels in C order."""
    column = np.cumsum(subject.placement.brain.ravel()).reshape(subject.head.shape) - 1
    return np.asarray(column[tuple(subject.placement.unit_voxels.T)])


def _generator(subject: Subject, number: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([*subject.seed, purpose, number])


def _drift_basis(n_volumes: int, t_r_s: float) -> np.ndarray:
    """Orthonormal constant and cosines of the calibration's model, (n_volumes, n)."""
    n_waves = int(2 * n_volumes * t_r_s / HIGH_PASS_S)
    phase = np.pi * (np.arange(n_volumes)[:, None] + 0.5) / n_volumes * np.arange(n_waves + 1)
    waves = np.cos(phase)
    basis: np.ndarray = waves / np.linalg.norm(waves, axis=0)
    return basis
