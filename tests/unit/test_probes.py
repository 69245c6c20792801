"""Probes: planted labels are found, absent ones are not, folds keep groups together."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from afterimage.evaluation.probes import (
    PENALTIES,
    Labelled,
    _ridge,
    lag_features,
    permute_over_groups,
    probe,
    scored,
    shuffle_time,
    standardised,
    static_features,
)


def labelled(n: int = 120, n_classes: int = 2, seed: int = 0, per_group: int = 2) -> Labelled:
    generator = np.random.default_rng(seed)
    of_group = generator.permutation(np.arange(n // per_group) % n_classes)
    groups = np.array([f"sub-{i:03d}" for i in range(n // per_group)]).repeat(per_group)
    labels = of_group.repeat(per_group).astype(float)
    return Labelled(labels, groups, np.arange(n) >= n // 2, classes=True)


@pytest.mark.parametrize("n_features", [6, 400])
def test_a_planted_label_is_found_and_an_absent_one_is_not(n_features: int) -> None:
    data = labelled(240, 3)
    generator = np.random.default_rng(1)
    noise = generator.standard_normal((240, n_features))
    planted = noise.copy()
    informative = min(n_features, 60)  # many weak ones, or few strong ones
    means = generator.standard_normal((3, informative)) * (2.5 if n_features == 6 else 0.8)
    planted[:, :informative] += means[data.labels.astype(int)]
    found = probe("planted", planted, data)
    assert found.value > 0.85
    assert found.p < 0.01
    assert found.ci_low > found.chance_high
    absent = probe("noise", noise, data)
    assert absent.chance_low <= absent.value <= absent.chance_high
    assert absent.ci_low < 1 / 3 < absent.ci_high
    assert absent.p > 0.025
    assert (absent.n, absent.n_groups) == (120, 60)


def test_values_are_predicted_and_scored_by_correlation() -> None:
    data = labelled(200, per_group=1)
    generator = np.random.default_rng(0)
    features = generator.standard_normal((200, 5))
    values = features @ np.array([1.0, -1, 0, 0, 0]) + generator.standard_normal(200)
    found = probe("values", features, Labelled(values, data.groups, data.test, classes=False))
    assert found.metric == "r"
    assert 0.6 < found.value < 0.95
    assert found.p < 0.01


def test_false_alarms_come_at_the_nominal_rate() -> None:
    generator = np.random.default_rng(5)
    p = [
        probe(
            "noise", generator.standard_normal((60, 4)), labelled(60, seed=seed),
            n_permutations=60, n_bootstraps=20, random_state=seed,
        ).p
        for seed in range(60)
    ]  # fmt: skip
    assert np.mean(np.array(p) <= 0.1) < 0.23  # P(more) < .002 at a true rate of .1


def test_an_unbalanced_majority_gains_nothing() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(400) < 0.1).astype(float)
    groups = np.array([f"g{i}" for i in range(400)])
    data = Labelled(labels, groups, np.arange(400) >= 200, classes=True)
    found = probe("noise", generator.standard_normal((400, 3)), data, n_permutations=20)
    assert abs(found.value - 0.5) < 0.15
    assert found.predicted.mean() > 0.2  # it does not just say the majority


def test_the_ridge_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((30, 5)), generator.standard_normal((30, 2))
    new = generator.standard_normal((4, 5))
    unit = ((x - x.mean(0)) ** 2).sum() / len(x)
    for place, penalty in enumerate(PENALTIES):
        expected = Ridge(alpha=penalty * unit).fit(x, y).predict(new)
        np.testing.assert_allclose(_ridge(x, y, new)[place], expected, atol=1e-10)


def test_rotation_loses_nothing() -> None:
    generator = np.random.default_rng(0)
    features, train = generator.standard_normal((40, 300)), np.arange(40) < 25
    inside, left = standardised(features, train)
    assert inside.shape[1] == 25
    full = (features - features[train].mean(0)) / features[train].std(0)
    y = generator.standard_normal((25, 1))
    np.testing.assert_allclose(
        _ridge(inside, y, left)[2], _ridge(full[train], y, full[~train])[2], atol=1e-8
    )


def test_labels_of_a_group_stay_together_and_parts_apart() -> None:
    data = labelled()
    permuted = permute_over_groups(data, np.random.default_rng(0))
    assert not np.array_equal(permuted, data.labels)
    assert (permuted[::2] == permuted[1::2]).all()
    for part in (data.test, ~data.test):
        assert permuted[part].sum() == data.labels[part].sum()


def test_a_group_on_both_sides_is_refused() -> None:
    with pytest.raises(ValueError, match="both sides"):
        Labelled(np.zeros(4), np.array(list("aabb")), np.array([False, True, True, True]), True)


def test_predictions_made_elsewhere_are_scored_alike() -> None:
    data = labelled()
    right = data.labels[data.test]
    assert scored("oracle", right, data).value == 1.0
    assert scored("oracle", right, data).p < 0.01
    assert scored("liar", 1 - right, data).value == 0.0


def test_static_features_do_not_know_time_and_lagged_ones_do() -> None:
    generator = np.random.default_rng(0)
    series = generator.standard_normal((50, 4)).cumsum(0)
    np.testing.assert_allclose(
        np.tanh(static_features([series])[0]),
        np.clip(np.corrcoef(series.T)[np.triu_indices(4, 1)], -0.999, 0.999),
    )
    np.testing.assert_allclose(static_features([series]), static_features([series[::-1]]))
    lagged = lag_features([series], 3).reshape(4, 4)
    centred = series - series.mean(0)
    assert lagged[1, 2] == pytest.approx((centred[:-3, 1] * centred[3:, 2]).mean())
    np.testing.assert_allclose(lag_features([series[::-1]], 3).reshape(4, 4), lagged.T)


def test_shuffling_keeps_segments_or_samples() -> None:
    series = np.arange(23.0)[:, None]
    generator = np.random.default_rng(0)
    shuffled = shuffle_time(series, 5, generator)
    assert sorted(shuffled.ravel()) == list(range(20))
    assert (np.diff(shuffled.reshape(4, 5), axis=1) == 1).all()
    assert not (np.diff(shuffle_time(series, 1, generator).ravel()) == 1).all()
