"""Telling groups apart by maps of 3-cycles (Dey, Rao, Shah 2012, doi:10.3389/fnsys.2012.00075).

The maps of all training subjects give a mask of the voxels where groups differ; what is inside is
reduced by principal components and classified by linear discriminants.

What differs: the mask holds the share of voxels with the largest F statistics; it is learned anew in
every fold, because a mask chosen with the test subjects in makes random labels predictable.
Covariances of the discriminants are shrunk (Ledoit and Wolf 2004), as there are few subjects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from afterimage.errors import InputError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def cycle_classifier(
    *, mask_percent: float = 10.0, n_components: int = 10, random_state: int = 0
) -> Pipeline:
    """Make the classifier: mask, principal components and discriminants, all fitted together.

    Parameters
    ----------
    mask_percent : float
        Share of the voxels that the mask keeps, in percent; 100 for no mask.
    n_components : int
        Principal components; the training set must have more subjects.
    random_state : int

    Returns
    -------
    sklearn.pipeline.Pipeline
        Takes maps, (n_subjects, n_voxels), and labels, (n_subjects,).
    """
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.feature_selection import SelectPercentile, VarianceThreshold, f_classif
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline(
        [
            ("varying", VarianceThreshold()),
            ("mask", SelectPercentile(f_classif, percentile=mask_percent)),
            ("scale", StandardScaler()),
            ("pca", PCA(n_components, random_state=random_state)),
            ("lda", LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
        ]
    )


def out_of_fold(
    maps: np.ndarray,
    labels: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    n_folds: int = 5,
    mask_percent: float = 10.0,
    n_components: int = 10,
    random_state: int = 0,
) -> np.ndarray:
    """Predict every subject by a classifier, and a mask, that the others were used for alone.

    Parameters
    ----------
    maps : array of shape (n_subjects, n_voxels)
        Finite numbers.
    labels : array of shape (n_subjects,)
    groups : array of shape (n_subjects,), optional
        Family or site: what shares a group is never on both sides.
    n_folds : int
    mask_percent, n_components, random_state
        As for `cycle_classifier`; fewer components where there are fewer training subjects.

    Returns
    -------
    array of shape (n_subjects,)
        Predicted labels.

    Raises
    ------
    InputError
        If a value is not finite, maps do not vary, or a class has fewer members than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    values = np.asarray(maps, dtype=np.float64)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.min() < n_folds:
        raise InputError(
            "too few subjects to tell groups apart",
            found=", ".join(f"{n} of {c}" for c, n in zip(classes, counts, strict=True)),
            expected=f"two groups of {n_folds} or more", fix="use fewer folds, or more subjects",
        )  # fmt: skip
    if not np.isfinite(values).all():
        raise InputError(
            "maps hold values that are no finite numbers",
            found=f"{int((~np.isfinite(values).all(axis=1)).sum())} subjects",
            expected="finite numbers", fix="leave these subjects out",
        )  # fmt: skip
    if not (np.ptp(values, axis=0) > 0).any():
        raise InputError(
            "maps are the same in all subjects", found=f"{len(values)} subjects",
            expected="values that differ", fix="see how the maps were made",
        )  # fmt: skip
    if groups is None:
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=random_state)
        splits = folds.split(values, labels)
    else:
        grouped = StratifiedGroupKFold(n_folds, shuffle=True, random_state=random_state)
        splits = grouped.split(values, labels, groups)
    predicted = np.empty_like(labels)
    for train, test in splits:
        n_varying = int((np.ptp(values[train], axis=0) > 0).sum())
        n_inside = max(1, int(n_varying * mask_percent / 100))
        model = cycle_classifier(
            mask_percent=mask_percent, random_state=random_state,
            n_components=min(n_components, n_inside, len(train) - 1),
        )  # fmt: skip
        predicted[test] = model.fit(values[train], labels[train]).predict(values[test])
    return predicted
