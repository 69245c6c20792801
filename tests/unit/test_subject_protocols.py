"""Within-subject, cross-subject and few-shot: who is fitted on, what is refused, what is gained."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.evaluation.gallery import COLUMNS
from afterimage.evaluation.scores import Resampling
from afterimage.evaluation.subject_protocols import (
    FitPart,
    SubjectTrials,
    cross_subject,
    few_shot,
    within_subject,
)
from afterimage.evaluation.window_ridge import fit_ridge, folds_by_group

RESAMPLING = Resampling(n_bootstraps=120, n_permutations=120)
IMAGES = np.array([f"image{number:03d}" for number in range(110)])
TEST = IMAGES[90:]


@pytest.fixture(scope="module")
def study():
    """Three subjects whose patterns share half of their variance."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((110, 8))
    shared = rng.standard_normal((8, 12))
    subjects = {}
    for name in ("01", "02", "03"):
        pattern = 0.7 * shared + 0.7 * rng.standard_normal((8, 12))
        train = features[:90] @ pattern + 2 * rng.standard_normal((90, 12))
        rows = np.repeat(np.arange(90, 110), 4)
        test = features[rows] @ pattern + 2 * rng.standard_normal((80, 12))
        subjects[name] = SubjectTrials(train, features[:90], IMAGES[:90], test, IMAGES[rows])
    return subjects, features[90:]


def ridge(seen: list[FitPart]):
    def fit(part: FitPart):
        seen.append(part)
        model = fit_ridge(part.responses, part.targets, folds_by_group(part.stimuli))
        return lambda responses, subject: model.predict(responses)

    return fit


def value(rows, analysis_metric="twoway"):
    return np.mean([row["value"] for row in rows if row["metric"] == analysis_metric])


def test_protocols_see_the_subjects_they_say(study):
    subjects, gallery = study
    settings = {"label": "ridge", "resampling": RESAMPLING}
    seen: list[FitPart] = []
    within = within_subject(subjects, ridge(seen), list(TEST), gallery, **settings)
    assert [set(part.subjects) for part in seen] == [{"01"}, {"02"}, {"03"}]
    seen.clear()
    across = cross_subject(subjects, ridge(seen), list(TEST), gallery, **settings)
    assert [set(part.subjects) for part in seen] == [{"02", "03"}, {"01", "03"}, {"01", "02"}]
    seen.clear()
    few = few_shot(subjects, ridge(seen), list(TEST), gallery, [10, 90], **settings)
    assert [int((part.subjects == "01").sum()) for part in seen[:2]] == [10, 90]
    first, second = (set(part.stimuli[part.subjects == "01"]) for part in seen[:2])
    assert first < second
    assert all(not set(part.stimuli) & set(TEST) for part in seen)

    assert value(within) > value(across) > 0.6
    assert value([row for row in few if row["k"] == 90]) > value(across)
    for rows, analysis in (
        (within, "within_subject"),
        (across, "cross_subject"),
        (few, "few_shot"),
    ):
        assert all(set(row) == set(COLUMNS) and row["analysis"] == analysis for row in rows)
        assert all(row["ci_low"] <= row["value"] <= row["ci_high"] for row in rows)
    assert "no trial of this one" in across[0]["protocol"]
    assert "2 other subjects and 10 trials of this one" in few[0]["protocol"]
    assert across[0]["chance"] == pytest.approx(0.5, abs=0.03)


def test_few_shot_takes_every_image_before_any_twice(study):
    subjects, gallery = study
    own = subjects["01"]
    twice = SubjectTrials(
        np.concatenate([own.train] * 2), np.concatenate([own.targets] * 2),
        np.concatenate([own.stimuli] * 2), own.test, own.test_stimuli,
    )  # fmt: skip
    seen: list[FitPart] = []
    few_shot(
        {"01": twice, "02": subjects["02"]}, ridge(seen), list(TEST), gallery, [90],
        label="ridge", resampling=RESAMPLING,
    )  # fmt: skip
    assert len(set(seen[0].stimuli[seen[0].subjects == "01"])) == 90


def test_a_test_image_fitted_in_another_subject_is_refused(study):
    subjects, gallery = study
    other = subjects["02"]
    stimuli = other.stimuli.copy()
    stimuli[5] = TEST[0]
    leaking = SubjectTrials(other.train, other.targets, stimuli, other.test, other.test_stimuli)
    with pytest.raises(InputError, match="training images of another") as caught:
        cross_subject(
            {"01": subjects["01"], "02": leaking}, ridge([]), list(TEST), gallery, label="ridge"
        )
    assert TEST[0] in str(caught.value)


def test_subjects_with_other_units_are_refused(study):
    subjects, gallery = study
    own = subjects["02"]
    fewer = SubjectTrials(own.train[:, :9], own.targets, own.stimuli, own.test[:, :9], TEST)
    for protocol in (cross_subject, few_shot):
        extra = ([5],) if protocol is few_shot else ()
        with pytest.raises(InputError, match="cannot be decoded across"):
            protocol(
                {"01": subjects["01"], "02": fewer}, ridge([]), list(TEST), gallery, *extra,
                label="ridge",
            )  # fmt: skip
    with pytest.raises(InputError, match="too few trials"):
        few_shot(subjects, ridge([]), list(TEST), gallery, [91], label="ridge")
