"""LSA, LSS and unpenalised ridge against nilearn's models of the same design."""

from __future__ import annotations

from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import FirstLevelModel, run_glm

from afterimage.preprocess.fmri.design import RunDesign, trial_regressors
from afterimage.preprocess.fmri.hrf import HrfName, hrf_set
from afterimage.preprocess.fmri.registry import ESTIMATORS

N_VOLUMES, N_TRIALS, SHAPE = 200, 40, (4, 3, 2)


@pytest.fixture(scope="module")
def design() -> RunDesign:
    rng = np.random.default_rng(0)
    phases = np.pi * (np.arange(N_VOLUMES) + 0.5)[:, None] * np.arange(5) / N_VOLUMES
    return RunDesign(
        volume_times_s=np.arange(N_VOLUMES) * 1.7 + 0.85,
        onsets_s=np.sort(rng.uniform(3, 310, N_TRIALS)),
        durations_s=rng.choice([0.0, 1.0, 3.0], N_TRIALS),
        stimulus=np.array([f"image{trial}" for trial in range(N_TRIALS)]),
        training=np.ones(N_TRIALS, bool),
        nuisance=np.concatenate([np.cos(phases), rng.normal(size=(N_VOLUMES, 6))], axis=1),
    )


@pytest.fixture(scope="module")
def signal() -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(N_VOLUMES, int(np.prod(SHAPE))))
    return np.asarray(100 + noise.cumsum(axis=0) * 0.3 + noise, np.float32)


def ours(name: str, design: RunDesign, signal: np.ndarray, **settings: Any) -> np.ndarray:
    estimator = ESTIMATORS.get(name)(ESTIMATORS.settings(name)(**settings))
    parts = estimator.estimate([design], lambda _, v: signal[:, v], signal.shape[1])
    return np.concatenate([part.betas for part in parts], axis=1)


def fitted(matrix: np.ndarray, signal: np.ndarray, rows: slice) -> np.ndarray:
    labels, results = run_glm(signal.astype(np.float64), matrix, noise_model="ols")
    betas = np.empty((matrix.shape[1], signal.shape[1]))
    for label in np.unique(labels):
        betas[:, labels == label] = results[label].theta
    return betas[rows]


@pytest.mark.parametrize("hrf", ["canonical", "glover"])
def test_lsa_and_ridge_of_fraction_one_are_ordinary_least_squares(
    hrf: HrfName, design: RunDesign, signal: np.ndarray
) -> None:
    regressors = trial_regressors(design, hrf_set(hrf))[0]
    matrix = np.concatenate([regressors, design.nuisance], axis=1)
    expected = fitted(matrix, signal, slice(0, N_TRIALS))
    np.testing.assert_allclose(
        ours("lsa", design, signal, hrf=hrf), expected, atol=1e-5, rtol=1e-5
    )
    ridge = ours("ridge_glm", design, signal, hrf=hrf, fractions=(1.0,))
    np.testing.assert_allclose(ridge, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hrf", ["canonical", "glover"])
def test_lss_is_one_model_a_trial(hrf: HrfName, design: RunDesign, signal: np.ndarray) -> None:
    regressors = trial_regressors(design, hrf_set(hrf))[0]
    found = ours("lss", design, signal, hrf=hrf)
    for trial in range(N_TRIALS):
        others = regressors.sum(axis=1) - regressors[:, trial]
        matrix = np.column_stack([regressors[:, trial], others, design.nuisance])
        expected = fitted(matrix, signal, slice(0, 1))[0]
        np.testing.assert_allclose(found[trial], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_equal_to_first_level_model_on_images(design: RunDesign, signal: np.ndarray) -> None:
    """The same through nilearn's front door: a NIfTI image and a table of regressors."""
    regressors = trial_regressors(design, hrf_set("canonical"))[0]
    image = nibabel.Nifti1Image(signal.T.reshape(*SHAPE, N_VOLUMES), np.diag([2.0, 2, 2, 1]))
    mask = nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), image.affine)

    def first_level(columns: np.ndarray, trial: int) -> np.ndarray:
        names = [f"column{i}" for i in range(columns.shape[1])]
        model = FirstLevelModel(
            mask_img=mask, noise_model="ols", signal_scaling=False, minimize_memory=False
        )
        model.fit(image, design_matrices=pd.DataFrame(columns, columns=names))
        contrast = np.eye(columns.shape[1])[trial]
        return np.asarray(
            model.compute_contrast(contrast, output_type="effect_size").get_fdata().ravel()
        )

    lsa, lss = ours("lsa", design, signal), ours("lss", design, signal)
    everything = np.concatenate([regressors, design.nuisance], axis=1)
    for trial in (0, 17, 39):
        np.testing.assert_allclose(
            lsa[trial], first_level(everything, trial), atol=1e-5, rtol=1e-5
        )
        others = regressors.sum(axis=1) - regressors[:, trial]
        matrix = np.column_stack([regressors[:, trial], others, design.nuisance])
        np.testing.assert_allclose(lss[trial], first_level(matrix, 0), atol=1e-5, rtol=1e-5)
