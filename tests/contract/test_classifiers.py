"""What every registered classifier of conditions must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from afterimage.decoding.conditions.registry import CLASSIFIERS
from afterimage.errors import ConfigError, InputError
from afterimage.evaluation.conditions import cross_validate, score
from afterimage.evaluation.group_folds import leave_groups_out

TIMES_S = np.arange(-25, 100) / 100
GROUPS = np.repeat(["1", "2", "3", "4"], 15)


def study(effect: float = 1.0, n_classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Plant, after onset, an evoked response and a 12 Hz rhythm whose places depend on the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % n_classes
    trials = rng.normal(size=(60, 6, len(TIMES_S)))
    evoked = np.exp(-(((TIMES_S - 0.3) / 0.05) ** 2))
    for trial, label in zip(trials, labels, strict=True):
        phase = 2 * np.pi * rng.random()
        rhythm = np.sin(2 * np.pi * 12 * TIMES_S + phase) * (TIMES_S > 0)
        trial[label] += effect * (3 * evoked + 1.5 * rhythm)
    return trials.astype(np.float32), labels


def make(name: str, **window: Any) -> Any:
    return CLASSIFIERS.get(name)(CLASSIFIERS.settings(name)(), TIMES_S, **window)


pytestmark = pytest.mark.parametrize("name", CLASSIFIERS.names())


def auc(classifier: Any, trials: np.ndarray, labels: np.ndarray) -> float:
    folds = leave_groups_out(labels, GROUPS)
    decoding = cross_validate(classifier, trials, labels, GROUPS, folds)
    return score(decoding, "auc", n_bootstraps=100).value


def test_planted_difference_is_found_and_not_before_onset(name: str) -> None:
    trials, labels = study()
    assert auc(make(name, tmin_s=0.0), trials, labels) > 0.9
    early = TIMES_S < -0.001
    blind = CLASSIFIERS.get(name)(CLASSIFIERS.settings(name)(), TIMES_S[early])
    assert 0.25 < auc(blind, trials[:, :, early], labels) < 0.75


def test_nothing_planted_is_chance(name: str) -> None:
    values = [auc(make(name), *study(effect=0.0, seed=seed)) for seed in range(4)]
    assert abs(np.mean(values) - 0.5) < 0.1


@pytest.mark.parametrize("n_classes", [2, 3])
def test_shapes_of_what_is_predicted(name: str, n_classes: int) -> None:
    trials, numbers = study(n_classes=n_classes)
    labels = np.array(["face", "house", "tool"])[numbers]
    classifier = make(name).fit(trials[:45], labels[:45])
    assert classifier.classes_.tolist() == ["face", "house", "tool"][:n_classes]
    chances = classifier.predict_proba(trials[45:])
    assert chances.shape == (15, n_classes)
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-9)
    assert classifier.decision_function(trials[45:]).shape == (
        (15,) if n_classes == 2 else (15, 3)
    )
    assert np.mean(classifier.predict(trials[45:]) == labels[45:]) > 0.7


def test_a_trial_alone_gives_the_same(name: str) -> None:
    trials, labels = study()
    classifier = make(name).fit(trials, labels)
    together = classifier.decision_function(trials[:5])
    alone = [classifier.decision_function(trials[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_same_twice_and_inputs_untouched(name: str) -> None:
    trials, labels = study()
    before = trials.copy()
    first = make(name).fit(trials, labels).predict_proba(trials)
    np.testing.assert_array_equal(make(name).fit(trials, labels).predict_proba(trials), first)
    np.testing.assert_array_equal(trials, before)


def test_volt_or_microvolt_does_not_matter(name: str) -> None:
    trials, labels = study()
    first = make(name).fit(trials, labels).decision_function(trials)
    small = trials * np.float32(1e-6)
    second = make(name).fit(small, labels).decision_function(small)
    np.testing.assert_allclose(second, first, atol=0.05, rtol=0.02)


def test_a_channel_flat_in_one_trial_is_no_trouble(name: str) -> None:
    trials, labels = study()
    trials[3, 2] = 0
    assert np.isfinite(make(name).fit(trials, labels).predict_proba(trials)).all()


def test_wrong_inputs_are_named(name: str) -> None:
    trials, labels = study()
    with pytest.raises(InputError, match="time axis"):
        make(name).fit(trials[:, :, :-1], labels)
    with pytest.raises(InputError, match="nothing to tell apart"):
        make(name).fit(trials, np.zeros(60))
    with pytest.raises(InputError, match="belong together"):
        make(name).fit(trials, labels[:-1])
    with pytest.raises(ConfigError, match="too few samples"):
        make(name, tmin_s=2.0)
    with pytest.raises(InputError, match="channels"):
        make(name).fit(trials, labels).predict(trials[:, :-1])
    trials[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        make(name).fit(trials, labels)


def test_saved_settings_name_the_method(name: str) -> None:
    assert CLASSIFIERS.settings(name)().model_dump()["kind"] == name
