"""Ridge of a window: equal to scikit-learn's, its penalty equal to refitting every fold."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.evaluation.window_ridge import (
    decompose,
    fit_ridge,
    folds_by_group,
    left_out_agreement,
)


def problem(n_trials: int, n_inputs: int):
    rng = np.random.default_rng(n_trials)
    inputs = rng.standard_normal((n_trials, n_inputs)) * 3 + 5
    targets = inputs[:, :4] @ rng.standard_normal((4, 7)) + rng.standard_normal((n_trials, 7)) + 2
    groups = np.repeat([f"image{i}" for i in range(-(-n_trials // 3))], 3)[:n_trials]
    return inputs, targets, groups


@pytest.mark.parametrize(("n_trials", "n_inputs"), [(60, 20), (40, 90), (50, 50)])
@pytest.mark.parametrize("alpha", [0.01, 1.0, 30.0])
def test_equals_ridge_of_sklearn(n_trials, n_inputs, alpha):
    from sklearn.linear_model import Ridge

    inputs, targets, groups = problem(n_trials, n_inputs)
    ours = fit_ridge(inputs, targets, folds_by_group(groups), [alpha])
    theirs = Ridge(ours.penalty).fit(inputs, targets)
    new = np.random.default_rng(9).standard_normal((8, n_inputs))
    np.testing.assert_allclose(ours.coefficients.T, theirs.coef_, atol=1e-6)
    np.testing.assert_allclose(ours.predict(new), theirs.predict(new), atol=1e-6)


@pytest.mark.parametrize(("n_trials", "n_inputs"), [(60, 20), (45, 90)])
@pytest.mark.parametrize("alpha", [0.01, 1.0, 30.0])
def test_agreement_left_out_equals_refitting_every_fold(n_trials, n_inputs, alpha):
    from sklearn.linear_model import Ridge

    inputs, targets, groups = problem(n_trials, n_inputs)
    folds = folds_by_group(groups, 4)
    centred, truth = inputs - inputs.mean(0), targets - targets.mean(0)
    eigenvalues, left = decompose(centred)
    np.testing.assert_allclose(left.T @ left, np.eye(left.shape[1]), atol=1e-9)
    penalty = alpha * eigenvalues.sum() / n_trials
    ours = left_out_agreement(left, eigenvalues, left.T @ truth, truth, penalty, folds)
    predicted = np.empty_like(truth)
    for test in folds:
        train = np.setdiff1d(np.arange(n_trials), test)
        model = Ridge(penalty).fit(inputs[train], targets[train])
        predicted[test] = model.predict(inputs[test]) - targets.mean(0)
    theirs = (predicted * truth).sum() / np.linalg.norm(predicted) / np.linalg.norm(truth)
    assert ours == pytest.approx(theirs, rel=1e-8)


def test_noisy_trials_do_not_shrink_predictions_to_nothing():
    """Signal lies along a weak axis of the inputs: squared error asks for too large a penalty."""
    inputs, targets, groups = problem(60, 20)
    folds = folds_by_group(groups)
    assert fit_ridge(inputs, targets, folds, [1e-3, 1e3]).alpha == 1e-3
    rng = np.random.default_rng(0)
    scale = np.r_[np.full(4, 0.3), np.full(16, 3.0)]
    weights = rng.standard_normal((4, 7))
    inputs, new = rng.standard_normal((2, 400, 20)) * scale
    targets = inputs[:, :4] @ weights + 3 * rng.standard_normal((400, 7))
    found = [
        np.corrcoef(model.predict(new).ravel(), (new[:, :4] @ weights).ravel())[0, 1]
        for model in (
            fit_ridge(inputs, targets, folds_by_group(np.arange(400))),
            fit_ridge(inputs, targets, folds_by_group(np.arange(400)), [1e3]),
        )
    ]
    assert found[0] > found[1] + 0.2


def test_folds_keep_groups_whole_and_small():
    groups = np.array([f"image{i % 300}" for i in range(1200)])
    folds = folds_by_group(groups, 3)
    assert len(folds) == 5  # not 3: none larger than 256
    np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(1200))
    homes = [set(groups[rows]) for rows in folds]
    assert sum(map(len, homes)) == 300
    assert len(folds_by_group(np.array(["a", "a", "b"]))) == 2
    with pytest.raises(InputError, match="penalty cannot be chosen"):
        folds_by_group(np.array(["a", "a"]))


def test_inputs_that_never_change_are_harmless():
    inputs, targets, groups = problem(30, 5)
    model = fit_ridge(np.ones_like(inputs), targets, folds_by_group(groups))
    np.testing.assert_allclose(model.predict(inputs), np.tile(targets.mean(0), (30, 1)))
