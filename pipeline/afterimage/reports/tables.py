"""Tables of the reports: scores, audit rows, stages, settings, subjects."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from afterimage.reports.labels import (
    CAPTION_ROLES,
    as_number,
    decoders_of,
    duration,
    find,
    label_title,
    main_metrics,
    metric,
    metric_order,
    modality_title,
    p_text,
    pipeline_rank,
)
from afterimage.reports.model import GroupReport, Row, SubjectReport
from afterimage.reports.page import Cell, Column, Table
from afterimage.reports.provenance import ConfigChange, StageRun
from afterimage.reports.scans import ScanQuality

GLANCE_METRICS = ("pixcorr", "mse", "ssim", "twoway_clip", "twoway_pixels", "retrieval_top1_clip")
MAX_GROUP_ROWS = 4000
MAX_ROWS_WITH_INTERVAL = 200
_SCORE_COLUMNS = (
    Column("Row"),
    Column("Metric"),
    Column("Value", "mean over test images", numeric=True),
    Column("95 % interval", "bootstrap over test images", numeric=True),
    Column("Chance", "permuted pairs of images and reconstructions", numeric=True),
    Column("Chance interval", "95 % of the permutations", numeric=True),
    Column("Ceiling", "the same generator fed the true features", numeric=True),
    Column("p", "permutation test, one-sided", numeric=True),
    Column("n", "test images", numeric=True),
    Column("Note", "the protocol, numbered below the table", numeric=True),
)


def number_cell(text: str, value: object, kind: str = "") -> Cell:
    """Make a cell that sorts by its number."""
    return Cell(text, sort=as_number(value), kind=f"number {kind}".strip())


def score_table(rows: Sequence[Row], roles: Sequence[str], caption: str) -> Table:
    """Tabulate the rows of some roles with everything known about each score; notes: protocols."""
    decoders = decoders_of(rows)
    order = {name: i for i, name in enumerate(metric_order(str(r.get("metric")) for r in rows))}
    chosen = [row for row in rows if row.get("role") in roles]
    chosen.sort(key=lambda r: (order[str(r.get("metric"))], roles.index(str(r["role"]))))
    protocols = list(dict.fromkeys(str(row.get("protocol") or "not stated") for row in chosen))
    body = []
    for row in chosen:
        m = metric(str(row.get("metric")))
        role = str(row["role"])
        arrow = "lower is better" if m.lower_is_better else ""
        cells = [
            Cell(label_title(str(row.get("label", "")), decoders), note=_role_note(role)),
            Cell(m.title, sort=order[m.name], kind="name", note=arrow),
            number_cell(m.write(row.get("value")), row.get("value"), "strong"),
            number_cell(m.interval(row.get("ci_low"), row.get("ci_high")), row.get("ci_low")),
            number_cell(m.write(row.get("chance")), row.get("chance")),
            number_cell(
                m.interval(row.get("chance_low"), row.get("chance_high")), row.get("chance_low")
            ),
            number_cell(m.write(row.get("ceiling")), row.get("ceiling")),
            number_cell(p_text(row.get("p")), row.get("p")),
            number_cell(_count(row.get("n")), row.get("n")),
        ]
        told = protocols.index(str(row.get("protocol") or "not stated")) + 1
        cells.append(number_cell(str(told), told))
        body.append(tuple(cells))
    return Table(caption, _SCORE_COLUMNS, tuple(body), sortable=True, notes=tuple(protocols))


def _role_note(role: str) -> str:
    return {"prediction": "predicted features", "ceiling": "true features"}.get(role, "")


def _count(value: object) -> str:
    number = as_number(value)
    return "–" if number is None else f"{number:.0f}"


def glance_table(report: SubjectReport) -> Table | None:
    """Tabulate reconstruction methods by metric: the small table under the verdict."""
    rows = [row for row in report.metrics if row.get("role") == "reconstruction"]
    if not rows:
        return None
    labels = list(dict.fromkeys(str(row["label"]) for row in rows))
    names = main_metrics(str(row["metric"]) for row in rows)
    first = [name for name in GLANCE_METRICS if name in names]
    names = (first if len(first) >= 3 else names)[:6]
    columns = [Column("Method")]
    for name in names:
        m = metric(name)
        columns.append(Column(f"{m.title}\u00a0{'↓' if m.lower_is_better else '↑'}", numeric=True))
    body = []
    for label in labels:
        cells = [Cell(label_title(label, decoders_of(rows)))]
        for name in names:
            row = find(rows, label, name)
            m = metric(name)
            interval = m.interval(row.get("ci_low"), row.get("ci_high")) if row else ""
            note = "" if interval == "–" else interval
            text = m.write(row.get("value")) if row else "–"
            cells.append(
                Cell(text, as_number(row.get("value")) if row else None, "number", note=note)
            )
        body.append(tuple(cells))
    return Table("Methods at a glance (95 % interval below)", tuple(columns), tuple(body))


def fit_table(report: SubjectReport) -> Table | None:
    """Tabulate the fit of each block, and how many penalties fell on the edge of the grid."""
    import numpy as np

    body = []
    for fit in report.fits:
        r = None if fit.r is None else np.asarray(fit.r, dtype=float).ravel()
        finite = r[np.isfinite(r)] if r is not None else np.empty(0)
        cells = [Cell(fit.block), Cell(fit.decoder)]
        alpha = None if fit.alpha is None else np.asarray(fit.alpha, dtype=float).ravel()
        size = len(r) if r is not None else len(alpha) if alpha is not None else 0
        cells.append(number_cell(f"{size}", size))
        if finite.size:
            median, above = float(np.median(finite)), float(np.mean(finite > 0))
            cells += [
                number_cell(f"{median:.3f}".replace("-", "−"), median, "strong"),
                number_cell(f"{100 * above:.0f} %", above),
            ]
        else:
            cells += [Cell("–", kind="number"), Cell("–", kind="number")]
        cells.append(Cell("–", kind="number"))
        if alpha is not None and alpha.size:
            text = f"{float(np.median(alpha)):.4g}"
            if fit.alpha_grid is not None and len(fit.alpha_grid) > 1:
                grid = np.asarray(fit.alpha_grid, dtype=float)
                edge = np.isclose(alpha, grid.min()) | np.isclose(alpha, grid.max())
                text += f" ({100 * float(edge.mean()):.0f} % at an end)"
            cells[-1] = number_cell(text, float(np.median(alpha)))
        body.append(tuple(cells))
    if not body:
        return None
    columns = (
        Column("Block"),
        Column("Decoder"),
        Column("Targets", numeric=True),
        Column("Median r", "cross-validated, training data only", numeric=True),
        Column("Targets with r > 0", numeric=True),
        Column("Median penalty", numeric=True),
    )
    return Table("Fit inside the training data", columns, tuple(body), sortable=True)


def stage_table(stages: Sequence[StageRun]) -> Table:
    """Tabulate the stages: version, state, time, memory, hashes, log."""
    columns = (
        Column("Stage"),
        Column("Version", numeric=True),
        Column("State"),
        Column("Time", numeric=True),
        Column("Peak memory", numeric=True),
        Column("Config"),
        Column("Inputs"),
        Column("Log"),
    )
    body = []
    for run in stages:
        memory = "–" if run.peak_memory_mb is None else f"{run.peak_memory_mb:.0f} MB"
        state = "stale" if run.stale else run.status
        body.append(
            (
                Cell(run.name),
                number_cell(str(run.version) or "–", run.version),
                Cell(state, kind=f"state {state}", note=run.stale),
                number_cell(duration(run.runtime_s), run.runtime_s),
                number_cell(memory, run.peak_memory_mb),
                Cell(run.config_hash[:12] or "–", kind="code"),
                Cell(run.inputs_hash[:12] or "–", kind="code"),
                Cell("log" if run.log_path else "–", href=run.log_path),
            )
        )
    return Table("Stages in the order they run", columns, tuple(body), sortable=True)


def change_table(changes: Sequence[ConfigChange]) -> Table:
    """Tabulate settings that differ from their defaults."""
    columns = (Column("Setting"), Column("Default"), Column("Used here"))
    body = tuple(
        (Cell(c.key, kind="code"), Cell(c.default, kind="code"), Cell(c.used, kind="code strong"))
        for c in changes
    )
    return Table("Settings that differ from the defaults", columns, body)


def subject_table(report: GroupReport) -> Table:
    """Tabulate subjects: what each has, its state, and a link to its report.

    A count that nobody has, as of trials at rest, has no column; nor a modality that all share.
    """
    kinds = [modality_title(s.modality) for s in report.subjects]
    several = len(set(filter(None, kinds))) > 1
    counts = {
        "Units": [s.n_units for s in report.subjects],
        "Training trials": [s.n_train_trials for s in report.subjects],
        "Test stimuli": [s.n_test_stimuli for s in report.subjects],
    }
    counts = {name: own for name, own in counts.items() if any(n is not None for n in own)}
    columns = (
        Column("Subject"),
        *([Column("Modality")] if several else []),
        Column("State"),
        *(Column(name, numeric=True) for name in counts),
        Column("Time", numeric=True),
    )
    body = tuple(
        (
            Cell(f"sub-{s.subject}", href=s.href),
            *([Cell(kinds[row] or "–")] if several else []),
            Cell(s.status, kind=f"state {s.status}"),
            *(number_cell(_count(own[row]), own[row]) for own in counts.values()),
            number_cell(duration(s.runtime_s), s.runtime_s),
        )
        for row, s in enumerate(report.subjects)
    )
    return Table("Subjects", columns, body, sortable=True)


def group_score_table(report: GroupReport) -> tuple[Table, int]:
    """Tabulate subjects and labels by metric.

    Returns
    -------
    table : Table
        One row a subject and label, one column a metric. Where there are more rows than
        `MAX_ROWS_WITH_INTERVAL`, a few metrics without intervals; where there are more than
        `MAX_GROUP_ROWS`, reconstructions only, by so many methods that everybody has a place.
    n_left_out : int
        Rows not shown.
    """
    decoders = decoders_of(report.metrics)
    left_out = ("prediction", *CAPTION_ROLES)
    shown = [row for row in report.metrics if row.get("role") not in left_out]
    names = metric_order(str(row.get("metric")) for row in shown)
    cells: dict[tuple[str, str], dict[str, Row]] = {}
    for row in shown:
        key = (str(row.get("subject", "")).removeprefix("sub-"), str(row.get("label", "")))
        cells.setdefault(key, {})[str(row.get("metric"))] = row
    n_all = len(cells)
    if n_all > MAX_GROUP_ROWS:
        made = {str(row.get("label")) for row in shown if row.get("role") == "reconstruction"}
        n_subjects = len({subject for subject, _ in cells})
        kept = _last_methods(shown, made)[: max(1, MAX_GROUP_ROWS // n_subjects)]
        cells = {key: found for key, found in cells.items() if key[1] in kept}
    with_interval = len(cells) <= MAX_ROWS_WITH_INTERVAL
    if not with_interval:
        names = [name for name in GLANCE_METRICS if name in names] or names[: len(GLANCE_METRICS)]
    columns = [Column("Subject"), Column("Row"), Column("Role")]
    for name in names:
        m = metric(name)
        columns.append(Column(f"{m.title}\u00a0{'↓' if m.lower_is_better else '↑'}", numeric=True))
    links = {subject.subject: subject.href for subject in report.subjects}
    body = []
    for (subject, label), found in list(cells.items())[:MAX_GROUP_ROWS]:
        role = str(next(iter(found.values())).get("role") or "")
        line = [
            Cell(f"sub-{subject}", href=links.get(subject, "")),
            Cell(label_title(label, decoders), kind="name"),
            Cell(role),
        ]
        for name in names:
            m, one = metric(name), found.get(name)
            interval = m.interval(one.get("ci_low"), one.get("ci_high")) if one else "–"
            note = interval if with_interval and interval != "–" else ""
            value = one.get("value") if one else None
            line.append(Cell(m.write(value), as_number(value), "number", note=note))
        body.append(tuple(line))
    caption = "Scores by subject and row" + (" (95 % interval below)" if with_interval else "")
    return Table(caption, tuple(columns), tuple(body), True), n_all - len(body)


def _last_methods(rows: Sequence[Row], labels: Collection[str]) -> list[str]:
    """Return labels, those of the last methods of the pipeline first."""
    rank = {
        str(row.get("label")): pipeline_rank(row) for row in rows if row.get("label") in labels
    }
    return sorted(rank, key=lambda label: rank[label], reverse=True)


def run_table(scans: ScanQuality) -> Table:
    """Tabulate the runs: length, motion, censored volumes, signal-to-noise, what was noted."""
    import numpy as np

    columns = (
        Column("Run"),
        Column("No.", "place in the order of scanning", numeric=True),
        Column("Volumes", numeric=True),
        Column("TR", "repetition time", numeric=True),
        Column("Mean FD", "mean framewise displacement", numeric=True),
        Column("Largest FD", numeric=True),
        Column("Censored", "volumes that take no part in any fit", numeric=True),
        Column("Median tSNR", "over the brain mask", numeric=True),
    )
    body = []
    for number, run in enumerate(scans.runs, start=1):
        known = run.framewise_displacement[np.isfinite(run.framewise_displacement)]
        largest = float(known.max()) if known.size else float("nan")
        share = run.censored_share
        body.append(
            (
                Cell(run.name),
                number_cell(str(number), number),
                number_cell(str(run.n_volumes), run.n_volumes),
                number_cell(f"{run.t_r_s:.3g} s", run.t_r_s),
                number_cell(_measured(run.mean_fd_mm, "{:.3f} mm"), run.mean_fd_mm, "strong"),
                number_cell(_measured(largest, "{:.2f} mm"), largest),
                number_cell(f"{run.n_censored} ({100 * share:.0f} %)", run.n_censored),
                number_cell(_measured(run.median_tsnr, "{:.1f}"), run.median_tsnr),
            )
        )
    return Table("Runs in the order of scanning", columns, tuple(body), sortable=True)


def _measured(value: float, form: str) -> str:
    return "–" if value != value else form.format(value)
