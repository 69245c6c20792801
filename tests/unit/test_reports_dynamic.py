"""What the report says and draws of dynamic connectivity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afterimage.reports.dynamic import (
    Dynamic,
    dynamic_finding,
    dynamic_table,
    dynamic_view,
    quantity_name,
)
from afterimage.reports.figures.dynamic import dynamic_panels, state_shares
from afterimage.reports.figures.style import LIGHT

NAN = float("nan")


def row(quantity: str, value: float, p: float, state: float = NAN) -> dict:
    analysis = "windows" if quantity == "variance" else "window_states"
    return {
        "analysis": analysis, "recording": "ses-1", "quantity": quantity, "state": state,
        "value": value, "p": p,
        "chance": 1.0, "chance_low": 0.8, "chance_high": 1.2,
    }  # fmt: skip


def example(*p: float) -> Dynamic:
    rng = np.random.default_rng(0)
    rows = [row("variance", 2.0, value) for value in p] + [row("occupancy", 0.6, 0.3, 0.0)]
    matrices = np.stack([np.corrcoef(rng.standard_normal((6, 40))) for _ in range(2)])
    labels = np.repeat([0, 1, -1, 0], 10)
    return Dynamic(
        rows, ("ses-1", "ses-2"), 30, 8, 0.5, np.array([2.0, NAN]), rng.random((40, 2)),
        window_state=labels, window_recording=np.repeat([0, 1], 20),
        window_start=np.tile(8 * np.arange(20), 2), centres=matrices,
        null_occupancy=np.tile([0.7, 0.3], (40, 1)), hidden_state=labels,
        sample_recording=np.repeat([0, 1], 20), hidden_correlation=matrices,
        weights={"one_hot": rng.standard_normal((2, 6, 6))}, notes="one run was left out",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("p", "state", "words"),
    [
        ((0.01, 0.02), "yes", "motion, drowsiness"),
        ((0.01, 0.5), "partly", "1 of 2 recordings; 0.1 would"),
        ((0.4, 0.5), "no", "stationary noise"),
        ((NAN,), "unknown", "enough windows"),
    ],
)
def test_the_finding_follows_the_surrogates(p: tuple[float, ...], state: str, words: str) -> None:
    found = dynamic_finding(example(*p))
    assert found.state == state
    assert words in found.detail


def test_every_quantity_has_its_row_and_its_name() -> None:
    table = dynamic_table(example(0.01))
    assert [cells[0].text for cells in table.rows] == [
        "variance of windowed connectivity", "share of the time, state 1",
    ]  # fmt: skip
    assert table.rows[0][5].text == "0.8 to 1.2"
    assert [cells[1].text for cells in table.rows] == ["windows", "states of windows"]
    alone = example(0.01)
    rows = [*alone.rows, row("explained_by_2", 0.1, 0.9), row("n_states", 1.0, NAN)]
    assert [cells[1].text for cells in dynamic_table(replace(alone, rows=rows)).rows] == [
        "windows", "two states, made to compare", "states of windows",
    ]  # fmt: skip
    view = dynamic_view([alone])
    assert view is not None
    assert view["parts"][0]["notes"] == ["one run was left out"]
    assert quantity_name("explained_by_3") == "variance between 3 states"
    assert "2 hidden states" in quantity_name("held_out_gain_of_2")


def test_all_panels_are_drawn_and_described() -> None:
    dynamic = example(0.01)
    panels = dynamic_panels(dynamic)
    titles = [panel.title for panel in panels]
    assert titles == [
        "Variance over windows · ses-1", "States of windows", "States of windows over time",
        "Hidden states", "Hidden states over time", "Occupancy", "Couplings · one-hot",
    ]  # fmt: skip
    assert "shares 67%, 33%" in panels[1].alt
    for panel in panels:
        drawn = panel.draw(LIGHT)
        assert drawn.startswith(b"<?xml")
        assert drawn == panel.draw(LIGHT)


def test_windows_without_a_state_count_nowhere() -> None:
    np.testing.assert_allclose(state_shares(np.array([0, 0, 1, -1]), 2), [2 / 3, 1 / 3])
