"""Scores from papers beside our own: only where everything that makes a number is the same.

The scores are those of ``data/published/*.tsv``, each with its citation there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterimage.errors import InputError
from afterimage.evaluation.metrics import check_one_protocol, family_of

#: Training trials of a person that a published amount of data stands for.
TRAINING_TRIALS = {"40h": (20_000, 30_000), "1h": (700, 750), "0h": (0, 0)}
BIGG = "OpenCLIP bigG tokens"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Match:
    """A published score and our own, or why there is none of ours to compare.

    Attributes
    ----------
    published : Row
        Of ``data/published``.
    own : tuple of Row
        Our rows of the same metric, one a label, their values averaged over the same people.
    why : str
        Empty where the two can be compared.
    """

    published: Row
    own: tuple[Row, ...]
    why: str


def match_published(
    published: Iterable[Row],
    rows: Sequence[Row],
    *,
    dataset: str,
    n_training_trials: Mapping[str, int],
    comparable: Mapping[tuple[str, str], bool],
) -> list[Match]:
    """Put published scores beside our own, or say why not.

    Parameters
    ----------
    published : iterable of Row
        Of ``data/published``.
    rows : sequence of Row
        Rows of ``metrics.tsv`` of one or more subjects.
    dataset : str
        Name of the dataset that was imported; empty where it is none of the named ones.
    n_training_trials : mapping of str to int
        By subject.
    comparable : mapping
        (protocol, metric) -> whether the network is that of the protocol.

    Returns
    -------
    list of Match
        In the order given.
    """
    return [_match(row, rows, dataset, n_training_trials, comparable) for row in published]


def reasons(matches: Iterable[Match]) -> list[tuple[str, int]]:
    """Count the scores that cannot be compared by reason, the most frequent first."""
    return Counter(match.why for match in matches if match.why).most_common()


def _match(
    published: Row,
    rows: Sequence[Row],
    dataset: str,
    trials: Mapping[str, int],
    comparable: Mapping[tuple[str, str], bool],
) -> Match:
    def no(why: str) -> Match:
        return Match(published, (), why)

    if published["dataset"] != dataset:
        return no(f"another dataset ({published['dataset']})")
    protocol, metric = str(published["protocol"]), str(published["metric"])
    if protocol in ("n/a", ""):
        return no("the paper's table does not say its protocol")
    people = str(published["subjects"]).split()
    if people in ([], ["n/a"]):
        return no("the paper's table does not say its subjects")
    have = {str(row.get("subject")) for row in rows}
    if not set(people) <= have:
        return no(f"of subjects {' '.join(people)}, here {' '.join(sorted(have))}")
    low, high = TRAINING_TRIALS.get(str(published["training"]), (0, -1))
    if any(not low <= trials.get(name, -1) <= high for name in people):
        found = ", ".join(str(trials.get(name, "unknown")) for name in people)
        return no(f"fitted on {published['training']}, here on {found} trials")
    own = [
        row for row in rows
        if family_of(row) == protocol and str(row.get("subject")) in people
        and row.get("role") in ("reconstruction", "prediction")
        and _same_metric(metric, row)
    ]  # fmt: skip
    if not any(family_of(row) == protocol for row in rows):
        return no(f"the protocol {protocol} was not asked for")
    if not own:
        what = BIGG if metric.startswith("retrieval") else "its network"
        return no(f"{metric} needs {what}, which is not here")
    if not comparable.get((protocol, metric), True):
        return no(f"the weights of the network of {metric} are others")
    if any(
        str(row.get("n")) not in (str(published["n_test"]), f"{published['n_test']}.0")
        for row in own
    ):
        return no(f"of {published['n_test']} test images, here of {own[0].get('n')}")
    if any("gallery=300" not in str(row["protocol"]) for row in own) and metric.startswith(
        "retrieval"
    ):
        return no("another gallery")
    try:
        return Match(published, tuple(_averaged(own, people)), "")
    except InputError:
        return no("its people were scored here in different ways")


def _same_metric(metric: str, row: Row) -> bool:
    """Whether a row is of a published metric; retrieval only from the tokens it was made from."""
    own = str(row.get("metric"))
    if not metric.startswith("retrieval"):
        return own == metric
    direction = metric.removeprefix("retrieval_top1_")
    parts = [part.strip() for part in str(row.get("protocol")).split(";")]
    return own.startswith("retrieval_top1") and direction in parts and BIGG in parts


def _averaged(rows: Sequence[Row], people: Sequence[str]) -> list[Row]:
    """Rows by label, their values averaged over people; labels that somebody lacks are left out."""
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(str(row["label"]), []).append(row)
    found: list[Row] = []
    for own in by_label.values():
        if {str(row["subject"]) for row in own} != set(people):
            continue
        check_one_protocol(own, "averaged beside a published score")
        found.append({**own[0], "value": float(np.mean([float(row["value"]) for row in own]))})
    return found
