"""M/EEG-like epochs made from image embeddings, with the best possible decoder known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afterimage.decoding.layout import Layout

N_FEATURES = 64
EARLY_S, LATE_S = (0.08, 0.15), (0.20, 0.40)


@dataclass(frozen=True)
class Brain:
    """One subject: response = patterns of the embedding + Gaussian noise of known covariance."""

    patterns: np.ndarray  # (n_features, n_units, n_times)
    space: np.ndarray  # (n_units, n_units) noise covariance over sensors
    time: np.ndarray  # (n_times, n_times) noise covariance over times

    def respond(self, embeddings: np.ndarray, rng: np.random.Generator, n_average: int = 1):
        """Epochs (n, n_units, n_times), each the mean of n_average trials."""
        signal = np.einsum("nf,fut->nut", embeddings, self.patterns)
        noise = rng.normal(size=signal.shape) / np.sqrt(n_average)
        noise = np.linalg.cholesky(self.space) @ noise @ np.linalg.cholesky(self.time).T
        return (signal + noise).astype(np.float32)

    def oracle(self, responses: np.ndarray, gallery: np.ndarray, n_average: int = 1):
        """Return the log-likelihood of each candidate, up to a constant of the response."""
        expected = np.einsum("nf,fut->nut", gallery, self.patterns)
        white = np.linalg.inv(self.space) @ expected @ np.linalg.inv(self.time)
        size = np.einsum("nut,nut->n", white, expected)
        return n_average * (np.einsum("mut,nut->mn", responses, white) - 0.5 * size)


def layout(n_units: int = 60, rate_hz: float = 100.0, tmin_s: float = -0.1, tmax_s: float = 0.5):
    """Sensors spread evenly over the upper part of a sphere of 10 cm."""
    index = np.arange(n_units) + 0.5
    z = 1 - 1.2 * index / n_units
    angle = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - z**2)
    positions = 0.1 * np.stack([ring * np.cos(angle), ring * np.sin(angle), z], 1)
    times = np.arange(round(tmin_s * rate_hz), round(tmax_s * rate_hz)) / rate_hz
    return Layout(n_units, len(times), times, positions, np.full(n_units, "eeg"), "sub-0")


def lead_field(sensors: np.ndarray, places: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Potential of unit dipoles in an infinite conductor, (n_units, n_sources), any scale."""
    apart = sensors[:, None] - places[None]
    field = (apart * moments[None]).sum(2) / (apart**2).sum(2) ** 1.5
    return field / np.sqrt((field**2).mean(0))


def make_brains(
    n_subjects: int,
    sensors: Layout,
    noise: float,
    rng: np.random.Generator,
    n_sources: int = 12,
    rotation: float = 1.0,
) -> list[Brain]:
    """Subjects with the same tuning and latencies, and an anatomy of their own."""
    times = sensors.times_s
    half = n_sources // 2
    peaks = np.r_[rng.uniform(*EARLY_S, half), rng.uniform(*LATE_S, n_sources - half)]
    widths = np.r_[np.full(half, 0.015), np.full(n_sources - half, 0.04)]
    courses = np.exp(-0.5 * ((times - peaks[:, None]) / widths[:, None]) ** 2)
    courses *= times > 0
    courses /= np.sqrt((courses**2).sum(1, keepdims=True))
    tuning = np.linalg.qr(rng.normal(size=(N_FEATURES, n_sources)))[0]
    frequency = np.fft.rfftfreq(4 * len(times))
    power = 1 / (frequency + 0.25 / len(times)) + 2.0
    lags = np.fft.irfft(power)[: len(times)]
    from scipy.linalg import toeplitz

    time = toeplitz(lags / lags[0])
    brains = []
    for _ in range(n_subjects):
        places = rng.normal(size=(n_sources + 150, 3))
        places *= 0.07 / np.linalg.norm(places, axis=1, keepdims=True)
        places[:, 2] = np.abs(places[:, 2])
        field = lead_field(sensors.positions, places, rng.normal(size=places.shape))
        background = field[:, n_sources:]
        space = background @ background.T / 150 + 0.05 * np.eye(sensors.n_units)
        # each subject mixes early and late sources in its own way
        turn = np.zeros((n_sources, n_sources))
        for part in (slice(0, half), slice(half, None)):
            size = len(range(*part.indices(n_sources)))
            other = np.linalg.qr(rng.normal(size=(size, size)))[0]
            turn[part, part] = np.linalg.qr((1 - rotation) * np.eye(size) + rotation * other)[0]
        patterns = np.einsum("fs,us,st->fut", tuning @ turn, field[:, :n_sources], courses)
        brains.append(Brain(patterns, noise**2 * space, time))
    return brains


def embeddings(n: int, rng: np.random.Generator) -> np.ndarray:
    """Image embeddings, float32 (n, 64)."""
    return rng.normal(size=(n, N_FEATURES)).astype(np.float32)


def top(scores: np.ndarray, k: int = 5) -> float:
    """Share of rows whose own column (same number) is among the k highest."""
    own = np.diag(scores)[:, None]
    return float(((scores > own).sum(1) < k).mean())
