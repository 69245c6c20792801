"""Probes over folds of people: planted labels are found, absent ones are not, sides stay apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afterimage.evaluation.conditions import score
from afterimage.evaluation.fold_probes import (
    by_group,
    folds_by_side,
    paired_difference,
    ridge_decoding,
    trained_decoding,
)

LABELS = np.tile([0, 1], 60)
GROUPS = np.repeat([f"p{n}" for n in range(6)], 20)
SIDES = np.where(np.isin(GROUPS, ["p0", "p1"]), "no", "yes")


def features(strength: float, seed: int = 0) -> np.ndarray:
    """Return features of which one holds a label, and all hold the person."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((6, 30)).repeat(20, axis=0)
    values = rng.standard_normal((120, 30)) + 3 * own
    values[:, 0] += strength * LABELS
    return values


def test_people_seen_and_unseen_are_never_in_one_fold() -> None:
    folds, notes = folds_by_side(LABELS, GROUPS, SIDES, 3)
    assert not notes
    assert [len(folds[side]) for side in ("no", "yes")] == [2, 3]
    for side, some in folds.items():
        for train, test in some:
            assert set(SIDES[test]) == {side}
            assert not set(GROUPS[train]) & set(GROUPS[test])
            assert set(GROUPS[train]) | set(GROUPS[test]) == set(GROUPS)
        assert (
            sorted(np.concatenate([t for _, t in some])) == np.flatnonzero(side == SIDES).tolist()
        )
    parted = by_group(folds["yes"], LABELS, GROUPS)
    assert len(parted) == 4
    assert all(len(set(GROUPS[test])) == 1 for _, test in parted)


def test_a_label_of_people_stays_in_whole_folds_and_says_where_it_cannot_be_told() -> None:
    own = (np.arange(6) % 2).repeat(20)
    sides = np.where(GROUPS == "p0", "no", "yes")
    folds, notes = folds_by_side(own, GROUPS, sides, 3)
    assert set(folds) == {"yes"}  # one person alone has one class
    assert "seen no" in notes[0]
    assert by_group(folds["yes"], own, GROUPS) == folds["yes"]


@pytest.mark.parametrize(("strength", "found"), [(2.0, True), (0.0, False)])
def test_a_planted_label_is_found_and_an_absent_one_is_not(strength: float, found: bool) -> None:
    folds, _ = folds_by_side(LABELS, GROUPS, SIDES, 3)
    every = [fold for some in folds.values() for fold in some]
    decoding = ridge_decoding(features(strength), LABELS, GROUPS, every, n_permutations=40)
    cells = by_group(every, LABELS, GROUPS)
    told = score(replace(decoding, folds=cells), "auc", resampled="groups")
    assert abs(told.chance - 0.5) < 0.05
    assert (told.value > 0.85) == found
    assert (told.p < 0.05) == found
    # The threshold favours no class: half of the trials of a person are called either.
    called = decoding.evidence.argmax(1)
    assert 0.3 < called.mean() < 0.7


def test_chance_of_what_cannot_be_refitted_permutes_the_labels_tested() -> None:
    folds, _ = folds_by_side(LABELS, GROUPS, np.full(120, "no"), 3)
    evidence = np.stack([-features(2.0)[:, 0], features(2.0)[:, 0]], axis=1)
    decoding = trained_decoding(evidence, LABELS, GROUPS, folds["no"], n_permutations=200)
    cells = by_group(folds["no"], LABELS, GROUPS)
    told = score(replace(decoding, folds=cells), "auc", resampled="groups")
    assert told.value > 0.8
    assert told.p == pytest.approx(1 / 201)
    assert told.chance == pytest.approx(0.5, abs=0.02)


def test_difference_is_paired_over_people() -> None:
    folds, _ = folds_by_side(LABELS, GROUPS, np.full(120, "no"), 6)
    good, bad = (
        score(
            replace(
                ridge_decoding(features(strength), LABELS, GROUPS, folds["no"]),
                folds=by_group(folds["no"], LABELS, GROUPS),
            ),
            "auc", resampled="groups",
        )
        for strength in (2.0, 0.0)
    )  # fmt: skip
    value, low, high = paired_difference(good, bad, 500, 0)
    assert value == pytest.approx(good.value - bad.value)
    assert 0 < low < value < high
    assert paired_difference(good, good, 500, 0) == (0.0, 0.0, 0.0)
