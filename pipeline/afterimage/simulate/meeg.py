"""A simulated visual brain under electrodes and in a helmet: raw EEG and MEG with known sources.

A large and rich EEG dataset for modeling human visual object recognition (Gifford et al. 2022,
doi:10.1016/j.neuroimage.2022.119754) for the design: pictures in rapid succession, test pictures
repeated and in runs of their own. Brain decoding: toward real-time reconstruction of visual
perception (Benchetrit et al. 2023, doi:10.48550/arXiv.2310.19812) for when it happens: low-level
features early, categories late.

What differs: the truth is known. The units are those of `visual_brain`, as in `bold`. Several units
share a dipole; a picture shown at time 0 adds to its dipole, for every unit u,

    moment * weight_u * (mean_response + r_u) * exp(-(t - latency_u)^2 / (2 width_u^2))

where r_u is the unit's response (mean 0, variance 1 over pictures). The weights of a dipole's units
are equal and their squares sum to 1. Responses to successive pictures add up where they overlap.
Background, alpha and eyes are dipoles of the same head, so one leadfield gives all of them.

The calibration. All moments are scaled by what 64 electrodes with a common average reference would
measure of this head, for MEG too: the evoked response (mean over pictures) has its largest value,
over electrodes and times, at ``evoked_uv``; the background's standard deviation is
``background_uv`` in the median electrode; alpha and blinks reach ``alpha_uv`` (standard deviation)
and ``blink_uv`` (height) at the electrode that shows them best. What a helmet sees of the same
currents follows from physics: about 50 fT in a magnetometer for each microvolt of the evoked
response. Noise of sensors, drift and mains is given for each kind of sensor.

With the settings of the stage (evoked 6 uV and 360 fT; 10 uV and 200 fT of noise between 0.5 and
30 Hz; 480 training pictures shown once, 50 test pictures six times) a plain linear classifier of
whitened epochs, of two subjects each, names 0.84 to 0.98 of the averaged test pictures' categories
in EEG and 0.88 to 1.00 in MEG, and 0.75 to 0.96 of single trials (chance 1/8): more than a real
recording of ten minutes would give, because a demo has no more than ten minutes. ``noise_scale``
makes it as hard as one likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from afterimage.simulate import meeg_geometry as geometry
from afterimage.simulate import meeg_noise as noise
from afterimage.simulate.meeg_geometry import Anatomy, Dipoles
from afterimage.simulate.meeg_schedule import RecordedRun
from afterimage.simulate.meeg_sources import (
    N_ALPHA,
    N_BACKGROUND,
    Units,
    calibrate,
    draw_other_sources,
    draw_units,
)
from afterimage.simulate.visual_brain import VisualBrain, respond

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import mne

Modality = Literal["eeg", "meg"]
#: Channel beside the eyes, and its size in units of a blink at the best electrode.
EYE_CHANNEL, EYE_GAIN = "EOG001", 2.5
#: A uniform field reaches gradiometers, which should not see it, by this imbalance, T/m for 1 T.
IMBALANCE = 0.05


@dataclass(frozen=True)
class Recorder:
    """How the brain is recorded, and how well; see the module for the units.

    Attributes
    ----------
    sampling_rate_hz, line_hz : float
    evoked_uv, background_uv, alpha_uv, blink_uv : float
    mean_response : float
        Mean planted response of a unit, in its own standard deviations.
    early_latency_s, late_latency_s : tuple of float
        Earliest and latest peak of the units of V1, V2 and V4, and of category-selective units.
    blinks_per_minute : float
    noise_uv, noise_ft, noise_ft_cm : float
        Noise of electrodes (standard deviation), of magnetometers and of gradiometers (density
        for a square root of a hertz, white).
    drift_uv, drift_ft : float
        Drift of electrodes, each its own; of the field around the helmet, uniform in space.
    line_uv, line_ft : float
        Hum of the mains, standard deviation.
    n_flat, n_noisy : int
        Broken channels.
    noise_scale : float
        Factor on all that is not evoked, broken channels apart; 0 for the evoked response alone.
    """

    sampling_rate_hz: float
    line_hz: float
    evoked_uv: float
    background_uv: float
    alpha_uv: float
    blink_uv: float
    mean_response: float
    early_latency_s: tuple[float, float]
    late_latency_s: tuple[float, float]
    blinks_per_minute: float
    noise_uv: float
    noise_ft: float
    noise_ft_cm: float
    drift_uv: float
    drift_ft: float
    line_uv: float
    line_ft: float
    n_flat: int
    n_noisy: int
    noise_scale: float


@dataclass(frozen=True)
class Subject:
    """All that is true of one simulated subject.

    Attributes
    ----------
    recorder : Recorder
    modality : {"eeg", "meg"}
    anatomy : Anatomy
    info : Info
        Of the channels, the eye's last.
    brain : VisualBrain
    dipoles : Dipoles
    units : Units
    moment_am : float
        Scale of the dipoles' moments, A m.
    leadfield : array of shape (n_channels, n_dipoles)
        V, T or T/m for 1 A m; the eye's channel is not among the channels here and below.
    background : array of shape (n_channels, N_BACKGROUND)
        What each channel sees of background sources of variance 1, V, T or T/m.
    alpha : array of shape (n_channels, N_ALPHA)
    alpha_hz : array of shape (N_ALPHA,)
    blink : array of shape (n_channels,)
        What each channel sees of a closed lid.
    bad : dict of str to str
        Broken channels: ``flat`` or ``noisy``.
    runs : tuple of RecordedRun
    planted : tuple of array of shape (n_trials, n_units), float32
        ``mean_response + r`` of each trial of each run.
    blinks_s : tuple of array
        Onsets of the blinks of each run.
    seed : tuple of int
    """

    recorder: Recorder
    modality: Modality
    anatomy: Anatomy
    info: mne.Info
    brain: VisualBrain
    dipoles: Dipoles
    units: Units
    moment_am: float
    leadfield: np.ndarray
    background: np.ndarray
    alpha: np.ndarray
    alpha_hz: np.ndarray
    blink: np.ndarray
    bad: dict[str, str]
    runs: tuple[RecordedRun, ...]
    planted: tuple[np.ndarray, ...]
    blinks_s: tuple[np.ndarray, ...]
    seed: tuple[int, ...]

    @property
    def names(self) -> list[str]:
        """Names of the channels, the eye's not among them."""
        return list(self.info["ch_names"][:-1])


