"""What the reports read of published protocols, scores of papers and decoders against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from afterimage.evaluation.metrics import PROTOCOL, family_of
from afterimage.evaluation.published import match_published
from afterimage.io.tables import Row, read_json, read_tsv
from afterimage.reports.model import Published
from afterimage.resources import resource_root


def own_and_other(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Part rows of ``metrics.tsv`` into those of our own protocol and those of published ones.

    A row that does not say its protocol, as in tables of other tools, counts as our own.
    """
    own: list[Row] = []
    other: list[Row] = []
    for row in rows:
        (own if family_of(row) in (PROTOCOL, "", "n/a") else other).append(row)
    return own, other


def read_comparison(path: Path) -> list[Row]:
    """Read a table of decoders against each other; empty where there is none."""
    return read_tsv(path, required=("method", "metric", "winner")) if path.is_file() else []


def imported_dataset(bids_dir: Path | None) -> str:
    """Return the name of the published dataset that was imported; empty where it is none."""
    path = bids_dir / "dataset_description.json" if bids_dir else None
    return str(read_json(path).get("ImportedDataset", "")) if path and path.is_file() else ""


def read_published(
    rows: Sequence[Row],
    audits: Sequence[Mapping[str, Any] | None],
    n_training_trials: Mapping[str, int],
    bids_dir: Path | None,
) -> Published:
    """Put rows of published protocols together with the scores of papers that they may meet.

    Parameters
    ----------
    rows : sequence of Row
        Of published protocols, of one or more subjects.
    audits : sequence of mapping
        The audit file of each subject: says which networks were used.
    n_training_trials : mapping of str to int
    bids_dir : Path or None
        The dataset.
    """
    networks: dict[str, Any] = {}
    for audit in audits:
        networks |= (audit or {}).get("protocols") or {}
    comparable = {
        (name, one["metric"]): bool(one["comparable"])
        for name, facts in networks.items()
        for one in facts["networks"]
    }
    dataset = imported_dataset(bids_dir)
    files = sorted((resource_root() / "data" / "published").glob("*.tsv"))
    published = [row for file in files for row in read_tsv(file)]
    matches = match_published(
        published,
        rows,
        dataset=dataset,
        n_training_trials=n_training_trials,
        comparable=comparable,
    )
    return Published(rows, networks, matches, dataset)
