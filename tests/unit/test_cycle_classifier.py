"""Groups that differ in 3-cycles and not in degree; masks that leak."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

from afterimage.connectivity.cycle_classifier import cycle_classifier, out_of_fold
from afterimage.connectivity.graph_measures import node_measures
from afterimage.errors import InputError


def guessed(
    maps: np.ndarray, labels: np.ndarray, *, groups: np.ndarray | None = None, seed: int = 0,
    **settings: float,
) -> np.ndarray:  # fmt: skip
    """Return the class of every subject, predicted in five folds."""
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = list(kind(5, shuffle=True, random_state=seed).split(maps, labels, groups))
    return out_of_fold(maps, labels[:, None], folds, **settings)[:, 0].argmax(axis=1)


def clustered_and_rewired(
    n_subjects: int, n_nodes: int = 60
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Make ring lattices with small changes; those of one group are rewired, degrees kept."""
    maps: dict[str, list[np.ndarray]] = {"degree": [], "cycles": []}
    labels = np.arange(n_subjects) % 2
    for number, label in enumerate(labels.tolist()):
        graph = networkx.watts_strogatz_graph(n_nodes, 8, 0.15, seed=number)
        if label:
            networkx.double_edge_swap(graph, nswap=60, max_tries=100_000, seed=number)
        weights = csr_array(networkx.to_scipy_sparse_array(graph, range(n_nodes), format="csr"))
        found = node_measures(weights)
        for name, values in maps.items():
            values.append(found[name])
    return {name: np.array(values) for name, values in maps.items()}, labels


def test_cycles_tell_groups_apart_that_have_the_same_degrees() -> None:
    maps, labels = clustered_and_rewired(200)
    accuracy = {
        name: float((guessed(values, labels, mask_percent=50) == labels).mean())
        for name, values in maps.items()
    }
    assert accuracy["cycles"] >= 0.9
    # The degrees of a rewired graph are those of the graph: 95 % of chance for 200 subjects.
    assert abs(accuracy["degree"] - 0.5) <= 1.96 * np.sqrt(0.25 / 200)


def test_a_mask_of_all_subjects_leaks_and_one_inside_the_fold_does_not() -> None:
    rng = np.random.default_rng(0)
    leaked, honest = [], []
    for seed in range(20):
        maps, labels = rng.standard_normal((60, 1000)), rng.permutation(np.arange(60) % 2)
        model = cycle_classifier(mask_percent=5)
        chosen = model[:2].fit_transform(maps, labels)  # sees the subjects that are tested
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        guess = cross_val_predict(cycle_classifier(mask_percent=100), chosen, labels, cv=folds)
        leaked.append((guess == labels).mean())
        inside = guessed(maps, labels, mask_percent=5, seed=seed)
        honest.append((inside == labels).mean())
    assert np.mean(leaked) > 0.6
    assert abs(np.mean(honest) - 0.5) < 0.06  # four standard errors of 20 x 60 are 0.058


def test_groups_are_never_on_both_sides() -> None:
    # Families share a map and a label; labels are random: only a leak could tell.
    rng = np.random.default_rng(1)
    family = np.repeat(np.arange(30), 4)
    labels = rng.permutation(np.arange(30) % 2)[family]
    maps = rng.standard_normal((30, 50))[family] + 0.01 * rng.standard_normal((120, 50))
    apart = guessed(maps, labels, groups=family, mask_percent=100)
    mixed = guessed(maps, labels, mask_percent=100, n_components=40)
    assert (mixed == labels).mean() > 0.85
    assert abs((apart == labels).mean() - 0.5) < 0.2  # 30 families


def test_bad_input_is_named() -> None:
    labels = np.arange(20) % 2
    maps = np.random.default_rng(0).standard_normal((20, 8))
    with pytest.raises(InputError, match="no groups"):
        out_of_fold(maps, np.zeros((20, 1), int), [(labels == 0, labels == 1)])
    with pytest.raises(InputError, match="the same in all"):
        guessed(np.ones((20, 8)), labels)
    maps[3, 2] = np.inf
    with pytest.raises(InputError, match="no finite numbers"):
        guessed(maps, labels)