def draw_subject(
    recorder: Recorder,
    modality: Modality,
    brain: VisualBrain,
    runs: Sequence[RecordedRun],
    images: np.ndarray,
    attributes: Mapping[str, np.ndarray],
    seed: tuple[int, ...],
) -> Subject:
    """Draw one subject and calibrate its currents.

    Parameters
    ----------
    recorder : Recorder
    modality : {"eeg", "meg"}
    brain : VisualBrain
        Its ceilings are not used: the noise is that of the recording.
    runs : sequence of RecordedRun
    images : array of shape (n_pictures, height, width, 3), uint8
    attributes : mapping of str to array
        See `visual_brain.respond`.
    seed : tuple of int
        The same seed gives the same subject, and the same head in EEG as in MEG.
    """
    rng = np.random.default_rng([*seed, 0])
    anatomy = geometry.draw_anatomy(rng)
    dipoles = geometry.draw_dipoles(anatomy, rng)
    units = draw_units(brain, dipoles, recorder.early_latency_s, recorder.late_latency_s, rng)
    sources = draw_other_sources(anatomy, rng)
    alpha_hz = rng.uniform(9, 11.5, N_ALPHA)
    place_m = np.concatenate([dipoles.place_m, sources[0]])
    direction = np.concatenate([dipoles.direction, sources[1]])
    rate = recorder.sampling_rate_hz
    scalp = geometry.electrode_info(anatomy, rate, (*geometry.ELECTRODES, geometry.REFERENCE))
    potential_v = geometry.leadfield(anatomy, scalp, place_m, direction)
    asked_uv = (recorder.evoked_uv, recorder.background_uv, recorder.alpha_uv, recorder.blink_uv)
    gain = calibrate(units, potential_v[:-1], len(dipoles.roi), recorder.mean_response, asked_uv)
    if modality == "eeg":
        info = geometry.electrode_info(anatomy, rate, geometry.ELECTRODES)
        field = potential_v[:-1] - potential_v[-1]
    else:
        info = geometry.helmet_info(anatomy, rate)
        field = geometry.leadfield(anatomy, info, place_m, direction)
    parts = np.split(field, np.cumsum([len(dipoles.roi), N_BACKGROUND, N_ALPHA]), axis=1)
    signal = respond(brain, images, attributes)
    rng = np.random.default_rng([*seed, 1])
    return Subject(
        recorder=recorder,
        modality=modality,
        anatomy=anatomy,
        info=_with_eye(info),
        brain=brain,
        dipoles=dipoles,
        units=units,
        moment_am=float(gain[0]),
        leadfield=parts[0],
        background=gain[1] * parts[1],
        alpha=gain[2] * parts[2],
        alpha_hz=alpha_hz,
        blink=gain[3] * parts[3].sum(axis=1),
        bad=_draw_bad(info["ch_names"], recorder, rng),
        runs=tuple(runs),
        planted=tuple((recorder.mean_response + signal[run.shown]).astype("f4") for run in runs),
        blinks_s=tuple(
            noise.blink_times(run.n_samples / rate, recorder.blinks_per_minute, rng)
            for run in runs
        ),
        seed=seed,
    )


