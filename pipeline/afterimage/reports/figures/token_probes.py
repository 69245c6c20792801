"""Plots of what tokens tell: hidden tokens guessed, and labels beside linear models of the signal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from afterimage.reports.figures.pretraining import draw_losses
from afterimage.reports.figures.time_resolved import DotRow, draw_conditions
from afterimage.reports.labels import as_number
from afterimage.reports.model import GroupReport
from afterimage.reports.page import Panel
from afterimage.reports.token_probe_words import GUESSES, SIDES
from afterimage.reports.tokenizers import Row

#: Roles of rows that are no tokens and no model of them.
RIVALS = ("linear baseline", "network baseline", "untrained")


def guess_panels(report: GroupReport) -> list[Panel]:
    """Loss, and cross-entropy of hidden tokens beside guesses without a network, a model each."""
    panels = []
    for model in report.token_models:
        losses = np.asarray(model.card.get("losses", ()), float)
        if len(losses):
            told = f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at the end"
            panels.append(Panel(f"{model.name}: loss", told, partial(draw_losses, losses)))
        rows, kinds = [], []
        for row in model.pretext:
            name = str(row["predictor"])
            if name not in ("masked model", *GUESSES):
                continue
            rows.append(_dot(row, f"stage {row['stage']}: {name}", chance=False))
            kinds.append("real" if name == "masked model" else "before")
        told = ", ".join(f"{row.title} {row.value:.3f}" for row in rows)
        draw = partial(
            draw_conditions, rows, kinds, "cross-entropy (nats a token; less is better)"
        )
        panels.append(Panel(f"{model.name}: hidden tokens", told, draw))
    return panels


def told_panels(report: GroupReport) -> list[Panel]:
    """Scores of every representation, one panel a tokenizer, label and side."""
    panels = []
    for card in report.tokenizers:
        of_auc = [row for row in card.probes if row["metric"] == "auc"]
        for contrast, side in dict.fromkeys((r["contrast"], r["seen"]) for r in of_auc):
            some = [r for r in of_auc if (r["contrast"], r["seen"]) == (contrast, side)]
            panels.append(_told(some, f"{card.name}: {contrast}, {SIDES[str(side)]}"))
    return panels


def _told(some: Sequence[Row], title: str) -> Panel:
    ordered = sorted(some, key=lambda row: -float(row["value"]))
    rows = [_dot(row, str(row["features"])) for row in ordered]
    kinds = ["before" if row["role"] in RIVALS else "real" for row in ordered]
    told = ", ".join(f"{row.title} {row.value:.3f}" for row in rows)
    return Panel(title, told, partial(draw_conditions, rows, kinds, "area under the ROC curve"))


def _dot(row: Row, title: str, chance: bool = True) -> DotRow:
    keys = ("ci_low", "ci_high", "chance", "chance_low", "chance_high")
    values = [as_number(row.get(key)) for key in (keys if chance else keys[:2])]
    return DotRow(title, "real", float(row["value"]), *values)
