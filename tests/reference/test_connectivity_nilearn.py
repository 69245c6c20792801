"""Static connectivity equals nilearn's to 1e-6; identification of real people reaches the README's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nilearn.connectome import ConnectivityMeasure
from sklearn.covariance import EmpiricalCovariance, LedoitWolf

from afterimage.connectivity.registry import CONNECTIVITY
from afterimage.evaluation import phenotypes
from afterimage.evaluation.fingerprint import edges, identification, similarity
from afterimage.evaluation.phenotype_scores import score
from afterimage.io.tables import read_tsv
from afterimage.signal.correlation import correlation_matrices

KINDS = {
    "correlation": "correlation", "partial": "partial correlation", "tangent": "tangent",
    "covariance": "covariance", "precision": "precision",
}  # fmt: skip
ESTIMATORS = {"ledoit_wolf": LedoitWolf(store_precision=False), "empirical": EmpiricalCovariance()}


def make_series() -> list[np.ndarray]:
    """Mixed series of five people, regions of different variance, baselines of 400."""
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.3, 5, 30)
    mixing = np.eye(30) + 0.3 * rng.standard_normal((30, 30))
    return [400 + rng.standard_normal((n, 30)) @ mixing * scale for n in (200, 150, 180, 90, 210)]


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("kind", list(KINDS))
def test_it_equals_nilearn(kind: str, standardize: bool, estimator: str) -> None:
    series = make_series()
    settings = CONNECTIVITY.settings(kind)(standardize=standardize, estimator=estimator)
    measure = CONNECTIVITY.get(kind)(settings).fit(series[:3])
    found = measure.transform(series[3:])
    # nilearn's own option acts on correlations alone: scaled before, as the setting says.
    if standardize:
        series = [(values - values.mean(0)) / values.std(0) for values in series]
    reference = ConnectivityMeasure(
        ESTIMATORS[estimator], kind=KINDS[kind], standardize=False
    )  # fmt: skip
    expected = reference.fit(series[:3]).transform(series[3:])
    bound = 1e-6 * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, atol=bound)


def test_the_scale_of_a_region_matters_only_where_standardising_is_off() -> None:
    series = make_series()
    scaled = [values * np.linspace(0.1, 10, 30) for values in series]
    for standardize in (True, False):
        settings = CONNECTIVITY.settings("partial")(standardize=standardize)
        partial = CONNECTIVITY.get("partial")(settings)
        apart = np.abs(partial.transform(series) - partial.transform(scaled)).max()
        assert (apart < 1e-5) == standardize


def test_people_are_found_again_among_37(shared_data: Path) -> None:
    """The README's numbers, .784 and .838, which stand for 29 and 31 of 37 people."""
    folder = shared_data / "rest-roi"
    if not folder.is_dir():
        pytest.skip("rest-roi is not here")
    both = [p for p in sorted(folder.glob("sub-*")) if len(list(p.glob("ses-*"))) == 2]
    assert len(both) == 37
    sessions = [
        edges(
            correlation_matrices(
                (np.load(p / f"ses-{s}" / f"{p.name}_ses-{s}_timeseries.npy") for p in both), 37
            )
        )
        for s in (1, 2)
    ]
    similar = similarity(*sessions)
    forward, backward = identification(similar), identification(similar.T)
    assert forward.value >= 0.784 - 5e-4
    assert backward.value >= 0.838 - 5e-4
    assert forward.p <= 1 / 1001 + 1e-9
    assert abs(forward.chance - 1 / 37) < 0.01


@pytest.mark.parametrize("measure", ["sofas", "bprs"])
def test_outcomes_are_honestly_not_predicted(shared_data: Path, measure: str) -> None:
    """A published null: a score whose interval leaves chance out would be a leak."""
    folder = shared_data / "rest-roi"
    if not folder.is_dir():
        pytest.skip("rest-roi is not here")
    rows = [
        row
        for row in read_tsv(folder / "outcomes.tsv")
        if (row["measure"], row["timepoint"]) == (measure, "4")
    ]
    names = [row["participant_id"] for row in rows]
    assert len(names) == {"sofas": 49, "bprs": 45}[measure]
    matrices = correlation_matrices(
        (np.load(folder / n / "ses-1" / f"{n}_ses-1_timeseries.npy") for n in names), len(names)
    )
    folds = phenotypes.make_folds(np.array(names), n_repeats=3)
    drawn = phenotypes.permuted_rows(np.array(names), folds.groups, n_permutations=200)
    truth = np.array([float(row["outcome"]) for row in rows])
    every = np.concatenate([truth[:, None], truth[drawn].T], axis=1)
    products = [[phenotypes.gram(edges(matrices))] * 5] * 3
    guess = phenotypes.cross_validate(products, every, folds)
    found = score(every, guess, folds, "r", n_bootstraps=500)
    assert found.ci_low <= found.chance <= found.ci_high
    assert found.chance_low <= found.value <= found.chance_high
