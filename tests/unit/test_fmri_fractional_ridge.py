"""Penalties named by fractions, and agreement of repeats across runs."""

import numpy as np

from afterimage.preprocess.fmri.design import RunDesign
from afterimage.preprocess.fmri.evidence import decompose_training
from afterimage.preprocess.fmri.fractional_ridge import (
    Components,
    Repeats,
    choose_alphas,
    likely_alphas,
)
from afterimage.preprocess.fmri.hrf import canonical_hrf


def components(n_voxels: int = 5, seed: int = 0) -> tuple[Components, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    parts, cleaned = [], []
    for _ in range(2):
        design = RunDesign(
            np.arange(70) * 1.5, 4.0 * np.arange(20) + 3, np.ones(20), np.full(20, "s"),
            np.ones(20, bool), np.ones((70, 1)),
        )  # fmt: skip
        parts.append(decompose_training(design, canonical_hrf()))
        cleaned.append(parts[-1].clean(rng.normal(size=(70, n_voxels))))
    matrices = [(part.left[0] * part.singular[0]) @ part.right[0] for part in parts]
    both = np.zeros((140, 40))
    both[:70, :20], both[70:, 20:] = matrices
    return Components.of(parts, cleaned, 0), [both, np.concatenate(cleaned)]


def test_ridge_solves_the_penalised_normal_equations() -> None:
    some, (matrix, signal) = components()
    coefficients = some.coefficients(np.zeros(5))
    for alpha in (0.0, 0.3, 20.0):
        found = some.betas(some.kept(np.full(5, alpha)) * coefficients)
        gram = matrix.T @ matrix + alpha * np.eye(40)
        np.testing.assert_allclose(found, np.linalg.solve(gram, matrix.T @ signal), atol=1e-8)


def test_penalties_leave_the_fractions_asked_for() -> None:
    some, _ = components()
    coefficients = some.coefficients(np.full(5, 0.2))
    fractions = np.array([0.01, 0.1, 0.5, 0.9, 1.0])
    alphas = some.alphas(coefficients, fractions)
    assert (np.diff(alphas, axis=0) < 0).all()
    assert not alphas[-1].any()
    for fraction, row in zip(fractions, alphas, strict=True):
        left = np.linalg.norm(some.kept(row) * coefficients, axis=0)
        whole = np.linalg.norm(coefficients, axis=0)
        np.testing.assert_allclose(left / whole, fraction, rtol=0.02)


def test_agreement_is_the_correlation_with_other_runs() -> None:
    rng = np.random.default_rng(0)
    stimulus = np.array(list("abcabcaabdxyz"))
    runs = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 0, 1, 2])
    betas, target = rng.normal(size=(2, 13, 4))
    repeats = Repeats(stimulus, runs)
    pairs = [
        (betas[(stimulus == s) & (runs != r)].mean(axis=0), target[i])
        for i, (s, r) in enumerate(zip(stimulus, runs, strict=True))
        if ((stimulus == s) & (runs != r)).any()
    ]
    assert repeats.n_trials == len(pairs) == 9
    assert not repeats.enough
    elsewhere, wanted = (np.array(values) for values in zip(*pairs, strict=True))
    expected = [np.corrcoef(elsewhere[:, v], wanted[:, v])[0, 1] for v in range(4)]
    np.testing.assert_allclose(repeats.agreement(betas, target), expected)
    assert not repeats.agreement(np.ones((13, 4)), target).any()


def test_repeats_within_a_run_choose_nothing() -> None:
    repeats = Repeats(np.array(["a"] * 10 + ["b"] * 10), np.repeat([0, 1], 10))
    assert repeats.n_trials == 0
    some, _ = components()
    snr = np.array([0.0, 0.1, 1.0, 10.0, 2.0])
    repeats = Repeats(np.repeat(["a", "b"], 20), np.repeat([0, 1], 20))
    chosen = choose_alphas(some, np.zeros(5), snr, repeats, np.array([0.1, 1.0]))
    np.testing.assert_array_equal(chosen, likely_alphas(snr))
