"""The graph model: graphs are as dense as asked, windows of an example share no volume."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.pretraining.graph_mae import GraphMAE, GraphMAESettings, graph_tokens
from afterimage.pretraining.masked_model import Prepared, prepare
from afterimage.simulate.region_series import switching_communities


def settings(**more: object) -> GraphMAESettings:
    quick = {"segment_volumes": 20, "stride_volumes": 5, "n_features": 16, "n_layers": 1}
    return GraphMAESettings.model_validate(quick | more)


def test_graphs_join_the_most_correlated_pairs() -> None:
    window = np.random.default_rng(0).standard_normal((3, 30, 10)).astype(np.float32)
    tokens = graph_tokens(window, 0.3)
    adjacency = tokens[..., :10]
    assert (adjacency == adjacency.transpose(0, 2, 1)).all()
    assert (adjacency.diagonal(axis1=1, axis2=2) == 0).all()
    rows, columns = np.triu_indices(10, 1)
    for graph, part in zip(adjacency, window, strict=True):
        correlation = np.corrcoef(part.T)[rows, columns]
        edges = graph[rows, columns] == 1
        assert edges.sum() == round(0.3 * 45)
        assert correlation[edges].min() > correlation[~edges].max()
    np.testing.assert_allclose(tokens[..., -2], window.mean(1), atol=1e-6)


def test_windows_of_an_example_share_no_volume() -> None:
    model = GraphMAE(settings())
    recording = prepare(np.random.default_rng(0).standard_normal((200, 8)))
    triples = model.triples(model.starts(recording))
    assert len(triples) > 50
    assert np.diff(triples, axis=1).min() >= 20
    assert np.diff(triples, axis=1).max() <= 40
    wide = GraphMAE(settings(gap_windows=2.0))
    assert np.diff(wide.triples(wide.starts(recording)), axis=1).min() >= 40
    with pytest.raises(InputError, match="share no volume"):
        model.starts(prepare(np.random.default_rng(0).standard_normal((55, 8))))


def test_windows_that_are_mostly_censored_are_left_out() -> None:
    kept = np.ones(200, bool)
    kept[60:80] = False
    recording = Prepared(np.random.default_rng(0).standard_normal((200, 8), np.float32), kept)
    starts = GraphMAE(settings()).starts(recording)
    for start in starts:
        assert kept[start : start + 20].sum() >= 10
    assert 60 not in starts
    assert 0 in starts


def test_what_is_filled_in_is_set_beside_its_rivals() -> None:
    series, _ = switching_communities(1, n_times=200, n_regions=8, random_state=0)
    model = GraphMAE(settings()).initialise(8)
    recording = prepare(series[0])
    starts = model.starts(recording)
    filled = model.fill_in([recording], 0)[0]
    triples = model.triples(starts)
    rows, columns = np.triu_indices(8, 1)
    graphs = model.tokens(recording)[0][:, rows, columns]
    where = dict(zip(starts.tolist(), graphs, strict=True))
    place = len(triples) // 2
    for row, start in enumerate(triples[place].tolist()):
        assert np.array_equal(filled.tokens[place, row], where[start])
    apart = np.abs(starts - triples[place, 1]) >= 20
    np.testing.assert_allclose(filled.tokens[place, 3], graphs[apart].mean(0), atol=1e-6)
