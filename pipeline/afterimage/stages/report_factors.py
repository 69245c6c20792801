"""Read what factors over time and people were found, for the report of the group."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from afterimage.io.arrays import open_dataset
from afterimage.io.tables import Row, read_tsv
from afterimage.reports.factors import Factored, GraphBlocks


def read_factors(root: Path) -> list[Factored]:
    """Read the factors of every set of regions; none where they were not asked for."""
    found = []
    for path in sorted((root / "group").glob("seg-*_factors.nc")):
        rows = read_tsv(path.with_suffix(".tsv"))
        with open_dataset(path) as dataset:
            rate_hz = float(dataset.attrs["sampling_rate_hz"])
            window = int(dataset.attrs["window_samples"])
            found.append(
                Factored(
                    seg=str(dataset.attrs["seg"]),
                    units=dataset["unit_factor"].values,
                    times=dataset["time_factor"].values,
                    people=dataset["person_factor"].values,
                    names=tuple(dataset["person"].values.astype(str).tolist()),
                    communities=np.array(
                        [int(r["community"]) for r in rows if r["graph"] == "all"]
                    ),
                    weights=dataset["weight"].values,
                    effective_people=dataset["effective_people"].values,
                    leave_one_out=dataset["leave_one_out"].values,
                    ranks=tuple(dataset["rank"].values.tolist()),
                    held_out_error=dataset["held_out_error"].values,
                    relative_error=float(dataset.attrs["relative_error"]),
                    match_score=float(dataset.attrs["match_score"]),
                    window_s=window / rate_hz if rate_hz > 0 else float(window),
                    time_unit="s" if rate_hz > 0 else "samples",
                    blocks=_blocks(rows),
                    notes=str(dataset.attrs["notes"]),
                )
            )
    return found


def _blocks(rows: list[Row]) -> list[GraphBlocks]:
    """Return the blocks of every graph, from one row a graph and region."""
    by_graph: dict[str, list[Row]] = {}
    for row in rows:
        by_graph.setdefault(row["graph"], []).append(row)
    found = []
    for name, own in by_graph.items():
        sizes = np.bincount([int(row["block"]) for row in own])[1:]
        p = own[0]["p"]
        found.append(
            GraphBlocks(
                name, int(own[0]["n_blocks"]), tuple(sizes.tolist()), own[0]["method"],
                float(own[0]["quality"]), float("nan") if p == "n/a" else float(p),
            )
        )  # fmt: skip
    return found
