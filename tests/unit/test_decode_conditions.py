"""Scores of conditions: folds, permutations, intervals, alarm, and the stage around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.decoding.conditions.csp_lda import CSPLDASettings
from afterimage.decoding.conditions.window_lda import WindowLDA, WindowLDASettings
from afterimage.errors import InputError
from afterimage.evaluation.conditions import (
    alarm_window,
    cross_validate,
    score,
    weighted_auc,
    weighted_balanced_accuracy,
)
from afterimage.evaluation.group_folds import leave_groups_out, permute_labels, random_folds
from afterimage.evaluation.stacking import weights_of
from afterimage.io.tables import Row, read_tsv
from afterimage.io.trials import write_trials
from afterimage.stages import decode_conditions

TIMES_S = np.arange(-10, 40) / 100


def test_metrics_equal_scikit_learn() -> None:
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 80)
    evidence = np.round(rng.normal(size=(80, 3)), 1) + np.eye(3)[labels]
    counts = rng.integers(0, 4, 80)
    counts[:20] = 1
    repeated = np.repeat(np.arange(80), counts)
    each = [roc_auc_score(labels[repeated] == k, evidence[repeated, k]) for k in range(3)]
    found = weighted_auc(labels, evidence, counts[None].astype(float))
    np.testing.assert_allclose(found, [np.mean(each)])
    right = balanced_accuracy_score(labels[repeated], evidence[repeated].argmax(1))
    accuracy = weighted_balanced_accuracy(labels, evidence, counts[None].astype(float))
    np.testing.assert_allclose(accuracy, [right])


def test_no_group_is_on_both_sides() -> None:
    groups = np.repeat([f"p{i}" for i in range(6)], 10)
    within, own = np.tile([0, 1], 30), np.repeat([0, 0, 0, 1, 1, 1], 10)
    for labels, n_folds in ((within, 6), (own, 3)):
        folds = leave_groups_out(labels, groups)
        assert len(folds) == n_folds
        for train, test in folds:
            assert not set(groups[train]) & set(groups[test])
            assert set(labels[test]) == {0, 1}
        assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(60))
    with pytest.raises(InputError, match="no group"):
        leave_groups_out(within, np.full(60, "one"))


def test_labels_are_permuted_within_groups_or_with_them() -> None:
    groups = np.repeat(["a", "b", "c", "d"], 10)
    labels = np.concatenate([np.arange(10) < k for k in (2, 5, 7, 9)]).astype(int)
    permuted = permute_labels(labels, groups, np.random.default_rng(0))
    assert (permuted != labels).any()
    for name in "abcd":
        assert permuted[groups == name].sum() == labels[groups == name].sum()
    own = np.repeat([0, 0, 1, 1], 10)
    for seed in range(5):
        moved = permute_labels(own, groups, np.random.default_rng(seed))
        assert all(len(set(moved[groups == name])) == 1 for name in "abcd")


def people(n: int, effect: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trials of people with a pattern of their own each; the condition adds a response."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"p{i}" for i in range(n)], 20)
    labels = np.tile([0, 1], 10 * n)
    own = np.repeat(rng.normal(size=(n, 8, 1)), 20, axis=0)
    trials = rng.normal(size=(20 * n, 8, 50)) + 2 * own
    trials[:, 0, 30:] += effect * labels[:, None]
    return trials, labels, groups


def test_interval_and_chance_of_permuted_labels() -> None:
    trials, labels, groups = people(6, 0.5, 0)
    classifier = WindowLDA(WindowLDASettings(), TIMES_S)
    folds = leave_groups_out(labels, groups)
    decoding = cross_validate(classifier, trials, labels, groups, folds, n_permutations=19)
    for resampled in ("groups", "trials"):
        found = score(decoding, "auc", resampled=resampled)
        assert found.ci_low < found.value < found.ci_high
        assert found.above_chance
        assert found.p == pytest.approx(1 / 20)
        assert found.chance == pytest.approx(0.5, abs=0.05)
        assert found.value == pytest.approx(np.mean(list(found.per_group.values())))


def test_a_label_of_people_leaks_through_random_trials() -> None:
    """Labels dealt to people at random: people left out say chance, random trials say certainty."""
    honest, leaked = [], []
    for seed in range(4):
        trials, _, groups = people(8, 0.0, seed)
        labels = np.repeat(np.arange(8) % 2, 20)
        for folds, found in (
            (leave_groups_out(labels, groups), honest),
            (random_folds(labels), leaked),
        ):
            classifier = WindowLDA(WindowLDASettings(), TIMES_S)
            decoding = cross_validate(classifier, trials, labels, groups, folds)
            found.append(score(decoding, "balanced_accuracy").value)
    assert min(leaked) > 0.95
    assert np.mean(honest) < 0.75


def test_alarm_looks_before_the_stimulus_or_at_the_first_samples() -> None:
    assert alarm_window(TIMES_S) == (-0.1, -0.01, "before the stimulus")
    start, end, what = alarm_window(np.arange(256) / 256)
    assert (start, what) == (0.0, "first samples")
    assert 0.025 < end <= 0.031


def write(path: Path, labels: list[str], *, early: float = 0.0, n_runs: int = 3) -> Path:
    rng = np.random.default_rng(len(path.name))
    n = len(labels)
    second = np.array([label == "house" for label in labels])[:, None]
    values = rng.normal(size=(n, 4, 50)).astype(np.float32)
    values[:, 1, 25:] += 2 * second
    values[:, 2, :10] += early * second
    path.parent.mkdir(parents=True, exist_ok=True)
    write_trials(
        path, [values],
        {
            "stimulus": np.array(labels), "subject": np.full(n, "01"),
            "split": np.full(n, "train"), "run": np.array([str(i * n_runs // n) for i in range(n)]),
        },
        {"kind": np.array(["eeg", "eeg", "eeg", "eog"])}, TIMES_S,
        {"subject": "01", "response_units": "V"},
    )  # fmt: skip
    return path


def decode(
    trials: tuple[Path, ...], out: Path, **settings: Any
) -> tuple[list[Row], dict[str, Any]]:
    outputs = decode_conditions.Outputs(out / "conditions.tsv", out / "conditions.json")
    settings = {"classifiers": {"lda": WindowLDASettings()}, "n_permutations": 10} | settings
    config = decode_conditions.Config(**settings)
    decode_conditions.run(decode_conditions.Inputs(trials), outputs, config)
    return read_tsv(outputs.table, decode_conditions.COLUMNS), json.loads(
        outputs.details.read_text()
    )


@pytest.mark.parametrize("early", [0.0, 2.0])
def test_stage_scores_runs_and_rings_only_for_a_leak(tmp_path: Path, early: float) -> None:
    file = write(tmp_path / "sub-01" / "sub-01_trials.nc", ["face", "house"] * 30, early=early)
    rows, details = decode((file,), tmp_path)
    by_role = {row["role"]: row for row in rows if row["metric"] == "auc"}
    assert set(by_role) == {"decoding", "alarm", "leak"}
    assert float(by_role["decoding"]["value"]) > 0.95
    assert by_role["decoding"]["protocol"].startswith("leave one run out, 3 folds")
    assert float(by_role["alarm"]["tmax_s"]) < 0
    rings = any("the alarm rings" in note for note in details["contrasts"][0]["notes"])
    assert rings == (early > 0)
    assert details["n_channels"] == 3
    assert "1 channels that do not record the brain" in details["notes"][0]


def test_several_subjects_are_left_out_in_turn(tmp_path: Path) -> None:
    files = tuple(
        write(tmp_path / f"sub-{k}" / f"sub-{k}_trials.nc", ["face", "house", "tool"] * 10)
        for k in ("a", "bb", "ccc")
    )
    contrasts = {"houses": {"classes": {"house": ["house"], "other": ["face", "tool"]}}}
    rows, details = decode(files, tmp_path, contrasts=contrasts)
    assert {row["subject"] for row in rows} == {"group"}
    assert details["group_column"] == "subject"
    found = details["contrasts"][0]["scores"]["decoding"]["auc"]["per_group"]
    assert set(found) == {"a", "bb", "ccc"}
    assert min(found.values()) > 0.9


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (["face"] * 20, {}, "nothing to tell apart"),
        (["face", "house"] * 10, {"condition_column": "colour"}, "no label"),
        (["face", "house"] * 10, {"group_column": "session"}, "no column of groups"),
        (
            ["face", "house"] * 10,
            {"contrasts": {"c": {"classes": {"a": ["face"], "b": ["x"]}}}},
            "no trial has",
        ),
        ([f"picture-{i}" for i in range(20)], {}, "too few trials"),
    ],
)
def test_what_cannot_be_decoded_is_said(
    tmp_path: Path, labels: list[str], settings: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / "sub-01" / "sub-01_trials.nc", labels)
    with pytest.raises(InputError, match=message):
        decode((file,), tmp_path, **settings)


def test_a_contrast_has_settings_of_its_own(tmp_path: Path) -> None:
    file = write(tmp_path / "sub-01" / "sub-01_trials.nc", ["face", "house"] * 30)
    contrasts = {
        "plain": {},
        "early": {
            "tmin_s": -0.1,
            "tmax_s": 0.1,
            "baseline_s": (-0.1, 0.0),
            "classifiers": ["lda"],
        },
    }
    classifiers = {"lda": WindowLDASettings(), "fine": WindowLDASettings(bin_s=0.02)}
    rows, _ = decode((file,), tmp_path, contrasts=contrasts, classifiers=classifiers)
    windows = {
        (row["contrast"], row["classifier"]): (float(row["tmin_s"]), float(row["tmax_s"]))
        for row in rows
        if row["role"] == "decoding"
    }
    assert windows == {
        ("plain", "stacked"): (0.0, 0.39), ("plain", "lda"): (0.0, 0.39),
        ("plain", "fine"): (0.0, 0.39), ("early", "lda"): (-0.1, 0.1),
    }  # fmt: skip
    with pytest.raises(ValueError, match="names classifiers that there are not: nothing"):
        decode((file,), tmp_path, contrasts={"c": {"classifiers": ["nothing"]}})


def test_each_fold_weighs_without_its_test_trials(tmp_path: Path) -> None:
    """Weights stay when the trials a fold is tested on are another's, labels and all."""
    labels = ["face", "house"] * 30
    classifiers = {
        "power": CSPLDASettings(n_components=1, low_hz=20), "lda": WindowLDASettings(),
    }  # fmt: skip
    file = write(tmp_path / "sub-01" / "sub-01_trials.nc", labels)
    rows, details = decode((file,), tmp_path, classifiers=classifiers)
    record = details["contrasts"][0]
    assert (record["classifier"], len(record["weights"])) == ("stacked", 3)
    assert all(one["lda"] > 2 * one["power"] >= 0 for one in record["weights"])
    areas = {
        row["classifier"]: row
        for row in rows
        if (row["role"], row["metric"]) == ("decoding", "auc")
    }
    assert float(areas["stacked"]["value"]) > float(areas["lda"]["value"]) - 0.05
    assert areas["stacked"]["p"] == "n/a"
    assert "weighed in each fold by runs left out of its training" in areas["stacked"]["protocol"]
    swapped = [{"face": "house", "house": "face"}[name] for name in labels[:20]] + labels[20:]
    file = write(tmp_path / "sub-01" / "sub-01_trials.nc", swapped)
    _, other = decode((file,), tmp_path, classifiers=classifiers)
    for key in ("inner", "weights"):
        assert other["contrasts"][0][key][0] == pytest.approx(record[key][0], rel=1e-5)
        assert other["contrasts"][0][key][1] != record[key][1]


