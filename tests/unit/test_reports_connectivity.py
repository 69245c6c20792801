"""Figures and tables of connectivity: drawn for awkward data, and saying what they should."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from afterimage.reports.connectivity import ConnectedRun, Connectivity
from afterimage.reports.connectivity_tables import findings, group_view, run_table, subject_view
from afterimage.reports.figures.connectivity import (
    draw_connectome,
    draw_matrix,
    draw_series,
    draw_similarity,
    order_of,
    shrink,
)
from afterimage.reports.figures.style import LIGHT
from afterimage.reports.model import SubjectReport


def make_matrix(n: int, seed: int = 0) -> np.ndarray:
    return np.corrcoef(np.random.default_rng(seed).standard_normal((n, 50)))


def make_part(**changes: object) -> Connectivity:
    n = 6
    values = {
        "seg": "A", "names": [f"R{i}" for i in range(n)], "networks": ["a", "b"] * 3,
        "centres": np.full((n, 3), np.nan), "matrices": {"correlation": make_matrix(n)},
        "runs": [ConnectedRun("ses-1", 90, 60, 12, 20, 0.5), ConnectedRun("ses-2", 150, 0)],
        **changes,
    }  # fmt: skip
    return Connectivity(**values)  # type: ignore[arg-type]


def is_svg(drawn: bytes) -> bool:
    return ElementTree.fromstring(drawn).tag.endswith("svg")  # noqa: S314  (our own)


def test_units_are_ordered_by_network_or_by_likeness() -> None:
    matrix = make_matrix(4)
    assert order_of(["b", "a", "b", "a"], matrix).tolist() == [0, 2, 1, 3]
    alike = np.array([[1, 0, 0.9, 0], [0, 1, 0, 0.9], [0.9, 0, 1, 0], [0, 0.9, 0, 1]])
    order = order_of(["n/a"] * 4, alike).tolist()
    assert abs(order.index(0) - order.index(2)) == abs(order.index(1) - order.index(3)) == 1


def test_large_matrices_are_averaged_in_blocks() -> None:
    matrix = np.kron(np.arange(4.0).reshape(2, 2), np.ones((5, 5)))
    np.testing.assert_allclose(shrink(matrix, 2), [[0, 1], [2, 3]])
    assert shrink(make_matrix(300), 240).shape == (240, 240)


@pytest.mark.parametrize("n", [2, 6, 130])
def test_matrices_of_any_size_and_sign_are_drawn_alike_each_time(n: int) -> None:
    for matrix in (make_matrix(n), np.abs(make_matrix(n)), np.zeros((n, n))):
        order = np.arange(n)
        drawn = draw_matrix(matrix, ["x"] * n, order, "r", LIGHT)
        assert is_svg(drawn)
        assert drawn == draw_matrix(matrix, ["x"] * n, order, "r", LIGHT)


def test_connectomes_series_and_similarities_are_drawn() -> None:
    points = np.random.default_rng(0).uniform(-50, 50, (6, 3))
    assert is_svg(draw_connectome(make_matrix(6), points, LIGHT))
    censored = np.arange(40) < 5
    carpet = np.random.default_rng(0).standard_normal((6, 40))
    assert is_svg(draw_series(ConnectedRun("x", 35, 5, carpet=carpet, censored=censored), LIGHT))
    assert is_svg(draw_similarity(make_matrix(3), LIGHT))


def test_the_table_warns_of_censoring_and_few_degrees_of_freedom() -> None:
    rows = run_table(make_part()).rows
    texts = [[cell.text for cell in row] for row in rows]
    assert texts[0] == ["ses-1", "90", "40 %", "3.0 min", "12", "20"]
    assert texts[1] == ["ses-2", "150", "0 %", "not known", "not known", "not known"]
    assert [cell.kind for cell in rows[0]].count("number warn") == 2
    (finding,) = findings(SubjectReport("1", connectivity=[make_part()]))
    assert finding.state == "no"
    assert "20 degrees of freedom" in finding.detail


def test_without_connectivity_there_is_no_section() -> None:
    assert subject_view([]) is None
    assert group_view([]) is None
    view = group_view([make_part(n_people=3)])
    assert view is not None
    assert "cannot be told apart here" in view["parts"][0]["sentence"]
