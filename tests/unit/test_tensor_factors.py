"""Factors of connectivity over time: planted communities, uniqueness, rank, what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from afterimage.connectivity.tensor_factors import (
    affinity_tensor,
    communities,
    effective_people,
    factor_match_score,
    fit_factors,
    held_out_errors,
    leave_one_out_scores,
)
from afterimage.errors import InputError


def planted(
    noise: float, n_units: int = 40, n_times: int = 60, n_people: int = 6, rank: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Make a tensor of communities that are active one after another; return their labels too."""
    rng = np.random.default_rng(0)
    truth = np.arange(n_units) % rank
    units = (truth[:, None] == np.arange(rank)) * rng.uniform(0.5, 1.5, (n_units, rank))
    middle = (np.arange(rank) + 0.5) * n_times / rank
    times = np.exp(-0.5 * np.square((np.arange(n_times)[:, None] - middle) / (n_times / 10)))
    people = rng.uniform(0.3, 1.5, (n_people, rank))
    tensor = np.einsum("ir,jr,tr,pr->ijtp", units, units, times, people)
    noisy = tensor + noise * tensor.std() * rng.standard_normal(tensor.shape)
    return np.maximum(noisy, 0), truth


def test_planted_communities_are_found_in_noise_and_starts_agree() -> None:
    tensor, truth = planted(0.6)
    factors = fit_factors(tensor, 4, n_starts=3, n_iter_max=60)
    assert adjusted_rand_score(truth, communities(factors)) >= 0.95
    assert factors.match_score >= 0.95
    clean, _ = planted(0.0)
    assert factor_match_score(factors, fit_factors(clean, 4, n_starts=3, n_iter_max=60)) >= 0.95
    for factor in factors.factors:
        assert (factor >= 0).all()
        np.testing.assert_allclose(np.linalg.norm(factor, axis=0), 1)
    assert (np.diff(factors.weights) <= 0).all()


def test_what_is_missing_is_not_fitted() -> None:
    tensor, truth = planted(0.0, 16, 20, 4)
    missing = np.zeros(tensor.shape, dtype=bool)
    missing[np.arange(16), np.arange(16)] = True
    without = np.where(missing, 0, tensor)
    factors = fit_factors(without, 4, missing=missing, n_starts=3)
    assert adjusted_rand_score(truth, communities(factors)) == 1
    assert factors.relative_error < 0.05
    # Fitted as if it were 0, the diagonal is an error that no component can take.
    assert fit_factors(without, 4, n_starts=3).relative_error > 0.15
    np.testing.assert_allclose(factors.tensor()[missing], tensor[missing], atol=0.3 * tensor.max())


def test_held_out_entries_tell_the_rank() -> None:
    tensor, _ = planted(0.6, 16, 20, 4)
    errors = held_out_errors(tensor, (2, 3, 4, 5, 6))
    assert abs((2, 3, 4, 5, 6)[int(errors.argmin())] - 4) <= 1
    assert errors[0] > 1.5 * errors[2]


def test_affinity_is_the_mean_product_of_positive_parts() -> None:
    rng = np.random.default_rng(0)
    series = [rng.standard_normal((50, 5)), rng.standard_normal((43, 5))]
    tensor = affinity_tensor(series, 10)
    assert tensor.shape == (5, 5, 4, 2)
    cut = series[0][:43]
    active = np.maximum((cut - cut.mean(0)) / cut.std(0), 0)
    assert tensor[1, 3, 2, 0] == pytest.approx(
        np.mean(active[20:30, 1] * active[20:30, 3]), rel=1e-5
    )
    assert not tensor[np.arange(5), np.arange(5)].any()
    assert np.array_equal(tensor, tensor.swapaxes(0, 1))


def test_bad_input_is_named() -> None:
    series = [np.random.default_rng(s).standard_normal((50, 5)) for s in range(2)]
    with pytest.raises(InputError, match="one tensor"):
        affinity_tensor([series[0], series[1][:, :4]], 10)
    with pytest.raises(InputError, match="one tensor"):
        affinity_tensor(series, 30)
    series[1][:, 2] = 4.0
    with pytest.raises(InputError, match="compared over time") as error:
        affinity_tensor(series, 10)
    assert "person 2" in str(error.value)
    for bad in (np.zeros((3, 3, 2)), -np.ones((3, 3, 2)), np.full((3, 3, 2), np.nan)):
        with pytest.raises(InputError, match="cannot be factored"):
            fit_factors(bad, 2)


def test_a_component_of_one_person_goes_with_that_person() -> None:
    rng = np.random.default_rng(0)
    people = rng.uniform(0.8, 1.2, (5, 2))
    people[:, 1] = 0.0
    people[3, 1] = 1.5  # the second component is one person's
    units = np.eye(2)[np.arange(16) % 2] * rng.uniform(0.5, 1.5, (16, 2))
    times = np.stack([np.linspace(0, 1, 20), np.linspace(1, 0, 20) ** 2], axis=1)
    tensor = np.einsum("ir,jr,tr,pr->ijtp", units, units, times, people)
    tensor += 0.02 * tensor.std() * rng.random(tensor.shape)
    factors = fit_factors(tensor, 2, n_starts=5)
    own = int((factors.factors[3][3] / factors.factors[3].sum(axis=0)).argmax())
    effective = effective_people(factors)
    assert effective[own] < 1.2
    assert effective[1 - own] > 4.5
    scores = leave_one_out_scores(tensor, factors, n_starts=5)
    assert scores.shape == (5, 2)
    assert (scores[:, 1 - own] > 0.9).all()
    assert (np.delete(scores[:, own], 3) > 0.9).all()
    assert scores[3, own] < 0.8
