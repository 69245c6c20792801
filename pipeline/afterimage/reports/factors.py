"""What the report of the group says of factors over time and people, and of the blocks in their graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from afterimage.reports.page import Cell, Column, Finding, Table

#: Below it, starts or people disagree on what the components are.
UNIQUE = 0.95
STAYS = 0.8


@dataclass(frozen=True)
class GraphBlocks:
    """Blocks of one graph: `name` is ``all`` or ``component1``; `p` is NaN for block models."""

    name: str
    n_blocks: int
    sizes: tuple[int, ...]
    method: str
    quality: float
    p: float


@dataclass(frozen=True, eq=False)
class Factored:
    """Factors of one set of regions, as `stages/factor_connectome.py` writes them.

    Attributes
    ----------
    seg : str
    units : array of shape (n_units, rank)
    times : array of shape (n_windows, rank)
    people : array of shape (n_people, rank)
    names : tuple of str
        Of people.
    communities : array of int, shape (n_units,)
        Component that each unit belongs to most, from 1 on; 0 for none.
    weights, effective_people : array of shape (rank,)
    leave_one_out : array of shape (n_left_out, rank)
    ranks : tuple of int
    held_out_error : array of shape (n_ranks,)
    relative_error, match_score : float
    window_s : float
        In samples where the sampling rate is not known.
    time_unit : str
        ``s`` or ``samples``.
    blocks : sequence of GraphBlocks
    notes : str
    """

    seg: str
    units: np.ndarray
    times: np.ndarray
    people: np.ndarray
    names: tuple[str, ...]
    communities: np.ndarray
    weights: np.ndarray
    effective_people: np.ndarray
    leave_one_out: np.ndarray
    ranks: tuple[int, ...]
    held_out_error: np.ndarray
    relative_error: float
    match_score: float
    window_s: float
    time_unit: str
    blocks: Sequence[GraphBlocks] = field(default_factory=tuple)
    notes: str = ""


def finding(part: Factored) -> Finding:
    """Say whether the components are the same from other starts, and without any one person."""
    question = "Are the components unique, and the group's?"
    rank = len(part.weights)
    lowest = float(part.leave_one_out.mean(axis=0).min()) if len(part.leave_one_out) else None
    unique = part.match_score >= UNIQUE
    detail = (
        f"{rank} components explain {1 - part.relative_error**2:.0%} of the squared co-activation "
        f"of {len(part.units)} regions in {len(part.names)} people. Other starts match the best by "
        f"{part.match_score:.2f} (below {UNIQUE} they are not unique)."
    )
    if lowest is not None:
        detail += (
            f" Fitted without one person, the components match themselves by {lowest:.2f} or more on average "
            f"over {len(part.leave_one_out)} people left out (below {STAYS}, a component hangs on "
            "few people)."
        )
    if part.ranks and part.ranks[int(part.held_out_error.argmin())] == max(part.ranks) > 1:
        detail += " The number of components is the largest that was tried: try more."
    stays = lowest is None or lowest >= STAYS
    state = "yes" if unique and stays else "partly" if unique or stays else "no"
    answer = {"yes": "Yes", "partly": "In part", "no": "No"}[state]
    return Finding(question, state, answer, detail)


def _number(text: str, value: float | None = None) -> Cell:
    return Cell(text, value, "number")


def component_table(part: Factored) -> Table:
    """One row a component."""
    rows = []
    for index, weight in enumerate(part.weights):
        stays = part.leave_one_out[:, index]
        told = f"{stays.mean():.2f} ({stays.min():.2f})" if len(stays) else "\u2013"
        peak = int(part.times[:, index].argmax())
        start = peak * part.window_s
        people = float(part.effective_people[index])
        end = start + part.window_s
        rows.append((
            Cell(f"{index + 1}"),
            _number(f"{weight / part.weights.sum():.0%}", float(weight)),
            _number(str(int((part.communities == index + 1).sum()))),
            _number(f"{start:g} to {end:g} {part.time_unit}", float(start)),
            _number(f"{people:.1f} of {len(part.names)}", people),
            _number(told, float(stays.mean()) if len(stays) else None),
        ))  # fmt: skip
    return Table(
        f"Components, {part.seg}",
        (
            Column("Component"),
            Column("Weight", "share of the sum of norms", numeric=True),
            Column("Regions", "that belong to it most", numeric=True),
            Column("Strongest", "window in which it is largest", numeric=True),
            Column("People", "that make it up, exp of the entropy of their shares", numeric=True),
            Column("Without a person", "match of the component fitted without one person: mean "
                   "(lowest); 1 is the same", numeric=True),
        ),
        tuple(rows),
    )  # fmt: skip


def block_table(part: Factored) -> Table:
    """One row a graph."""
    rows = []
    for graph in part.blocks:
        title = (
            "all times" if graph.name == "all" else graph.name.replace("component", "component ")
        )
        p = f"{graph.p:.3f}" if np.isfinite(graph.p) else "\u2013"
        rows.append((
            Cell(title), _number(str(graph.n_blocks)),
            _number(", ".join(map(str, graph.sizes))),
            _number(f"{graph.quality:.3f}"), _number(p), Cell(graph.method),
        ))  # fmt: skip
    return Table(
        f"Blocks of the graphs, {part.seg}",
        (
            Column("Graph"), Column("Blocks", numeric=True), Column("Regions in each", numeric=True),
            Column("Quality", "modularity, or description length in nats", numeric=True),
            Column("p", "of graphs with the same degrees and shuffled weights", numeric=True),
            Column("Method"),
        ),
        tuple(rows),
    )  # fmt: skip


def factored_view(found: Sequence[Factored]) -> dict[str, Any] | None:
    """Return what the section says; None where nothing was factored."""
    if not found:
        return None
    return {
        "parts": [
            {
                "finding": finding(part),
                "components": component_table(part),
                "blocks": block_table(part),
                "notes": [note for note in part.notes.split("; ") if note],
            }
            for part in found
        ]
    }
