"""Plots of the decoders: fit per target, penalties chosen, blocks told apart on test trials."""

from __future__ import annotations

from functools import partial

import numpy as np

from afterimage.reports.figures.dots import DotRow, draw_dots, rows_of
from afterimage.reports.figures.responses import draw_histogram, histogram_range
from afterimage.reports.figures.style import Theme, label_axes, new_axes, to_svg
from afterimage.reports.labels import main_metrics, metric
from afterimage.reports.model import SubjectReport
from afterimage.reports.page import Panel

N_FREE_BINS = 20


def draw_penalties(alpha: np.ndarray, grid: np.ndarray | None, theme: Theme) -> bytes:
    """Draw how often each penalty was chosen, on a log axis; the edges of the grid stand out.

    Parameters
    ----------
    alpha : array of shape (n_targets,)
        Chosen penalties, > 0.
    grid : array of shape (n_alphas,) or None
        Penalties tried.
    """
    log_alpha = np.log10(alpha)
    figure, axes = new_axes(2.5, theme)
    if grid is None or len(grid) < 2:
        axes.hist(log_alpha, bins=N_FREE_BINS, color=theme.soft, linewidth=0)
    else:
        ticks = np.sort(np.log10(grid))
        nearest = np.abs(log_alpha[:, None] - ticks).argmin(axis=1)
        counts = np.bincount(nearest, minlength=len(ticks))
        colours = [theme.soft] * len(ticks)
        colours[0] = colours[-1] = theme.second
        axes.bar(ticks, counts, width=0.75 * float(np.diff(ticks).min()), color=colours)
    axes.xaxis.set_major_formatter(lambda value, _: f"$10^{{{value:.3g}}}$")
    label_axes(axes, theme, "penalty α chosen", "targets")
    return to_svg(figure)


def fit_panels(report: SubjectReport) -> list[Panel]:
    """One histogram of cross-validated r per decoder and block, all on one range."""
    known = [
        (fit, np.asarray(fit.r, dtype=float).ravel())
        for fit in report.fits
        if fit.r is not None and np.isfinite(fit.r).any()
    ]
    if not known:
        return []
    limits = histogram_range(np.concatenate([values for _, values in known]))
    return [
        Panel(
            f"{fit.block} · {fit.decoder}",
            f"Cross-validated r of {values.size} targets of block {fit.block}, "
            f"decoder {fit.decoder}: median {np.nanmedian(values):.2f}",
            partial(draw_histogram, values, "cross-validated r of each target", limits),
        )
        for fit, values in known
    ]


def penalty_panels(report: SubjectReport) -> list[Panel]:
    """One histogram of chosen penalties per decoder and block."""
    panels = []
    for fit in report.fits:
        if fit.alpha is None:
            continue
        alpha = np.asarray(fit.alpha, dtype=float).ravel()
        alpha = alpha[np.isfinite(alpha) & (alpha > 0)]
        if not alpha.size:
            continue
        panels.append(
            Panel(
                f"{fit.block} · {fit.decoder}",
                f"Penalties chosen for {alpha.size} targets of block {fit.block}: "
                f"{alpha.min():.2g} to {alpha.max():.2g}",
                partial(draw_penalties, alpha, fit.alpha_grid),
            )
        )
    return panels


def block_panels(report: SubjectReport) -> list[Panel]:
    """Test-set two-way identification of the predicted features, one row a block and decoder."""
    predictions = [row for row in report.metrics if row.get("role") == "prediction"]
    names = main_metrics(str(row["metric"]) for row in predictions)
    names = [name for name in names if name.startswith("twoway")]
    rows: list[DotRow] = []
    for name in names:
        title = metric(name).title.partition(", ")[2] or "own similarity"
        several = len({str(row.get("label")) for row in predictions}) > 1
        for dot in rows_of(predictions, name, kinds={"prediction": "real"}):
            rows.append(dot.renamed(f"{title} ({dot.title})" if several else title))
    if not rows:
        return []
    described = "; ".join(f"{row.title} {100 * row.value:.1f} %" for row in rows)
    return [
        Panel(
            "Two-way identification from predicted features",
            f"Two-way identification on test stimuli: {described}",
            partial(draw_dots, rows, metric("twoway")),
        )
    ]
