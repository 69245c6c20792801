"""The low-rank encoding model: planted products are found, noise is not, new subjects fit in."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.decoding.low_rank import (
    cross_covariance,
    first_windows,
    low_rank_encoding,
    topographies,
)
from afterimage.decoding.network_settings import NetworkSettings
from afterimage.decoding.network_start import feature_components

N_FEATURES, N_UNITS, N_TIMES, COUNT = 12, 20, 40, 1500
TIMES_S = np.arange(N_TIMES) / 100


def plant(n_subjects: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Topographies (n_subjects, n_units, 3), tuning and courses of length 1."""
    rng = np.random.default_rng(0)
    tuning = np.linalg.qr(rng.normal(size=(N_FEATURES, 3)))[0]
    course = np.exp(-0.5 * ((TIMES_S[:, None] - [0.1, 0.2, 0.22]) / 0.03) ** 2)
    course /= np.linalg.norm(course, axis=0)
    return rng.normal(size=(n_subjects, N_UNITS, 3)) * 0.2, tuning, course


def covariance_of(space: np.ndarray, tuning: np.ndarray, course: np.ndarray, seed: int = 1):
    exact = np.einsum("sur,fr,kr->sfuk", space, tuning, course)
    return exact + np.random.default_rng(seed).normal(size=exact.shape) / np.sqrt(COUNT)


def test_planted_products_are_found_in_noise_larger_than_they_are() -> None:
    space, tuning, course = plant()
    noisy = covariance_of(space, tuning, course)
    exact = np.einsum("sur,fr,kr->sfuk", space, tuning, course)
    assert ((noisy - exact) ** 2).sum() > 2 * (exact**2).sum()
    found = low_rank_encoding(noisy, np.full(3, COUNT), first_windows(TIMES_S), 8, 0.5)
    made = np.einsum("sur,fr,kr->sfuk", found.space, found.tuning, found.time)
    assert ((made - exact) ** 2).sum() < 0.2 * (exact**2).sum()
    np.testing.assert_allclose(np.linalg.norm(found.time, axis=0), 1)


def test_topographies_of_one_more_subject() -> None:
    space, tuning, course = plant(4)
    found = low_rank_encoding(
        covariance_of(space[:3], tuning, course), np.full(3, COUNT), first_windows(TIMES_S), 3, 0.5
    )
    new = covariance_of(space[3:], tuning, course, seed=2)[0]
    made = topographies(new, COUNT, found.tuning, found.time)
    exact = np.einsum("ur,fr,kr->fuk", space[3], tuning, course)
    guess = np.einsum("ur,fr,kr->fuk", made, found.tuning, found.time)
    assert ((guess - exact) ** 2).sum() < 0.25 * (exact**2).sum()


def test_noise_alone_gives_next_to_nothing() -> None:
    zero = np.zeros((3, N_UNITS, 1)), np.zeros((N_FEATURES, 1)), np.zeros((N_TIMES, 1))
    found = low_rank_encoding(
        covariance_of(*zero), np.full(3, COUNT), first_windows(TIMES_S), 4, 1.0
    )
    made = np.einsum("sur,fr,kr->sfuk", found.space, found.tuning, found.time)
    expected = 3 * N_FEATURES * N_UNITS * N_TIMES / COUNT
    assert (made**2).sum() < 0.02 * expected


def test_cross_covariance_is_that_of_numpy_for_each_subject() -> None:
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(30, 4, 6)).astype(np.float32)
    features, stimulus = rng.normal(size=(9, 5)), rng.integers(0, 9, 30)
    subject = np.repeat([0, 1], [10, 20])
    basis = np.linalg.qr(rng.normal(size=(6, 3)))[0].T
    rows = np.arange(0, 30, 2)
    found, counts = cross_covariance(
        lambda part: signals[part], rows, subject, features, stimulus, basis, 4
    )
    assert counts.tolist() == [5, 10]
    for number in (0, 1):
        own = rows[subject[rows] == number]
        expected = np.einsum("nf,nut,kt->fuk", features[stimulus[own]], signals[own], basis)
        np.testing.assert_allclose(found[number], expected / len(own), atol=1e-5)


@pytest.mark.parametrize(("n_stimuli", "d"), [(300, 8), (12, 4), (3, 1)])
def test_components_are_no_more_than_the_stimuli_allow(n_stimuli: int, d: int) -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(n_stimuli, 10)) @ rng.normal(size=(10, 10))
    targets -= targets.mean(0)
    found = feature_components(targets, NetworkSettings(n_embedding=8))
    assert found["components"].shape == (d, 10)
    spread = (targets @ found["components"].T).std(0, ddof=1)
    np.testing.assert_allclose(spread, found["component_scale"], rtol=1e-4)
