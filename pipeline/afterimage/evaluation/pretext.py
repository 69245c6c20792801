"""How well a masked model fills in what it could not see, beside predictors anyone can make.

Samples: R2 against the mean of a recording, beside the mean of visible regions, a copy of the
nearest visible segments, and the best linear predictor, a ridge regression (Hoerl & Kennard 1970,
doi:10.1080/00401706.1970.10488634) from the visible regions of the same segment or, where whole
segments are hidden, from the segments around. Edges: area under the curve, beside the window
before, the mean of both windows, the mean graph of the training part and of the recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from afterimage.evaluation.statistics import bootstrap_means

#: Ridge penalties tried, in units of the mean variance of a predictor; chosen on training data.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
#: Training rows of a ridge at most.
N_ROWS_MAX = 2000
#: Segments further away than this are taken for this far, so that there are few ridges.
FARTHEST = 2


class FilledLike(Protocol):
    """What was filled in for one recording; see `afterimage.pretraining.masked_model.Filled`."""

    tokens: NDArray[np.float32]
    predicted: NDArray[np.float32]
    hidden: NDArray[np.bool_]
    known: NDArray[np.bool_]


@dataclass(frozen=True)
class PretextScore:
    """Score of one predictor over recordings, with its 95 % interval over recordings."""

    predictor: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    n: int


def score_samples(
    filled: Sequence[FilledLike],
    training: Sequence[NDArray[np.float32]],
    *,
    groups: Sequence[str] | None = None,
    untrained: Sequence[FilledLike] | None = None,
    ceiling: Sequence[NDArray[np.float32]] | None = None,
    n_bootstraps: int = 1000,
    random_state: int = 0,
) -> list[PretextScore]:
    r"""Compare predictors of hidden samples.

    .. math:: R^2 = 1 - \sum (x - \hat x)^2 / \sum x^2

    over hidden samples; series are standardised, so 0 is the mean of a recording.

    Parameters
    ----------
    filled : sequence of FilledLike
        One a held-out recording.
    training : sequence of ndarray, (n_segments, n_regions, n_samples)
        Tokens of the training part, for the ridge.
    groups : sequence of str, optional
        Person of each recording; drawn together for the interval.
    untrained : sequence of FilledLike, optional
        What the same network said before it was trained.
    ceiling : sequence of ndarray, like ``tokens``, optional
        What an observer who knows how the data were made would say.
    n_bootstraps, random_state : int
        Of the interval.

    Returns
    -------
    list of PretextScore
        Of ``model``, ``mean``, ``visible mean``, ``copy``, ``ridge``, ``untrained``, ``ceiling``.
    """
    whole = all(_hidden_segments(one).any() and _only_whole(one) for one in filled)
    ridge = _SegmentRidge(training) if whole else _RegionRidge(training)
    predictors: dict[str, list[NDArray[np.float32]]] = {
        "model": [one.predicted for one in filled],
        "mean": [np.zeros_like(one.tokens) for one in filled],
        "visible mean": [visible_mean(one) for one in filled],
        "copy": [copy_nearest(one) for one in filled],
        "ridge": [ridge.predict(one) for one in filled],
    }
    if untrained is not None:
        predictors["untrained"] = [one.predicted for one in untrained]
    if ceiling is not None:
        predictors["ceiling"] = list(ceiling)
    scores = []
    for name, values in predictors.items():
        sums = np.array(
            [
                (
                    ((one.tokens - value)[one.hidden] ** 2).sum(dtype=np.float64),
                    (one.tokens[one.hidden] ** 2).sum(dtype=np.float64),
                )
                for one, value in zip(filled, values, strict=True)
            ]
        )
        scores.append(_ratio_score(name, sums, groups, n_bootstraps, random_state))
    return scores


def _ratio_score(
    name: str,
    sums: NDArray[np.float64],
    groups: Sequence[str] | None,
    n_bootstraps: int,
    random_state: int,
) -> PretextScore:
    sums = _by_group(sums, groups)
    value = 1 - sums[:, 0].sum() / max(float(sums[:, 1].sum()), 1e-12)
    low = high = float("nan")
    if len(sums) > 1:
        means = bootstrap_means(sums, n_bootstraps=n_bootstraps, random_state=random_state)
        drawn = 1 - means[:, 0] / np.maximum(means[:, 1], 1e-12)
        low, high = (float(q) for q in np.quantile(drawn, [0.025, 0.975]))
    return PretextScore(name, "r2", float(value), low, high, len(sums))


def _by_group(
    values: NDArray[np.float64], groups: Sequence[str] | None, *, mean: bool = False
) -> NDArray[np.float64]:
    """Sum, or average, the rows of a group."""
    if groups is None:
        return values
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, index, values)
    return sums / np.bincount(index)[:, None] if mean else sums


def _hidden_segments(filled: FilledLike) -> NDArray[np.bool_]:
    return np.atleast_1d(np.all(filled.hidden | ~filled.known, axis=1))


def _only_whole(filled: FilledLike) -> bool:
    """Return whether all that is hidden is hidden in whole segments."""
    return bool((filled.hidden.any(1) <= _hidden_segments(filled)).all())


def visible_mean(filled: FilledLike) -> NDArray[np.float32]:
    """Say of every region what the visible regions of its segment do on average."""
    visible = (filled.known & ~filled.hidden)[..., None]
    count = np.maximum(visible.sum(1, keepdims=True), 1)
    mean = (filled.tokens * visible).sum(1, keepdims=True) / count
    return np.broadcast_to(mean, filled.tokens.shape)


def copy_nearest(filled: FilledLike) -> NDArray[np.float32]:
    """Interpolate each region linearly in time between the visible samples around the gap."""
    n_segments, n_regions, n_samples = filled.tokens.shape
    series = filled.tokens.transpose(1, 0, 2).reshape(n_regions, -1)
    visible = (filled.known & ~filled.hidden).T.repeat(n_samples, axis=1)
    time = np.arange(n_segments * n_samples)
    result = np.zeros_like(series)
    for region in range(n_regions):
        if (here := visible[region]).any():
            result[region] = np.interp(time, time[here], series[region, here])
    return result.reshape(n_regions, n_segments, n_samples).transpose(1, 0, 2)


class _RegionRidge:
    """Ridge of hidden regions on the visible ones at the same time, for any set of visible ones.

    With S the covariance of the training part, x_h = S_hv (S_vv + lambda I)^-1 x_v. The penalty
    is the one that fills in best on training data, regions hidden by halves.
    """

    def __init__(self, training: Sequence[NDArray[np.float32]]) -> None:
        n_fit = max(1, round(0.8 * len(training)))
        flat = [tokens.transpose(0, 2, 1).reshape(-1, tokens.shape[1]) for tokens in training]
        inner, left = np.concatenate(flat[:n_fit]), np.concatenate(flat[n_fit:] or flat)
        covariance = np.cov(inner, rowvar=False)
        generator = np.random.default_rng(0)
        errors = np.zeros(len(PENALTIES))
        for _ in range(4):
            hidden = generator.permutation(inner.shape[1]) < inner.shape[1] // 2
            for place, penalty in enumerate(PENALTIES):
                guess = left[:, ~hidden] @ self._coef(covariance, hidden, penalty)
                errors[place] += ((left[:, hidden] - guess) ** 2).sum()
        self.penalty = PENALTIES[int(errors.argmin())]
        self.covariance = np.cov(np.concatenate(flat), rowvar=False)

    @staticmethod
    def _coef(
        covariance: NDArray[np.floating], hidden: NDArray[np.bool_], penalty: float
    ) -> NDArray[np.float64]:
        inside = covariance[np.ix_(~hidden, ~hidden)]
        ridge = penalty * max(float(np.trace(inside)) / len(inside), 1e-12) * np.eye(len(inside))
        wanted = covariance[np.ix_(~hidden, hidden)]
        return np.asarray(np.linalg.solve(inside + ridge, wanted), np.float64)

    def predict(self, filled: FilledLike) -> NDArray[np.float32]:
        result = np.zeros_like(filled.tokens)
        for segment, row in enumerate(filled.hidden | ~filled.known):
            if row.any() and not row.all():
                coef = self._coef(self.covariance, row, self.penalty)
                result[segment, row] = (filled.tokens[segment, ~row].T @ coef).T
        return result


class _SegmentRidge:
    """Ridge of a hidden segment on the nearest visible segments before and after it."""

    def __init__(self, training: Sequence[NDArray[np.float32]]) -> None:
        from sklearn.linear_model import RidgeCV

        self._models: dict[tuple[int, int], Any] = {}
        self._training, self._new = training, RidgeCV

    def predict(self, filled: FilledLike) -> NDArray[np.float32]:
        result = np.zeros_like(filled.tokens)
        visible = np.flatnonzero(~_hidden_segments(filled))
        for segment in np.flatnonzero(_hidden_segments(filled)):
            place = int(np.searchsorted(visible, segment))
            before = segment - visible[place - 1] if place else 0
            after = visible[place] - segment if place < len(visible) else 0
            if not before and not after:
                continue
            model = self._model(min(int(before), FARTHEST), min(int(after), FARTHEST))
            around = [filled.tokens[visible[place - 1]].ravel()] if before else []
            around += [filled.tokens[visible[place]].ravel()] if after else []
            guess = model.predict(np.concatenate(around)[None])[0]
            result[segment] = guess.reshape(result[segment].shape)
        return result

    def _model(self, before: int, after: int) -> Any:
        """Return the ridge of a segment on those so many segments away; 0: there is none."""
        if (before, after) not in self._models:
            rows, targets = [], []
            for tokens in self._training:
                flat = tokens.reshape(len(tokens), -1)
                middle = np.arange(before, len(flat) - after)
                parts = [flat[middle - before]] if before else []
                parts += [flat[middle + after]] if after else []
                rows.append(np.concatenate(parts, axis=1))
                targets.append(flat[middle])
            x, y = np.concatenate(rows), np.concatenate(targets)
            kept = np.random.default_rng(0).permutation(len(x))[:N_ROWS_MAX]
            alphas = [penalty * len(kept) * float(x[kept].var()) for penalty in PENALTIES]
            self._models[before, after] = self._new(alphas=alphas).fit(x[kept], y[kept])
        return self._models[before, after]


def score_edges(
    filled: Sequence[FilledLike],
    training: Sequence[NDArray[np.float32]],
    *,
    groups: Sequence[str] | None = None,
    untrained: Sequence[FilledLike] | None = None,
    n_bootstraps: int = 1000,
    random_state: int = 0,
) -> list[PretextScore]:
    """Compare predictors of the edges of a window by the area under the curve.

    Parameters
    ----------
    filled : sequence of FilledLike
        One a held-out recording: ``tokens`` (n_windows, 4, n_pairs) edges before, at and after a
        window and their mean elsewhere in the recording, ``predicted`` (n_windows, n_pairs) any
        score of the edges at.
    training : sequence of ndarray, (n_windows, n_pairs)
        Edges of the training part, for the mean graph.
    groups, untrained, n_bootstraps, random_state
        As in `score_samples`.

    Returns
    -------
    list of PretextScore
        Of ``model``, ``persistence`` (the window before), ``average`` (both windows), ``mean graph``
        of the training part, ``own mean graph`` of the recording, ``gain`` and ``untrained``. The gain
        is the model minus the best of these rivals: that the model knows something of the moment,
        which neither the people nor the recording tell on average.
    """
    mean_graph = np.concatenate(list(training)).mean(0)
    names = ["model", "persistence", "average", "mean graph", "own mean graph", "gain"]
    rows = []
    for one in filled:
        first, at, last, own = (one.tokens[:, i] for i in range(4))
        mean = np.broadcast_to(mean_graph, at.shape)
        guesses = (one.predicted, first, (first + last) / 2, mean, own)
        rows.append([_auc(at, guess).mean() for guess in guesses])
    table = np.array(rows)
    table = _by_group(table, groups, mean=True)
    best = int(table[:, 1:].mean(0).argmax()) + 1
    table = np.column_stack([table, table[:, 0] - table[:, best]])
    if untrained is not None:
        names.append("untrained")
        before = np.array([[_auc(one.tokens[:, 1], one.predicted).mean()] for one in untrained])
        table = np.column_stack([table, _by_group(before, groups, mean=True)])
    means = bootstrap_means(table, n_bootstraps=n_bootstraps, random_state=random_state)
    bounds = np.quantile(means, [0.025, 0.975], axis=0)
    if len(table) < 2:
        bounds = np.full_like(bounds, np.nan)
    return [
        PretextScore(
            name,
            "auc",
            float(table[:, i].mean()),
            float(bounds[0, i]),
            float(bounds[1, i]),
            len(table),
        )
        for i, name in enumerate(names)
    ]


def _auc(truth: NDArray[np.float32], score: NDArray[np.floating]) -> NDArray[np.float64]:
    """Area under the curve of each row."""
    from scipy.stats import rankdata

    positive = truth > 0.5
    n_positive = positive.sum(1)
    ranks = (rankdata(score, axis=1) * positive).sum(1)
    area = ranks - n_positive * (n_positive + 1) / 2
    return np.asarray(area / np.maximum(n_positive * (truth.shape[1] - n_positive), 1), np.float64)