def test_weights_are_those_of_the_better_evidence_and_not_below_zero() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    right = np.eye(3)[labels]
    noisy = [right + level * rng.normal(size=right.shape) for level in (1.0, 1.0, 3.0)]
    evidence = np.stack([*noisy, -right + 3 * rng.normal(size=right.shape)])
    weights = weights_of(evidence, labels)
    # noise of variance s^2 asks for weights like 1 / s^2
    assert weights[0] == pytest.approx(1.0, rel=0.25)
    assert weights[1] == pytest.approx(1.0, rel=0.25)
    assert 0 <= weights[2] < 0.3
    assert weights[3] == 0


def test_two_runs_are_too_few_to_weigh(tmp_path: Path) -> None:
    file = write(tmp_path / "sub-01" / "sub-01_trials.nc", ["face", "house"] * 20, n_runs=2)
    classifiers = {"lda": WindowLDASettings(), "fine": WindowLDASettings(bin_s=0.02)}
    rows, details = decode((file,), tmp_path, classifiers=classifiers)
    assert {row["classifier"] for row in rows} == {"lda", "fine"}
    assert details["contrasts"][0]["notes"] == [
        "none were weighed: no group of trials can be left out"
    ]


def test_processes_change_nothing() -> None:
    trials, labels, groups = people(3, 0.5, 0)
    classifier = WindowLDA(WindowLDASettings(), TIMES_S)
    folds = leave_groups_out(labels, groups)
    one, four = (
        cross_validate(classifier, trials, labels, groups, folds, n_permutations=3, n_jobs=n)
        for n in (1, 4)
    )
    np.testing.assert_allclose(one.evidence, four.evidence, rtol=1e-9)
    for (first, expected), (second, found) in zip(one.null, four.null, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(expected, found, rtol=1e-9)


def test_many_groups_are_dealt_into_few_folds() -> None:
    groups = np.repeat([f"p{i:02d}" for i in range(11)], 4)
    folds = leave_groups_out(np.tile([0, 1], 22), groups, max_folds=5)
    assert len(folds) == 5
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(44))
    assert all(not set(groups[train]) & set(groups[test]) for train, test in folds)


def test_chance_of_a_label_of_people_is_known() -> None:
    """Folds of two people: after a permutation some hold one class, and many permutations all do."""
    trials, _, groups = people(4, 0.0, 1)
    labels = np.repeat(np.arange(4) % 2, 20)
    classifier = WindowLDA(WindowLDASettings(), TIMES_S)
    folds = leave_groups_out(labels, groups)
    assert len(folds) == 2
    decoding = cross_validate(classifier, trials, labels, groups, folds, n_permutations=12)
    found = score(decoding, "auc")
    assert 0 <= found.chance_low <= found.chance <= found.chance_high <= 1
    assert 0 < found.p <= 1
