"""The page of one session of live decoding: times, trials, and how often the picture was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from afterimage.reports.figures.style import Theme, label_axes, new_axes, to_svg
from afterimage.reports.gallery import pick_rows, thumbnail
from afterimage.reports.layout import render_live, titled_figures
from afterimage.reports.page import Cell, Column, GalleryRow, GalleryView, Panel, Table

#: What has to be reached: 95th percentiles from the end of a trial, in ms.
LIMITS_MS = {"embedding_ms": 20.0, "image_ms": 1000.0}
#: Painted trials whose pictures are shown.
N_PICTURES = 12
TITLES = {
    "embedding_ms": "To the embedding and the nearest pictures",
    "image_ms": "To the picture",
}


def draw_latency(values_ms: Sequence[float], limit_ms: float, theme: Theme) -> bytes:
    """Draw how often each latency occurred; the upright line is the limit."""
    figure, axes = new_axes(1.9, theme)
    largest = max(*values_ms, limit_ms)
    axes.hist(values_ms, bins=np.linspace(0, largest, 41).tolist(), color=theme.accent)
    axes.axvline(float(np.percentile(values_ms, 95)), color=theme.ink, linewidth=1)
    axes.axvline(limit_ms, color=theme.second, linewidth=1, linestyle="--")
    label_axes(axes, theme, "ms from the last sample of the trial", "trials")
    return to_svg(figure)


def live_page(
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    seen: Mapping[str, np.ndarray],
    painted: Mapping[str, np.ndarray],
) -> str:
    """Lay out the page.

    Parameters
    ----------
    summary : dict
        As `afterimage.stages.live_session.summary_of` makes it.
    rows : sequence of dict
        Of the table of trials.
    seen : dict of str to array of shape (height, width, 3), uint8
        Pictures of the stimuli that are known, by their id.
    painted : dict of str to array of shape (height, width, 3), uint8
        What was painted, by the file that the table names.
    """
    panels = []
    for key, limit in LIMITS_MS.items():
        values = [
            float(row[key]) for row in rows if row["live"] == "yes" and row[key] not in ("", "n/a")
        ]
        if values:
            alt = f"{len(values)} trials, 95th percentile {np.percentile(values, 95):.1f} ms"
            panels.append(Panel(TITLES[key], alt, partial(draw_latency, values, limit)))
    caption = (
        "Time from the arrival of the last sample of a trial. Solid line, 95th percentile; dashed "
        f"line, limit ({LIMITS_MS['embedding_ms']:g} ms and {LIMITS_MS['image_ms']:g} ms). Trials of the "
        "calibration, and those that had piled up before they were read, are not counted."
    )
    return render_live(
        title=f"{summary['subject']}, live",
        summary=summary,
        figures=titled_figures("latency", caption, panels),
        facts=_facts(summary),
        pictures=_pictures(rows, seen, painted),
        trials=_trials(rows),
    )


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is told above the figures: (what, answer)."""
    facts = [("Ended", str(summary["ended"])), ("Decoder", str(summary["decoder"]))]
    facts.append(("Stream", str(summary["stream"])))
    facts.append(("Trials", f"{summary['n_trials']}, {summary['n_live']} of them live"))
    for key, title in TITLES.items():
        found = summary[key]
        if found["n"]:
            kept = "within" if found["p95"] <= LIMITS_MS[key] else "above"
            facts.append(
                (title, f"95th percentile {found['p95']:.1f} ms, {kept} the {LIMITS_MS[key]:g} ms that "
                 f"are the limit; median {found['median']:.1f}, slowest {found['max']:.1f}, "
                 f"n = {found['n']}")
            )  # fmt: skip
    retrieval = summary["retrieval"]
    for name, words in (("top1", "Found first"), ("top5", "Found among five")):
        share = retrieval[name]
        if share["value"] is not None:
            facts.append(
                (words, f"{share['value']:.1%} of {retrieval['n']} trials "
                 f"(95 % interval {share['ci_low']:.1%} to {share['ci_high']:.1%}; chance "
                 f"{share['chance']:.1%} among {retrieval['n_pictures']} pictures)")
            )  # fmt: skip
    bad = summary["bad_channels"]
    said = ", ".join(f"{name} ({why})" for name, why in bad.items()) or "none"
    facts.append(("Bad channels", said))
    facts += [("Note", str(note)) for note in summary["notes"]]
    if summary["error"]:
        facts.append(("Error", str(summary["error"])))
    return facts


def _pictures(
    rows: Sequence[Mapping[str, Any]],
    seen: Mapping[str, np.ndarray],
    painted: Mapping[str, np.ndarray],
) -> GalleryView | None:
    """Lay out what was painted beside what was shown, where that is known."""
    there = [
        row for row in rows if row["image"] in painted and (not seen or row["stimulus_id"] in seen)
    ]
    if not there:
        return None
    shown = []
    for place, _ in pick_rows(len(there), None, n_random=N_PICTURES):
        row = there[place]
        name = str(row["stimulus_id"])
        images = [thumbnail(painted[row["image"]], f"painted in trial {row['trial']}")]
        if seen:
            images.insert(0, thumbnail(seen[name], f"stimulus {name}"))
        known = "of the training" if seen else ""
        rank = known if row["rank"] == "n/a" else f"rank {row['rank']}"
        shown.append(GalleryRow(name, f"trial {row['trial']}", rank, tuple(images)))
    note = (
        f"{len(shown)} of {len(there)} painted trials, drawn at random (seed 0). "
        "No row was picked by eye. The decoder has learned from pictures of the training; only the "
        "others have a rank. All pictures lie beside this page."
    )
    columns = ("Seen", "Painted") if seen else ("Painted",)
    pixelated = all(max(one.width, one.height) <= 64 for row in shown for one in row.images)
    return GalleryView(columns, tuple(shown), len(there), note, pixelated)


def _trials(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = (
        Column("trial", "number in the session", numeric=True),
        Column("onset", "s from the start of the stream", numeric=True),
        Column("shown", "as the stream says"),
        Column("nearest pictures", "of the test pictures, best first"),
        Column("rank", "of the picture that was shown", numeric=True),
        Column("embedding", "ms", numeric=True),
        Column("picture", "ms", numeric=True),
    )
    cells = []
    for row in rows:
        best = [str(row[f"top{k}"]) for k in range(1, 6) if row[f"top{k}"] != "n/a"]
        live = row["live"] == "yes"
        cells.append(
            (
                _number(row["trial"]),
                _number(f"{float(row['onset_s']):.3f}"),
                Cell(str(row["stimulus_id"])),
                Cell(", ".join(best)),
                _number(row["rank"]),
                _number(row["embedding_ms"] if live else "not waited for"),
                _number(row["image_ms"], "" if row["image"] == "n/a" else str(row["image"])),
            )
        )
    return Table("Every trial of the session", columns, tuple(cells), sortable=True)


def _number(value: Any, href: str = "") -> Cell:
    """Return a cell of a number, or of what stands in its place."""
    text = str(value)
    if not text[:1].isdecimal():
        return Cell("–" if text == "n/a" else text, kind="number", href=href)
    return Cell(text, float(text), "number", href)
