"""Checks of the ridge decoder against direct solutions and scikit-learn."""

import numpy as np
import pytest
import scipy.linalg
from himalaya.ridge import Ridge as HimalayaRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from afterimage.decoding.brain_diffuser import BrainDiffuserDecoder, BrainDiffuserSettings
from afterimage.decoding.leaks import grouped_folds
from afterimage.decoding.ridge import RidgeDecoder, RidgeSettings


def problem(n: int = 40, n_units: int = 12, n_features: int = 7) -> tuple:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, n_features)).astype(np.float32) * np.arange(1, n_features + 1)
    responses = features @ rng.normal(size=(n_features, n_units)) + 6 * rng.normal(
        size=(n, n_units)
    )
    groups = np.array([f"image-{i:02d}" for i in range(n)])
    return responses.astype(np.float32) + 3, {"block": features.astype(np.float32)}, groups


def standard(responses: np.ndarray) -> np.ndarray:
    scores = (responses - responses.mean(0)) / responses.std(0)
    return scores / np.sqrt(scores.shape[1])


@pytest.mark.parametrize("n_units", [12, 90])
def test_equal_weights_equal_direct_solution_and_sklearn(n_units: int) -> None:
    responses, features, groups = problem(n_units=n_units)
    settings = RidgeSettings(alphas=(2.0,), unit_weights="equal", rescale="none")
    decoder = RidgeDecoder(settings).fit(responses, features, groups)
    inputs = standard(responses).astype(np.float64)
    # every standard score has variance one, so the mean squared norm of a response is one
    target = features["block"].astype(np.float64)
    weights = scipy.linalg.solve(
        inputs.T @ inputs + 2.0 * np.eye(n_units), inputs.T @ (target - target.mean(0))
    )
    direct = target.mean(0) + inputs @ weights
    sklearn = Ridge(alpha=2.0).fit(inputs, target).predict(inputs)
    found = decoder.predict(responses)["block"]
    np.testing.assert_allclose(found, direct, atol=2e-4)
    np.testing.assert_allclose(found, sklearn, atol=2e-4)


def test_penalty_of_each_target_equals_sklearn_on_the_same_folds() -> None:
    responses, features, groups = problem()
    alphas = (0.1, 0.5, 2.0, 10.0, 50.0)
    settings = RidgeSettings(alphas=alphas, unit_weights="equal", n_folds=4)
    decoder = RidgeDecoder(settings).fit(responses, features, groups)
    folds = grouped_folds(groups, 4, settings.random_state)
    # statistics of responses belong to the fold, so scaling is part of the model
    scaling = FunctionTransformer(lambda values: values / np.sqrt(values.shape[1]))
    model = make_pipeline(StandardScaler(), scaling, Ridge())
    search = GridSearchCV(
        model, {"ridge__alpha": alphas}, cv=folds, scoring="neg_mean_squared_error"
    )
    for target in range(7):
        search.fit(responses.astype(np.float64), features["block"][:, target].astype(np.float64))
        found = np.asarray(decoder.cross_validation_["block"]["alpha"])[target]
        assert found == search.best_params_["ridge__alpha"]


def test_predictions_equal_himalaya_with_the_penalty_of_each_target() -> None:
    responses, features, groups = problem(n=60)
    alphas = (0.1, 0.5, 2.0, 10.0)
    settings = RidgeSettings(alphas=alphas, unit_weights="equal", rescale="none")
    decoder = RidgeDecoder(settings).fit(responses, features, groups)
    chosen = np.asarray(decoder.cross_validation_["block"]["alpha"])
    assert len(np.unique(chosen)) > 1
    inputs = standard(responses).astype(np.float64)
    model = HimalayaRidge(alpha=chosen, fit_intercept=True).fit(
        inputs, features["block"].astype(np.float64)
    )
    np.testing.assert_allclose(
        decoder.predict(responses)["block"], model.predict(inputs), atol=1e-3
    )


def test_choosing_units_does_not_leak_into_the_inner_folds() -> None:
    # many units of pure noise: weighing them on all training trials would make inner folds look
    # predictable
    rng = np.random.default_rng(6)
    features = rng.normal(size=(40, 5)).astype(np.float32)
    responses = rng.normal(size=(40, 2000)).astype(np.float32)
    groups = np.array([f"image-{i:02d}" for i in range(40)])
    decoder = RidgeDecoder(RidgeSettings()).fit(responses, {"block": features}, groups)
    assert np.mean(decoder.cross_validation_["block"]["r"]) < 0.2


def test_cross_validated_correlation_equals_sklearn() -> None:
    responses, features, groups = problem()
    settings = RidgeSettings(alphas=(2.0,), unit_weights="equal")
    decoder = RidgeDecoder(settings).fit(responses, features, groups)
    predicted = np.empty_like(features["block"], dtype=float)
    for train, test in grouped_folds(groups, settings.n_folds, settings.random_state):
        mean, scale = responses[train].mean(0), responses[train].std(0) * np.sqrt(12)
        model = Ridge(alpha=2.0).fit((responses[train] - mean) / scale, features["block"][train])
        predicted[test] = model.predict((responses[test] - mean) / scale)
    expected = [
        np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, features["block"].T, strict=True)
    ]
    np.testing.assert_allclose(decoder.cross_validation_["block"]["r"], expected, rtol=1e-4)