def simulate_run(subject: Subject, number: int) -> np.ndarray:
    """Record one run.

    Parameters
    ----------
    subject : Subject
    number : int
        Which of its runs.

    Returns
    -------
    array of shape (n_channels, n_samples), float32
        V, T or T/m in the order of ``subject.info``; the eye's channel is the last.
    """
    recorder, run = subject.recorder, subject.runs[number]
    rng = np.random.default_rng([*subject.seed, 2, number])
    rate, n_samples = recorder.sampling_rate_hz, run.n_samples
    data = evoked_field(subject, number)
    lid = noise.blink_course(subject.blinks_s[number], n_samples, rate)
    eye = EYE_GAIN * 1e-6 * recorder.blink_uv * lid
    if recorder.noise_scale:
        cortex = noise.background(N_BACKGROUND, n_samples, rate, rng)
        rhythm = noise.alpha(subject.alpha_hz, n_samples, rate, rng)
        rest = subject.background.astype("f4") @ cortex + subject.alpha.astype("f4") @ rhythm
        rest += np.outer(subject.blink, lid).astype("f4")
        rest += _sensor_noise(subject, n_samples, rng)
        data += np.float32(recorder.noise_scale) * rest
        quiet = 5e-6 * noise.background(1, n_samples, rate, rng)[0]
        eye = recorder.noise_scale * (eye + quiet)
    bad = {subject.names.index(name): fault for name, fault in subject.bad.items()}
    noise.break_channels(data, bad, rate, rng)
    return np.concatenate([data, eye[None].astype("f4")])


def dipole_courses(subject: Subject, number: int) -> np.ndarray:
    """Return the moments of the visual dipoles in a run, (n_samples, n_dipoles), float32, A m."""
    run, planted, units = subject.runs[number], subject.planted[number], subject.units
    rate = subject.recorder.sampling_rate_hz
    kernels = units.kernels(np.arange(int(units.response_s * rate) + 1) / rate)
    mixture = subject.moment_am * units.mixture(len(subject.dipoles.roi))
    courses = np.zeros((run.n_samples + len(kernels), mixture.shape[1]))
    for first, response in zip(run.first_samples, planted, strict=True):
        courses[first : first + len(kernels)] += kernels @ (response[:, None] * mixture)
    return courses[: run.n_samples].astype("f4")


