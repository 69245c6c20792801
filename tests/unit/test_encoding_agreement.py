"""Agreement with the brain: against Pearson r by unit, a planted truth, and its own chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr

from afterimage.evaluation import encoding_agreement
from afterimage.evaluation.encoding_agreement import Agreement, fit_encoding, with_ceiling
from afterimage.evaluation.measures import Resampling

QUICK = Resampling(n_bootstraps=300, n_permutations=299)
IDENTITY = {"subject": "01", "label": "trueImages", "decoder": "", "method": "", "role": "ceiling"}


def study(noise: float = 1.0):
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((10, 12))
    weights[:, 6:] = 0  # the second region answers to nothing
    features = rng.standard_normal((200, 10))
    responses = features @ weights + noise * rng.standard_normal((200, 12))
    test = rng.standard_normal((40, 10))
    measured = test @ weights + 0.5 * noise * rng.standard_normal((40, 12))
    regions = ["V1"] * 6 + ["PPA"] * 6
    return features, responses, test, measured, regions, rng


@pytest.mark.parametrize(("n", "n_features"), [(120, 30), (50, 90)])
def test_the_encoding_model_is_that_of_scikit_learn(
    n: int, n_features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.linear_model import RidgeCV

    rng = np.random.default_rng(1)
    features = rng.standard_normal((n, n_features)) * np.arange(1, n_features + 1) + 3
    features[:, -1] = 2.0  # one that never changes
    signal = features[:, :5] @ rng.standard_normal((5, 40)) * rng.random(40)
    responses = signal + 3 * rng.standard_normal((n, 40))
    responses[:, 3] = 1.0
    monkeypatch.setattr(encoding_agreement, "CHUNK_VALUES", 7 * n)
    found = encoding_agreement.fit_encoding(features, responses)
    inputs = (features - found.feature_mean) / found.feature_scale
    targets = responses - responses.mean(axis=0)
    targets /= np.maximum(targets.std(axis=0), 1e-12)
    model = RidgeCV(alphas=encoding_agreement.ALPHAS, alpha_per_target=True)
    expected = model.fit(inputs, targets)
    assert len(np.unique(expected.alpha_)) > 1
    np.testing.assert_allclose(found.coef, expected.coef_.T, atol=1e-6)


def test_it_is_the_mean_of_pearson_r_by_unit() -> None:
    features, responses, test, measured, regions, _ = study()
    model = fit_encoding(features, responses)
    agreement = Agreement(
        model,
        measured,
        regions,
        encoder="clip",
        noise_ceiling=np.linspace(0, 1, 12),
        drawing=QUICK,
    )
    agreement.add(test, IDENTITY, "the true images")
    rows = {row["metric"]: row for row in agreement.rows}
    r = [pearsonr(model.predict(test)[:, u], measured[:, u])[0] for u in range(12)]
    assert rows["encoding_agreement_V1"]["value"] == pytest.approx(np.mean(r[:6]), abs=1e-6)
    assert rows["encoding_agreement_all"]["value"] == pytest.approx(np.mean(r), abs=1e-6)
    assert rows["encoding_agreement_V1"]["value"] > 0.9
    assert abs(rows["encoding_agreement_PPA"]["value"]) < 0.15
    assert rows["encoding_agreement_V1"]["noise_ceiling"] == pytest.approx(5 / 22)
    v1 = rows["encoding_agreement_V1"]
    assert v1["ci_low"] <= v1["value"] <= v1["ci_high"] and v1["p"] == 1 / 300
    assert abs(v1["chance"]) < 0.05
    assert "ridge from clip" in v1["protocol"] and "6 units" in v1["protocol"]


def test_the_interval_is_that_of_resampled_images() -> None:
    features, responses, test, measured, regions, _ = study(noise=4.0)
    model = fit_encoding(features, responses)
    agreement = Agreement(model, measured, regions, encoder="clip", drawing=QUICK)
    agreement.add(test, IDENTITY, "the true images")
    row = next(r for r in agreement.rows if r["metric"] == "encoding_agreement_V1")
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, 40, size=(300, 40))
    guess = model.predict(test)
    means = [
        np.mean([pearsonr(guess[i, u], measured[i, u])[0] for u in range(6)]) for i in drawn[:300]
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high), abs=1e-5)


def test_reconstructions_stand_beside_true_images_and_shuffled_ones_are_at_chance() -> None:
    features, responses, test, measured, regions, rng = study()
    agreement = Agreement(
        fit_encoding(features, responses), measured, regions, encoder="clip", drawing=QUICK
    )
    agreement.add(test, IDENTITY, "the true images")
    made = {
        "good": test + 0.5 * rng.standard_normal(test.shape),
        "shuffled": test[rng.permutation(40)],
    }
    made["same"] = np.repeat(test[:1], 40, axis=0)
    for label, values in made.items():
        agreement.add(values, IDENTITY | {"label": label, "role": "reconstruction"}, "one sample")
    rows = {(r["label"], r["metric"]): r for r in with_ceiling(agreement.rows, "trueImages")}
    good = rows["good", "encoding_agreement_V1"]
    assert (
        good["ceiling"]
        == rows["trueImages", "encoding_agreement_V1"]["value"]
        > good["value"]
        > 0.6
    )
    assert rows["trueImages", "encoding_agreement_V1"]["ceiling"] is None
    assert rows["shuffled", "encoding_agreement_V1"]["p"] > 0.02
    assert (
        rows["same", "encoding_agreement_V1"]["value"] == 0.0
    )  # one picture for all says nothing
