"""M/EEG-like epochs made from image embeddings, with the best possible decoder known.

Embeddings of 64 dimensions drive 12 sources, 6 early and 6 late, through a lead field to
magnetometers on a helmet; noise is that of 1,000 other sources and of the sensors, 1/f in time.
Subjects share tuning and latencies. Their anatomy is their own, and so is a rotation that mixes
their early sources, and their late ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import toeplitz

from afterimage.decoding.layout import Layout

N_FEATURES, N_SOURCES, N_BACKGROUND = 64, 12, 1000
EARLY_S, LATE_S = (0.08, 0.15), (0.20, 0.40)
SENSOR_NOISE = 0.05  # variance, relative to that of the background


@dataclass(frozen=True)
class Brain:
    """One subject: topography x course of each source's activity + Gaussian noise."""

    tuning: np.ndarray  # (n_features, n_sources)
    topography: np.ndarray  # (n_units, n_sources)
    course: np.ndarray  # (n_sources, n_times)
    space: np.ndarray  # (n_units, n_units) noise covariance over sensors
    time: np.ndarray  # (n_times, n_times) noise covariance over times

    def respond(self, embeddings: np.ndarray, rng: np.random.Generator, chunk: int = 250):
        """Single trials, float32 (n, n_units, n_times)."""
        over_space, over_time = (
            np.linalg.cholesky(part).astype(np.float32) for part in (self.space, self.time)
        )
        field, course = self.topography.astype(np.float32), self.course.astype(np.float32)
        activity = (embeddings @ self.tuning).astype(np.float32)
        responses = np.empty((len(activity), len(field), course.shape[1]), np.float32)
        for start in range(0, len(activity), chunk):
            part = activity[start : start + chunk]
            noise = rng.standard_normal((len(part), *responses.shape[1:]), np.float32)
            signal = (field * part[:, None]) @ course
            responses[start : start + chunk] = over_space @ noise @ over_time.T + signal
        return responses

    def oracle(self, responses: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """Return the log-likelihood of each candidate, up to a constant of the response."""
        white = np.linalg.solve(self.space, self.topography)
        late = np.linalg.solve(self.time, self.course.T)
        filtered = np.einsum("mus,us->ms", responses @ late.astype(np.float32), white)
        power = (self.topography.T @ white) * (self.course @ late)
        activity = gallery @ self.tuning
        size = np.einsum("ns,sr,nr->n", activity, power, activity)
        return filtered @ activity.T - 0.5 * size


def layout(n_units: int = 271, rate_hz: float = 100.0, tmin_s: float = -0.1, tmax_s: float = 1.0):
    """Sensors spread evenly over a helmet of 12 cm."""
    index = np.arange(n_units) + 0.5
    z = 1 - 1.2 * index / n_units
    angle = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - z**2)
    positions = 0.12 * np.stack([ring * np.cos(angle), ring * np.sin(angle), z], 1)
    times = np.arange(round(tmin_s * rate_hz), round(tmax_s * rate_hz)) / rate_hz
    return Layout(n_units, len(times), times, positions, np.full(n_units, "mag"), "sub-0")


def lead_field(sensors: np.ndarray, n_sources: int, rng: np.random.Generator) -> np.ndarray:
    """Radial magnetic field of random dipoles in a sphere (Sarvas 1987), (n_units, n_sources).

    B_r is proportional to (moment x place) . sensor / |sensor - place|^3; columns have power 1.
    """
    places = rng.normal(size=(n_sources, 3))
    places[:, 2] = np.abs(places[:, 2])
    places *= rng.uniform(0.05, 0.08, (n_sources, 1)) / np.linalg.norm(
        places, axis=1, keepdims=True
    )
    turning = np.cross(rng.normal(size=places.shape), places)
    apart = ((sensors[:, None] - places) ** 2).sum(2)
    field = sensors @ turning.T / apart**1.5
    return field / np.sqrt((field**2).mean(0))


def make_brains(
    n_subjects: int, sensors: Layout, noise: float, rng: np.random.Generator
) -> list[Brain]:
    """Subjects with the same tuning and latencies, and an anatomy of their own."""
    times = sensors.times_s
    half = N_SOURCES // 2
    peaks = np.r_[rng.uniform(*EARLY_S, half), rng.uniform(*LATE_S, half)]
    widths = np.repeat([0.015, 0.04], half)
    courses = np.exp(-0.5 * ((times - peaks[:, None]) / widths[:, None]) ** 2) * (times > 0)
    courses /= np.sqrt((courses**2).sum(1, keepdims=True))
    tuning = np.linalg.qr(rng.normal(size=(N_FEATURES, N_SOURCES)))[0]
    frequency = np.fft.rfftfreq(4 * len(times))
    lags = np.fft.irfft(1 / (frequency + 0.25 / len(times)) + 2.0)[: len(times)]
    time = toeplitz(lags / lags[0])
    brains = []
    for _ in range(n_subjects):
        field = lead_field(sensors.positions, N_SOURCES + N_BACKGROUND, rng)
        background = field[:, N_SOURCES:]
        space = background @ background.T / N_BACKGROUND + SENSOR_NOISE * np.eye(sensors.n_units)
        turn = np.zeros((N_SOURCES, N_SOURCES))
        for part in (slice(0, half), slice(half, None)):
            turn[part, part] = np.linalg.qr(rng.normal(size=(half, half)))[0]
        brains.append(Brain(tuning, field[:, :N_SOURCES] @ turn, courses, noise**2 * space, time))
    return brains


def embeddings(n: int, rng: np.random.Generator) -> np.ndarray:
    """Image embeddings, float32 (n, 64)."""
    return rng.normal(size=(n, N_FEATURES)).astype(np.float32)


def top(scores: np.ndarray, k: int = 5) -> float:
    """Share of rows whose own column (same number) is among the k highest."""
    own = np.diag(scores)[:, None]
    return float(((scores > own).sum(1) < k).mean())