@pytest.mark.parametrize("alpha_per_target", [True, False])
def test_target_batches_do_not_change_the_result(alpha_per_target: bool) -> None:
    responses, features, groups = problem()
    found = [
        RidgeDecoder(RidgeSettings(n_targets_batch=size, alpha_per_target=alpha_per_target))
        .fit(responses, features, groups)
        .predict(responses)["block"]
        for size in (1, 3, 1000)
    ]
    np.testing.assert_allclose(found[0], found[2], atol=1e-4)
    np.testing.assert_allclose(found[1], found[2], atol=1e-4)


def test_repeats_stay_together_in_inner_folds() -> None:
    # random features and responses that only identify the stimulus: a fold that parts repeats
    # would find a perfect relation
    rng = np.random.default_rng(4)
    features = np.repeat(rng.normal(size=(30, 3)), 4, axis=0).astype(np.float32)
    responses = np.repeat(rng.normal(size=(30, 200)), 4, axis=0).astype(np.float32)
    groups = np.repeat([f"image-{i:02d}" for i in range(30)], 4)
    decoder = RidgeDecoder(RidgeSettings()).fit(responses, {"block": features}, groups)
    assert np.max(decoder.cross_validation_["block"]["r"]) < 0.5


def test_constant_units_are_ignored_even_when_they_move_later() -> None:
    responses, features, groups = problem()
    plain = RidgeDecoder(RidgeSettings()).fit(responses, features, groups)
    dead = np.concatenate([responses, np.full((len(responses), 2), 7.3, np.float32)], axis=1)
    decoder = RidgeDecoder(RidgeSettings()).fit(dead, features, groups)
    dead[:, -1] = 1e6
    found = decoder.predict(dead)["block"]
    np.testing.assert_allclose(found, plain.predict(responses)["block"], atol=1e-4)


def test_only_constant_units_give_the_mean() -> None:
    _, features, groups = problem()
    flat = np.ones((len(groups), 5), np.float32)
    found = RidgeDecoder(RidgeSettings()).fit(flat, features, groups).predict(flat)["block"]
    np.testing.assert_allclose(found, np.tile(features["block"].mean(0), (40, 1)), atol=1e-4)


def test_units_that_carry_no_signal_get_less_weight() -> None:
    responses, features, groups = problem(n=80)
    noise = np.random.default_rng(5).normal(size=(80, 12)).astype(np.float32)
    both = np.concatenate([responses, noise], axis=1)
    decoder = RidgeDecoder(RidgeSettings()).fit(both, features, groups)
    used = decoder.state()["units"]
    scale = decoder.state()["unit_scale"]
    weight = both.std(0) / scale
    assert weight[:12].mean() > 4 * weight[12:].mean()
    assert (used < 12).sum() > (used >= 12).sum()


def test_rescaling_gives_training_spread_and_spares_pixels() -> None:
    responses, features, groups = problem(n=200)
    features["pixels"] = features["block"]
    shrunk = RidgeDecoder(RidgeSettings(rescale="none")).fit(responses, features, groups)
    block = RidgeDecoder(RidgeSettings()).fit(responses, features, groups)
    target = RidgeDecoder(RidgeSettings(rescale="target")).fit(responses, features, groups)
    truth = features["block"].std(0)
    narrow = shrunk.predict(responses)["block"].std(0)
    assert (narrow < truth).all()
    one_gain = block.predict(responses)["block"].std(0) / narrow
    np.testing.assert_allclose(one_gain, one_gain[0], rtol=1e-3)
    assert one_gain[0] > 1.01
    # the first target is hardly decodable: its gain is for spread on new stimuli
    spread = target.predict(responses)["block"].std(0)
    np.testing.assert_allclose(spread[1:], truth[1:], rtol=0.15)
    np.testing.assert_array_equal(
        block.predict(responses)["pixels"], shrunk.predict(responses)["pixels"]
    )


def oracle_study(n: int = 400, n_units: int = 300, n_test: int = 200) -> tuple:
    """Features to voxels by known weights: a linear-Gaussian world."""
    rng = np.random.default_rng(8)
    features = rng.normal(size=(n + n_test, 40)).astype(np.float32)
    drive = features @ rng.normal(size=(40, n_units)) / 40**0.5
    responses = (drive + 2 * rng.normal(size=drive.shape)).astype(np.float32)
    groups = np.array([f"image-{i:03d}" for i in range(n)])
    return responses, features, groups


def target_correlations(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, truth.T, strict=True)])


