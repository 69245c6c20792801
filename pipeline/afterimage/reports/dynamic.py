"""What a report says of dynamic connectivity: rows of the table, findings and warnings in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from afterimage.reports.page import Cell, Column, Finding, Table

#: Below this probability under the surrogates something is said to change.
ALPHA = 0.05
ANALYSES = {
    "windows": "windows", "window_states": "states of windows", "hidden_states": "hidden states",
}  # fmt: skip
QUANTITIES = {
    "variance": "variance of windowed connectivity",
    "n_states": "number of states",
    "n_switches": "changes of state",
    "occupancy": "share of the time",
    "dwell": "mean visit (samples)",
}


@dataclass(frozen=True, eq=False)
class Dynamic:
    """Dynamic connectivity of one subject, as `stages/connect_dynamic.py` writes it.

    Parameters
    ----------
    rows : sequence of dict
        Rows of ``_states.tsv``; numbers are numbers, NaN where not known.
    recordings : tuple of str
    width, step : int
        Samples of a window, and from one to the next.
    sampling_rate_hz : float
        0 where not known.
    variance : array of shape (n_recordings,)
    null_variance : array of shape (n_surrogates, n_recordings)
    window_state, window_recording, window_start : arrays of shape (n_windows,)
        Empty where no states were looked for.
    centres : array of shape (n_states, n_units, n_units)
    null_occupancy : array of shape (n_surrogates, n_states)
    hidden_state, sample_recording : arrays of shape (n_samples,)
    hidden_correlation : array of shape (n_hidden, n_units, n_units)
    weights : dict of array, each of shape (n_states, n_units, n_units)
        Couplings by model, where an HMM-GLM was fitted.
    notes : str
    """

    rows: Sequence[Mapping[str, Any]]
    recordings: tuple[str, ...]
    width: int
    step: int
    sampling_rate_hz: float
    variance: np.ndarray
    null_variance: np.ndarray
    window_state: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    window_recording: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    window_start: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    centres: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))
    null_occupancy: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    hidden_state: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    sample_recording: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    hidden_correlation: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: str = ""

    def time_unit(self) -> tuple[float, str]:
        """Return what a sample lasts, and its unit."""
        if self.sampling_rate_hz > 0:
            return 1 / self.sampling_rate_hz, "s"
        return 1.0, "samples"


def quantity_name(name: str) -> str:
    """Name a quantity of the table."""
    for start, text in (
        ("explained_by_", "variance between {} states"),
        ("held_out_gain_of_", "held-out gain of {} hidden states over one (nats a sample)"),
    ):
        if name.startswith(start):
            return text.format(name.removeprefix(start))
    return QUANTITIES.get(name, name.replace("_", " "))


def dynamic_finding(dynamic: Dynamic) -> Finding:
    """Answer whether connectivity changes more than stationary noise with the same spectra does."""
    rows = [row for row in dynamic.rows if row["quantity"] == "variance"]
    known = [row for row in rows if np.isfinite(row["p"])]
    above = [row for row in known if row["p"] <= ALPHA]
    question = "Does connectivity change over time?"
    if not known:
        return Finding(question, "unknown", "not tested", "No recording has enough windows.")
    expected = ALPHA * len(known)
    state = "no" if not above else "yes" if len(above) == len(known) else "partly"
    detail = (
        f"Variance of windows of {dynamic.width} samples above that of phase-randomised surrogates "
        f"(p up to {ALPHA:g}) in {len(above)} of {len(known)} recordings; {expected:.1f} would be "
        "by chance."
    )
    if above:
        detail += (
            " Surrogates are stationary, linear and Gaussian: motion, drowsiness and noise that "
            "comes and goes reject them as well as states of the brain do."
        )
    else:
        detail += " States drawn below are what clustering makes of stationary noise."
    answer = {"no": "Not more than noise", "yes": "More than noise", "partly": "In part"}[state]
    return Finding(question, state, answer, detail)


def dynamic_table(dynamic: Dynamic) -> Table:
    """Lay out every quantity beside its surrogates."""

    def number(value: float) -> Cell:
        known = np.isfinite(value)
        return Cell(f"{value:.3g}" if known else "–", float(value) if known else None, "number")

    # Two states are compared with surrogates even where one is enough: they are not found.
    one = any(r["analysis"] == "window_states" and r["quantity"] == "n_states" and r["value"] == 1
              for r in dynamic.rows)  # fmt: skip
    rows = []
    for row in dynamic.rows:
        analysis, quantity = str(row["analysis"]), str(row["quantity"])
        name = quantity_name(quantity)
        state = row.get("state")
        if state is not None and np.isfinite(float(state)):
            name += f", state {int(float(state)) + 1}"
        made = one and analysis == "window_states" and quantity != "n_states"
        if made and not quantity.startswith("explained_by_"):
            continue
        band = Cell("–", kind="number")
        if np.isfinite(row["chance_low"]):
            band = Cell(f"{row['chance_low']:.3g} to {row['chance_high']:.3g}", kind="number")
        cells = (number(row["value"]), number(row["chance"]), band, number(row["p"]))
        said = "two states, made to compare" if made else ANALYSES.get(analysis, analysis)
        rows.append((Cell(name), Cell(said), Cell(str(row["recording"])), *cells))
    return Table(
        "Dynamic connectivity, and the same quantities of phase-randomised surrogates.",
        (
            Column("Quantity"),
            Column("Of"),
            Column("Recording"),
            Column("Value", numeric=True),
            Column("Surrogates", "Median of the surrogates", numeric=True),
            Column("95 % of surrogates", numeric=True),
            Column("p", "Share of surrogates at or above the value", numeric=True),
        ),
        tuple(rows),
        sortable=True,
    )


def dynamic_view(found: Sequence[Dynamic]) -> dict[str, Any] | None:
    """Return what the section says; None where nothing was computed."""
    if not found:
        return None
    return {
        "parts": [
            {
                "finding": dynamic_finding(part),
                "table": dynamic_table(part),
                "notes": [note for note in part.notes.split("; ") if note],
            }
            for part in found
        ]
    }
