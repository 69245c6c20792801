"""Telling groups apart by maps of 3-cycles (Dey, Rao, Shah 2012, doi:10.3389/fnsys.2012.00075).

The maps of all training subjects give a mask of the voxels where groups differ; what is inside is
reduced by principal components and classified by linear discriminants.

What differs: the mask holds the share of voxels with the largest F statistics; it is learned anew in
every fold, because a mask chosen with the test subjects in makes random labels predictable.
Covariances of the discriminants are shrunk (Ledoit and Wolf 2004), as there are few subjects.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        Takes maps whose voxels all vary, (n_subjects, n_voxels), and labels, (n_subjects,).
    """
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.feature_selection import SelectPercentile, f_classif
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline(
        [
            ("mask", SelectPercentile(f_classif, percentile=mask_percent)),
            ("scale", StandardScaler()),
            ("pca", PCA(n_components, random_state=random_state)),
            ("lda", LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
        ]
    )


def out_of_fold(
    maps: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    n_classes: int | None = None,
    mask_percent: float = 10.0,
    n_components: int = 10,
    random_state: int = 0,
) -> np.ndarray:
    """Predict subjects by a classifier, and a mask, that the others were used for alone.

    Parameters
    ----------
    maps : array of shape (n_subjects, n_voxels)
        Finite numbers.
    labels : array of int, shape (n_subjects, n_labels)
        Classes from 0 on; one column the labels as they are, or permuted.
    folds : sequence of (train, test)
        Rows, by index or as masks; what shares a family or site is on one side.
    n_classes : int, optional
    mask_percent, n_components, random_state
        As for `cycle_classifier`; fewer components where there are fewer training subjects.

    Returns
    -------
    array of shape (n_subjects, n_labels, n_classes), float64
        Probability of each class over its share of the training subjects, so that the largest one
        is right for rare classes too; NaN for subjects in no test fold.

    Raises
    ------
    InputError
        If a value is not finite, maps do not vary, or there is one class.
    """
    from sklearn import config_context

    values = np.asarray(maps, dtype=np.float64)
    n_classes = n_classes or int(labels.max()) + 1
    if len(np.unique(labels)) < 2:
        raise InputError(
            "there are no groups to tell apart", found="one class", expected="two or more",
            fix="see the labels",
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
    outputs = np.full((*labels.shape, n_classes), np.nan)
    for train, test in folds:
        fitted, held = values[train], values[test]
        varying = np.ptp(fitted, axis=0) > 0
        fitted, held = fitted[:, varying], held[:, varying]
        model = cycle_classifier(
            mask_percent=mask_percent, random_state=random_state,
            n_components=min(
                n_components, len(fitted) - 1, max(1, int(fitted.shape[1] * mask_percent / 100))
            ),
        )  # fmt: skip
        for column in range(labels.shape[1]):
            known = labels[train, column]
            share = np.bincount(known, minlength=n_classes) / len(known)
            part = np.zeros((len(held), n_classes))
            if (share > 0).sum() > 1 and fitted.shape[1]:
                # Values are checked above; checks anew in every fit take most of the time.
                with config_context(assume_finite=True, skip_parameter_validation=True):
                    model.fit(fitted, known)
                    part[:, model.classes_] = model.predict_proba(held)
            else:
                part[:, known[0]] = 1.0
            outputs[test, column] = part / np.where(share > 0, share, 1.0)
    return outputs
