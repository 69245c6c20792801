"""Noise of simulated BOLD: networks, autocorrelation, breathing and heartbeat, drift, heat.

Physiological noise in oxygenation-sensitive MRI (Kruger and Glover 2001, doi:10.1002/mrm.1240) for
the split into thermal noise, which does not scale with the signal, and noise of the tissue, which
does; RETROICOR (Glover et al. 2000, doi:10.1002/1522-2594(200007)44:1<162::AID-MRM23>3.0.CO;2-E)
for breathing and heartbeat as phases that are read off at the true time of each slice, so that a
TR of 2 s folds the heartbeat to a low frequency.

What differs: everything but the thermal noise is made in the tissue, as percent of its signal, from
a few time courses with smooth maps and one AR(1) process a voxel; a total of 1 percent is drawn,
and the caller scales it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Shares of the variance of a grey-matter voxel.
SHARES = {"thermal": 0.5, "private": 0.18, "networks": 0.14, "breathing": 0.09, "heartbeat": 0.09}
N_NETWORKS = 8
N_DRIFTS = 4
#: Smoothness of all maps, standard deviation in mm.
MAP_MM = 9.0
#: Correlation of AR(1) noise after 2 s; other sampling times follow by its exponential decay.
AUTOCORRELATION_2_S = 0.4
BREATHING_HZ, HEARTBEAT_HZ = 0.27, 1.12
#: How far the two rates wander, as a share of the rate.
WANDER = 0.06
#: Drift is slower than this (a cosine of half a period is the slowest there is).
DRIFT_PERIOD_S = 160.0


@dataclass(frozen=True)
class NoiseMaps:
    """Where in the brain each source of noise is; one row a source, one column a brain voxel.

    Attributes
    ----------
    networks : array of shape (N_NETWORKS, n_voxels)
    breathing, heartbeat : array of shape (2, n_voxels)
        Weights of the sine and the cosine of the phase: together an amplitude and a delay.
    drift : array of shape (N_DRIFTS, n_voxels)
        Columns have a norm of about 1.
    """

    networks: np.ndarray
    breathing: np.ndarray
    heartbeat: np.ndarray
    drift: np.ndarray


def draw_noise_maps(
    mask: np.ndarray,
    fluid: np.ndarray,
    edge: np.ndarray,
    voxel_size_mm: float,
    rng: np.random.Generator,
) -> NoiseMaps:
    """Draw the maps of one subject, which stay the same over its sessions.

    Parameters
    ----------
    mask : array of bool, 3-D
        The brain.
    fluid, edge : array of shape (n_voxels,)
        Nearness to cerebrospinal fluid and to the brain's surface, 0 to 1: heartbeats are strongest
        in the first, breathing in the second.
    voxel_size_mm : float
    rng : Generator

    Returns
    -------
    NoiseMaps
        Scaled so that the root mean square over the brain of each kind is the root of its share.
    """
    from scipy.ndimage import gaussian_filter

    def smooth(n_maps: int) -> np.ndarray:
        fields = rng.standard_normal((n_maps, *mask.shape))
        fields = gaussian_filter(fields, (0, *[MAP_MM / voxel_size_mm] * 3), mode="wrap")
        maps = fields[:, mask]
        return np.asarray(maps / maps.std(axis=1, keepdims=True))

    def scaled(maps: np.ndarray, share: float) -> np.ndarray:
        power = np.sqrt((maps**2).sum(axis=0).mean())
        return np.asarray(np.sqrt(share) * maps / power, dtype=np.float32)

    return NoiseMaps(
        networks=scaled(smooth(N_NETWORKS), SHARES["networks"]),
        # A sine has a variance of one half.
        breathing=scaled(smooth(2) * (0.5 + edge), 2 * SHARES["breathing"]),
        heartbeat=scaled(smooth(2) * (0.5 + fluid), 2 * SHARES["heartbeat"]),
        drift=scaled(0.6 + smooth(N_DRIFTS), 1.0),
    )


def tissue_noise(
    maps: NoiseMaps,
    times_s: np.ndarray,
    slice_of_voxel: np.ndarray,
    t_r_s: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the noise of the tissue in one run, drift apart.

    Parameters
    ----------
    maps : NoiseMaps
    times_s : array of shape (n_volumes, n_slices)
        When each slice of each volume is read.
    slice_of_voxel : array of int, shape (n_voxels,)
    t_r_s : float
    rng : Generator

    Returns
    -------
    array of shape (n_volumes, n_voxels), float32
        Its variance in grey matter is about 1 - `SHARES` ["thermal"].
    """
    n_volumes, n_voxels = len(times_s), len(slice_of_voxel)
    noise = np.sqrt(SHARES["private"]) * _autoregressive(n_volumes, n_voxels, t_r_s, rng)
    noise += _autoregressive(n_volumes, N_NETWORKS, t_r_s, rng) @ maps.networks
    for frequency_hz, weights in (
        (BREATHING_HZ, maps.breathing),
        (HEARTBEAT_HZ, maps.heartbeat),
    ):
        phase = _wandering_phase(times_s, frequency_hz, rng)
        sine, cosine = np.sin(phase), np.cos(phase)
        noise += sine[:, slice_of_voxel] * weights[0] + cosine[:, slice_of_voxel] * weights[1]
    return noise


