"""Checks of the leak linter of fits."""

import numpy as np
import pytest

from afterimage.decoding.leaks import check_fit, grouped_folds
from afterimage.errors import InputError


def test_held_out_stimulus_in_the_fit_is_named() -> None:
    with pytest.raises(InputError, match="held-out") as caught:
        check_fit(["a", "b", "b"], {"b", "z"})
    assert "1 leaked: b" in str(caught.value)


def test_disjoint_fit_passes() -> None:
    check_fit(["a", "b"], ["c"])
    check_fit(np.array(["a", "b"]), ())


def test_repeats_never_apart_and_every_trial_tested_once() -> None:
    groups = np.repeat([f"image-{i}" for i in range(23)], 3)
    np.random.default_rng(0).shuffle(groups)
    folds = grouped_folds(groups, 5, random_state=1)
    assert len(folds) == 5
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(groups)))
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert len(train) + len(test) == len(groups)


def test_folds_depend_on_the_seed_only() -> None:
    groups = np.array([f"{i}" for i in range(20)])
    first = [test.tolist() for _, test in grouped_folds(groups, 4, random_state=0)]
    assert first == [test.tolist() for _, test in grouped_folds(groups, 4, random_state=0)]
    assert first != [test.tolist() for _, test in grouped_folds(groups, 4, random_state=1)]


def test_fewer_stimuli_than_folds() -> None:
    assert len(grouped_folds(np.array(list("abca")), 10, random_state=0)) == 3
    with pytest.raises(InputError, match="too few stimuli"):
        grouped_folds(np.array(list("aabb")), 2, random_state=0)