def test_planted_linear_gaussian_brain_is_decoded_as_well_as_by_himalaya() -> None:
    from himalaya.ridge import RidgeCV

    responses, features, groups = oracle_study()
    train, test = slice(0, 400), slice(400, None)
    level = 300.0  # mean squared norm of a response in standard scores
    alphas = RidgeSettings().alphas
    mean, scale = responses[train].mean(0), responses[train].std(0)
    inputs = ((responses - mean) / scale).astype(np.float64)
    oracle = RidgeCV(alphas=[a * level for a in alphas], cv=5).fit(inputs[train], features[train])
    expected = target_correlations(oracle.predict(inputs[test]), features[test])
    plain = RidgeDecoder(RidgeSettings(unit_weights="equal"))
    one_a_block = BrainDiffuserDecoder(BrainDiffuserSettings(alphas=alphas))
    for decoder in (plain, one_a_block):
        decoder.fit(responses[train], {"block": features[train]}, groups)
        found = target_correlations(decoder.predict(responses[test])["block"], features[test])
        np.testing.assert_allclose(found, expected, atol=0.01 if decoder is plain else 0.03)
        assert abs(found.mean() - expected.mean()) < 0.01
    # all units are alike here, so that weights can only lose: measured .012
    weighted = RidgeDecoder(RidgeSettings()).fit(
        responses[train], {"block": features[train]}, groups
    )
    found = target_correlations(weighted.predict(responses[test])["block"], features[test])
    assert found.mean() > expected.mean() - 0.015
    assert 0.3 < expected.mean() < 0.95


@pytest.mark.parametrize("n_repeats", [1, 3])
def test_blocks_on_disk_give_the_same_bytes(n_repeats: int) -> None:
    from afterimage.decoding.streams import Targets

    responses, features, groups = problem(n=30)
    order = np.repeat(np.arange(30), n_repeats)
    shown, whole = responses[order], features["block"]
    shown = shown + np.random.default_rng(1).normal(size=shown.shape).astype(np.float32)
    made = {}

    def allocate(name: str, shape: tuple[int, ...]) -> np.ndarray:
        made[name] = np.full(shape, np.nan, np.float32)
        return made[name]

    settings = RidgeSettings(n_targets_batch=2)
    memory = RidgeDecoder(settings).fit(shown, {"block": whole[order]}, groups[order])
    lazy = {"block": Targets(lambda part: whole[:, part], order, 7)}
    disk = RidgeDecoder(settings).fit(shown, lazy, groups[order], allocate=allocate)
    for key, value in memory.state().items():
        np.testing.assert_array_equal(disk.state()[key], value)
    assert set(made) == {"coef/block", "loading/block"}
    gallery = {"block": Targets(lambda part: whole[:, part], np.arange(30), 7)}
    np.testing.assert_array_equal(
        disk.scores(shown[:5], gallery), memory.scores(shown[:5], {"block": whole})
    )


def test_more_trials_than_units_and_fewer_give_the_same() -> None:
    from afterimage.decoding.regression_axes import regression_axes

    rng = np.random.default_rng(2)
    responses = rng.normal(size=(24, 24)).astype(np.float32)
    responses[:, 23] = 0
    stimulus, rows = rng.integers(0, 9, 24), np.arange(24)
    features = rng.normal(size=(9, 4)).astype(np.float32)
    statistics = responses.mean(0), np.ones(24, np.float32)
    found = []
    for n in (24, 23):  # dual, and primal without the last unit, which is silent
        axes = regression_axes(responses, statistics, np.arange(n), stimulus, rows)
        weights = axes.solve(axes.centred(features)[0], 0.7)
        found.append((responses - statistics[0])[:, :n] @ weights)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("n_units", [10, 60])
def test_left_out_trials_through_axes_and_as_weights_of_stimuli(n_units: int) -> None:
    from afterimage.decoding.regression_axes import LeftOut, regression_axes

    rng = np.random.default_rng(3)
    responses = rng.normal(size=(40, n_units)).astype(np.float32)
    stimulus = np.repeat(np.arange(10), 4)
    train, test = np.arange(8, 40), np.arange(8)
    features = rng.normal(size=(10, 5)).astype(np.float32) + 30
    statistics = responses[train].mean(0), responses[train].std(0)
    axes = regression_axes(responses, statistics, np.arange(n_units), stimulus, train, test)
    through = LeftOut(test, axes, (0.1, 1.0, 10.0))
    assert through.weighed(1, np.empty) is through
    weighed = through.weighed(10**9, lambda shape: np.empty(shape, np.float32))
    assert weighed.weights.shape == (3, 8, 8)
    # the same from the normal equations
    inputs = ((responses - statistics[0]) / statistics[1]).astype(np.float64)
    level = (inputs[train] ** 2).sum(1).mean()
    choice = np.array([2, 0, 1, 1, 0])
    wanted = np.empty((3, 8, 5))
    for row, alpha in enumerate(through.alphas):
        gram = inputs[train].T @ inputs[train] + alpha * level * np.eye(n_units)
        truth = features[stimulus[train]] - features[stimulus[train]].mean(0)
        wanted[row] = inputs[test] @ np.linalg.solve(gram, inputs[train].T @ truth)
    for part in (through, weighed):
        known, mean = part.known(features)
        np.testing.assert_allclose(mean, features[stimulus[train]].mean(0), rtol=1e-6)
        np.testing.assert_allclose(list(part.each(known)), wanted, atol=1e-4)
        chosen = wanted[choice, :, np.arange(5)].T
        np.testing.assert_allclose(part.chosen(known, choice), chosen, atol=1e-4)
