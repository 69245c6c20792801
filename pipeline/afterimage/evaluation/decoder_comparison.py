"""Which decoder is better: paired over test images, or over people, corrected for all questions.

Paired bootstrap over images (Efron & Tibshirani 1993, doi:10.1201/9780429246593), sign flips over
people (Fisher 1935, The design of experiments, section 21), Holm (1979, jstor.org/stable/4615733).

What differs: every metric and every pair of decoders of one method is one question, and Holm corrects
for all of them together; numbers of two protocols are never subtracted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.evaluation.metrics import comparison_key, describe
from afterimage.evaluation.statistics import bootstrap_means, holm

#: Rows of these roles are compared.
ROLES = ("reconstruction", "prediction")
COLUMNS = (
    *(
        "subject",
        "modality",
        "method",
        "metric",
        "first",
        "second",
        "difference",
        "ci_low",
        "ci_high",
    ),
    *("p", "p_holm", "n_tests", "n", "winner", "protocol"),
)
NO_DIFFERENCE = "no difference shown"
NOT_COMPARABLE = "not comparable"
LEVEL = 0.05
#: With fewer people every pattern of signs is tried.
EXACT_PEOPLE = 12
N_FLIPS = 10_000

Row = Mapping[str, Any]


def is_question(metric: str) -> bool:
    """Whether decoders are compared by a metric: not by one that says what another one says."""
    return not (metric.startswith(("rank", "twoway_within_cluster")) or "retrieval_top5" in metric)


def compare_over_images(
    rows: Iterable[Row],
    per_image: Mapping[str, Mapping[str, NDArray[np.float64]]],
    *,
    n_bootstraps: int = 10_000,
    random_state: int = 0,
) -> list[dict[str, Any]]:
    """Compare the decoders of one subject, paired over test images.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of ``metrics.tsv``; those of reconstructions and of predictions are compared.
    per_image : mapping
        label -> metric -> ndarray of shape (n_images,), the same images for all labels.
    n_bootstraps, random_state : int
        All differences are resampled with the same images.

    Returns
    -------
    list of dict
        Keys are `COLUMNS`. ``difference`` is first - second; ``p`` is two-sided, twice the smaller
        share of resamples on either side of zero.
    """
    blocks: dict[tuple[str, int], dict[str, dict[str, tuple[Row, NDArray[np.float64]]]]] = {}
    for row in rows:
        if row.get("role") not in ROLES:
            continue
        metric = str(row["metric"])
        values = per_image.get(str(row["label"]), {}).get(metric)
        if values is None or not is_question(metric) or not np.isfinite(values).all():
            continue
        block = blocks.setdefault((str(row.get("method") or ""), len(values)), {})
        block.setdefault(metric, {})[str(row["decoder"])] = (row, values)
    found = []
    for (method, n), metrics in blocks.items():
        made, differences = _pairs(method, metrics)
        compared = [row for row in made if "winner" not in row]
        if compared and n > 1:
            means = bootstrap_means(
                np.column_stack(differences), n_bootstraps=n_bootstraps, random_state=random_state
            )
            low, high = np.quantile(means, [0.025, 0.975], axis=0)
            smaller = np.minimum((means <= 0).sum(axis=0), (means >= 0).sum(axis=0))
            p = np.minimum(1.0, 2 * (1 + smaller) / (1 + n_bootstraps))
        else:
            low = high = p = np.full(len(compared), np.nan)
        _finish(compared, differences, low, high, p)
        found += made
    return found


def compare_over_people(rows: Iterable[Row], *, random_state: int = 0) -> list[dict[str, Any]]:
    """Compare decoders over people, each of whom gives one difference.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of ``metrics.tsv`` of several subjects, perhaps with ``modality``.
    random_state : int

    Returns
    -------
    list of dict
        Keys are `COLUMNS`. The interval resamples people; ``p`` flips signs of differences, all
        patterns of them with up to 12 people, so that with n people it is at least 2^(1-n).
    """
    cells: dict[tuple[str, str, tuple[str, str]], dict[str, dict[str, float]]] = {}
    protocols: dict[tuple[str, str, tuple[str, str]], str] = {}
    for row in rows:
        metric = str(row.get("metric"))
        if row.get("role") not in ROLES or not is_question(metric):
            continue
        try:
            value = float(row["value"])
        except (TypeError, ValueError):
            continue
        kind = (str(row.get("modality") or ""), _method(row), comparison_key(row))
        protocols[kind] = kind[2][1]
        cells.setdefault(kind, {}).setdefault(str(row["decoder"]), {})[str(row["subject"])] = value
    blocks: dict[tuple[str, str], list[tuple[dict[str, Any], NDArray[np.float64]]]] = {}
    for (modality, method, (metric, text)), decoders in cells.items():
        for first, second in itertools.combinations(decoders, 2):
            people = [name for name in decoders[first] if name in decoders[second]]
            if len(people) < 2:
                continue
            values = np.array([decoders[first][s] - decoders[second][s] for s in people])
            row = _row("group", modality, method, metric, first, second, text, len(people))
            blocks.setdefault((modality, method), []).append((row, values))
    found = []
    for entries in blocks.values():
        made, differences = [row for row, _ in entries], [values for _, values in entries]
        intervals = [
            np.quantile(bootstrap_means(values, random_state=random_state), [0.025, 0.975])
            for values in differences
        ]
        low, high = np.array(intervals).T
        p = np.array([sign_flip_p(values, random_state=random_state) for values in differences])
        _finish(made, differences, low, high, p)
        found += made
    return found


def sign_flip_p(values: NDArray[np.floating], *, random_state: int = 0) -> float:
    """Two-sided p of a mean against zero, by flipping the signs of the values.

    Parameters
    ----------
    values : ndarray, shape (n,)
    random_state : int
        Used with more than 12 values.

    Returns
    -------
    float
        Share of the patterns of signs (the observed one among them) with a mean as far from zero.
    """
    data = np.asarray(values, np.float64)
    if len(data) <= EXACT_PEOPLE:
        signs = np.array(list(itertools.product((1, -1), repeat=len(data))))
    else:
        generator = np.random.default_rng(random_state)
        signs = generator.choice((1, -1), size=(N_FLIPS, len(data)))
        signs[0] = 1
    means = np.abs(signs @ data)
    return float(np.mean(means >= np.abs(data.sum()) * (1 - 1e-12)))


def _pairs(
    method: str, metrics: Mapping[str, Mapping[str, tuple[Row, NDArray[np.float64]]]]
) -> tuple[list[dict[str, Any]], list[NDArray[np.float64]]]:
    """Rows of all pairs, and the differences of those that can be compared."""
    made, differences = [], []
    for metric, decoders in metrics.items():
        for first, second in itertools.combinations(decoders, 2):
            (one, a), (two, b) = decoders[first], decoders[second]
            row = _row(
                str(one.get("subject") or ""), "", method, metric, first, second,
                str(one.get("protocol") or ""), len(a),
            )  # fmt: skip
            if comparison_key(one) != comparison_key(two):
                row |= {"winner": NOT_COMPARABLE, "n_tests": 0}
                row["protocol"] = f"{one.get('protocol')} | {two.get('protocol')}"
            else:
                differences.append(a - b)
            made.append(row)
    return made, differences


def _row(
    subject: str, modality: str, method: str, metric: str, first: str, second: str, protocol: str,
    n: int,
) -> dict[str, Any]:  # fmt: skip
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"subject": subject, "modality": modality, "method": method, "metric": metric}
    row |= {"first": first, "second": second, "protocol": protocol, "n": n}
    del row["winner"]  # until it is known
    return row


def _finish(
    rows: Sequence[dict[str, Any]],
    differences: Sequence[NDArray[np.float64]],
    low: NDArray[np.floating],
    high: NDArray[np.floating],
    p: NDArray[np.floating],
) -> None:
    """Fill in what the resampling gave, and name the winners."""
    corrected = holm(p)
    for number, (row, values) in enumerate(zip(rows, differences, strict=True)):
        value = float(values.mean())
        row |= {
            "difference": value, "ci_low": _plain(low[number]), "ci_high": _plain(high[number]),
            "p": _plain(p[number]), "p_holm": _plain(corrected[number]), "n_tests": len(rows),
        }  # fmt: skip
        shown = np.isfinite(corrected[number]) and corrected[number] < LEVEL
        better = value > 0 if describe(str(row["metric"])).higher_is_better else value < 0
        row["winner"] = (row["first"] if better else row["second"]) if shown else NO_DIFFERENCE


def _method(row: Row) -> str:
    method = str(row.get("method") or "")
    return "" if method == "n/a" else method


def _plain(value: float | np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None