def evoked_field(subject: Subject, number: int) -> np.ndarray:
    """Return what the channels see of the pictures of a run, (n_channels, n_samples), float32."""
    courses = dipole_courses(subject, number).astype(np.float64)
    field: np.ndarray = (subject.leadfield @ courses.T).astype("f4")
    return field


def mean_evoked(subject: Subject, times_s: np.ndarray) -> np.ndarray:
    """Return the response to one picture, the mean over pictures, without noise.

    Parameters
    ----------
    subject : Subject
    times_s : array of shape (n_times,)
        After the picture appears.

    Returns
    -------
    array of shape (n_channels, n_times)
        V, T or T/m.
    """
    scale = subject.moment_am * subject.recorder.mean_response
    courses = scale * subject.units.mean_course(len(subject.dipoles.roi), times_s)
    return np.asarray(subject.leadfield @ courses)


def _sensor_noise(subject: Subject, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of the sensors, drift and mains, (n_channels, n_samples), float32."""
    recorder, n_channels = subject.recorder, len(subject.names)
    rate = recorder.sampling_rate_hz
    white = rng.standard_normal((n_channels, n_samples), dtype=np.float32)
    hum = noise.mains(recorder.line_hz, n_samples, rate, rng)
    # What the mains reach differs between channels but not between the runs of a subject.
    fixed = np.random.default_rng([*subject.seed, 3])
    if subject.modality == "eeg":
        drifts = 1e-6 * recorder.drift_uv * noise.drift(n_channels, n_samples, rate, rng)
        reach = 1e-6 * recorder.line_uv * fixed.normal(1, 0.3, n_channels)
        white *= np.float32(1e-6 * recorder.noise_uv)
    else:
        uniform = _uniform_field(subject.info, fixed)
        drifts = 1e-15 * recorder.drift_ft * uniform @ noise.drift(3, n_samples, rate, rng)
        along = fixed.standard_normal(3)
        reach = 1e-15 * recorder.line_ft * uniform @ (along / np.linalg.norm(along))
        magnetometer = np.arange(n_channels) % 3 == 0
        density = np.where(magnetometer, 1e-15 * recorder.noise_ft, 1e-13 * recorder.noise_ft_cm)
        white *= (density * np.sqrt(rate / 2)).astype("f4")[:, None]
    white += drifts.astype("f4") + np.outer(reach, hum).astype("f4")
    return white


def _uniform_field(info: mne.Info, rng: np.random.Generator) -> np.ndarray:
    """Return what a helmet sees of a uniform field along three axes, (n_channels, 3)."""
    normals = np.array([channel["loc"][9:12] for channel in info["chs"][:-1]])
    imbalance = IMBALANCE * rng.standard_normal(normals.shape)
    return np.where(np.arange(len(normals))[:, None] % 3 == 0, normals, imbalance)


def _draw_bad(
    names: Sequence[str], recorder: Recorder, rng: np.random.Generator
) -> dict[str, str]:
    """Choose the channels that are broken, and how."""
    faults = ["flat"] * recorder.n_flat + ["noisy"] * recorder.n_noisy
    chosen = rng.choice(len(names), len(faults), replace=False)
    return {str(names[index]): fault for index, fault in zip(chosen, faults, strict=True)}


def _with_eye(info: mne.Info) -> mne.Info:
    """Add the channel beside the eyes."""
    import mne

    eye = mne.create_info([EYE_CHANNEL], info["sfreq"], "eog")
    joined = mne.create_info(
        [*info["ch_names"], EYE_CHANNEL], info["sfreq"], [*info.get_channel_types(), "eog"]
    )
    with joined._unlock():
        joined["chs"] = [*info["chs"], *eye["chs"]]
        joined["dig"], joined["dev_head_t"] = info["dig"], info["dev_head_t"]
    return joined
