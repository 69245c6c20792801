"""A decoder that knows only which of K clusters an image is in scores 1 - 1/(2K) in two-way."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.evaluation.identification import two_way, within_cluster_two_way


@pytest.mark.parametrize(("n_clusters", "expected"), [(2, 0.75), (5, 0.90), (10, 0.95)])
def test_cluster_only_two_way(n_clusters: int, expected: float) -> None:
    generator = np.random.default_rng(n_clusters)
    clusters = np.arange(1000) % n_clusters
    same = clusters[:, None] == clusters[None, :]
    similarities = 10.0 * same + generator.random((1000, 1000))
    assert np.mean(two_way(similarities)) == pytest.approx(expected, abs=0.012)
    assert np.mean(within_cluster_two_way(similarities, clusters)) == pytest.approx(0.5, abs=0.03)