def drift(maps: NoiseMaps, n_volumes: int, t_r_s: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the slow drift of one run, (n_volumes, n_voxels) float32, a standard deviation of 1.

    Cosines of the discrete cosine transform with periods of at least `DRIFT_PERIOD_S`: a usual
    high-pass filter of 128 s removes all of it.
    """
    n_waves = max(1, int(2 * n_volumes * t_r_s / DRIFT_PERIOD_S))
    wave = np.arange(1, n_waves + 1)
    phase = np.pi * (np.arange(n_volumes)[:, None] + 0.5) / n_volumes * wave
    courses = np.cos(phase) / wave @ rng.normal(size=(n_waves, N_DRIFTS))
    courses /= np.sqrt(0.5 * (1.0 / wave**2).sum())
    drifted: np.ndarray = courses.astype(np.float32) @ maps.drift
    return drifted


def add_thermal_noise(
    volume: np.ndarray, deviation: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the magnitude of a signal with complex noise, as a scanner stores it: int16.

    Parameters
    ----------
    volume : array, float32
        Scanner units.
    deviation : float
        Standard deviation of each of the two parts of the noise; the same everywhere.
    rng : Generator
    """
    if deviation > 0:
        real = rng.standard_normal(volume.shape, dtype=np.float32)
        imaginary = rng.standard_normal(volume.shape, dtype=np.float32)
        real *= np.float32(deviation)
        imaginary *= np.float32(deviation)
        volume = np.hypot(volume + real, imaginary)
    return np.rint(np.clip(volume, 0, np.iinfo(np.int16).max)).astype(np.int16)


def _autoregressive(
    n_volumes: int, n_series: int, t_r_s: float, rng: np.random.Generator
) -> np.ndarray:
    """AR(1) series of variance 1, stationary from the first volume; (n_volumes, n_series)."""
    from scipy.signal import lfilter

    correlation = AUTOCORRELATION_2_S ** (t_r_s / 2.0)
    innovations = rng.standard_normal((n_volumes, n_series), dtype=np.float32)
    innovations[1:] *= np.float32(np.sqrt(1 - correlation**2))
    series = lfilter([1.0], [1.0, -correlation], innovations, axis=0)
    return np.asarray(series, dtype=np.float32)


def _wandering_phase(
    times_s: np.ndarray, frequency_hz: float, rng: np.random.Generator
) -> np.ndarray:
    """Phase in radians of a rhythm whose rate wanders slowly, at the times asked for; float32."""
    step_s = 1.0
    n_steps = int(np.ceil(times_s.max() / step_s)) + 2
    wander = np.convolve(rng.standard_normal(n_steps + 20), np.hanning(20), mode="same")[:n_steps]
    rate_hz = frequency_hz * (1 + WANDER * wander / max(float(wander.std()), 1e-9))
    cycles = np.concatenate([[rng.uniform()], rate_hz[:-1] * step_s]).cumsum()
    phase = 2 * np.pi * np.interp(times_s, np.arange(n_steps) * step_s, cycles)
    return phase.astype(np.float32)
