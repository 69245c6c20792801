"""Within, across, few-shot and pooled: who is fitted on, what is refused, what is gained."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.evaluation.scores import Resampling
from afterimage.evaluation.subject_protocols import (
    ANALYSES,
    COLUMNS,
    SubjectTrials,
    images_first,
    score_subjects,
)
from afterimage.evaluation.subject_ridge import SubjectRidge

brains = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[1] / "truth" / "meeg_embedding_study.py"))
)
RESAMPLING = Resampling(n_bootstraps=120, n_permutations=200)
IMAGES = np.array([f"image{number:03d}" for number in range(240)])
TRAIN, TEST = IMAGES[:200], IMAGES[200:]
K_VALUES = (16, 64, 180)


def make_study(shared: float = 0.5, own: float = 0.8, noise: float = 2.0, seed: int = 0):
    """Four people with the same tuning: topographies are part their own, part everybody's."""
    rng = np.random.default_rng(seed)
    sensors = brains.layout(16, 25.0)
    made = brains.make_brains(5, sensors, noise, rng)
    features = brains.embeddings(240, rng)
    subjects = {}
    for number, brain in enumerate(made[1:]):
        topography = shared * made[0].topography + own * brain.topography
        brain = replace(brain, topography=topography)
        rows = np.repeat(np.arange(200, 240), 4)
        train, test = brain.respond(features[:200], rng), brain.respond(features[rows], rng)
        values, axes = np.linalg.eigh(np.einsum("nut,nvt->uv", train, train) / train[:, 0].size)
        white = ((axes / np.sqrt(values)) @ axes.T).astype(np.float32)
        train, test = white @ train, white @ test
        mean = train.mean(0)
        subjects[f"{number + 1:02d}"] = SubjectTrials(
            train - mean, TRAIN, TRAIN, test - mean, IMAGES[rows]
        )
    return subjects, dict(zip(TRAIN.tolist(), features[:200], strict=True)), features[200:]


@pytest.fixture(scope="module")
def study():
    return make_study()


def scored(study, k_values=K_VALUES, **changes):
    subjects, features, gallery = study
    learner = SubjectRidge(subjects, features, gallery, **changes)
    return list(score_subjects(subjects, learner, TEST, k_values, resampling=RESAMPLING))


@pytest.fixture(scope="module")
def rows(study):
    return scored(study)


def mean(rows, analysis, k=None, metric="twoway", repeats="averaged", column="value"):
    chosen = [
        row[column]
        for row in rows
        if (row["analysis"], row["k"], row["metric"], row["repeats"])
        == (analysis, k, metric, repeats)
    ]
    assert len(chosen) == 4
    return float(np.mean(chosen))


def test_rows_of_every_protocol(rows):
    assert {row["analysis"] for row in rows} == set(ANALYSES)
    assert all(set(row) == set(COLUMNS) - {"modality"} for row in rows)
    assert {row["repeats"] for row in rows} == {"single", "averaged"}
    assert {row["metric"] for row in rows} == {"twoway", "retrieval_top1", "retrieval_top5"}
    assert {row["k"] for row in rows if row["analysis"] == "few_shot"} == set(K_VALUES)
    assert len(rows) == 4 * (3 + len(K_VALUES)) * 2 * 3
    for row in rows:
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert row["chance_low"] <= row["chance"] <= row["chance_high"]
        assert (row["n"], row["subject"] in ("01", "02", "03", "04")) == (40, True)
        assert "gallery=40" in row["protocol"]
    told = {row["analysis"]: row["protocol"] for row in rows}
    assert "fitted on 3 other subjects, no labelled trial of this one" in told["cross_subject"]
    assert "adapted to 180 trials of this one; 780 training trials" in told["few_shot"]
    assert "fitted on all 4 subjects" in told["pooled_subjects"]


def test_other_people_help_and_own_trials_help_more(rows):
    chance = mean(rows, "cross_subject", metric="retrieval_top1", column="chance")
    assert chance == pytest.approx(1 / 40, abs=0.01)
    for repeats in ("single", "averaged"):
        told = {"metric": "retrieval_top1", "repeats": repeats}
        across, within = mean(rows, "cross_subject", **told), mean(rows, "within_subject", **told)
        ladder = [mean(rows, "few_shot", k, **told) for k in K_VALUES]
        assert across > 3 * chance
        assert within > 1.5 * across
        assert across < ladder[1] < ladder[2]
        assert mean(rows, "pooled_subjects", **told) > across
    single = mean(rows, "within_subject", metric="retrieval_top1", repeats="single")
    assert mean(rows, "within_subject", metric="retrieval_top1") > single


def test_without_shared_anatomy_nothing_carries_over():
    rows = scored(make_study(shared=0.0, own=1.0, seed=3), k_values=())
    assert mean(rows, "within_subject", metric="retrieval_top1") > 0.2
    # Twice the standard error of four people of 40 pictures each.
    assert mean(rows, "cross_subject") == pytest.approx(0.5, abs=0.08)


def test_labels_of_other_pictures_are_at_chance(study):
    subjects, features, gallery = study
    order = np.random.default_rng(1).permutation(len(TRAIN))
    wrong = dict(zip(TRAIN.tolist(), np.array(list(features.values()))[order], strict=True))
    rows = scored((subjects, wrong, gallery), k_values=(180,))
    for analysis, k in (
        ("within_subject", None), ("cross_subject", None), ("few_shot", 180),
        ("pooled_subjects", None),
    ):  # fmt: skip
        low, high = (
            mean(rows, analysis, k, column=name) for name in ("chance_low", "chance_high")
        )
        assert low < mean(rows, analysis, k) < high


class Recorder:
    """A learner that notes what it is asked to fit and finds nothing."""

    label = "recorder"

    def __init__(self, broken: str = ""):
        self.fitted, self.adapted, self.broken = [], [], broken

    def fit(self, names):
        if list(names) == [self.broken]:
            raise InputError("cannot be fitted", found=self.broken)
        self.fitted.append(list(names))
        return list(names)

    def adapt(self, model, name, rows):
        self.adapted.append((list(model), name, rows))
        return [*model, name]

    def similarities(self, model, responses, name):
        assert responses.shape[1:] == (16, 27)
        return np.tile(np.arange(len(TEST), dtype=float), (len(responses), 1))


def test_each_protocol_sees_the_subjects_it_says(study):
    subjects = study[0]
    learner = Recorder()
    list(score_subjects(subjects, learner, TEST, (180, 10, 5000), resampling=RESAMPLING))
    everybody = list(subjects)
    alone = [[name] for name in everybody]
    others = [[other for other in everybody if other != name] for name in everybody]
    assert learner.fitted == [*alone, *others, everybody]
    for model, name, _ in learner.adapted:
        assert name not in model
        assert len(model) == 3
    sizes = [(name, len(rows)) for _, name, rows in learner.adapted]
    assert sizes == [(name, k) for name in everybody for k in (10, 180)]
    first, second = (set(rows.tolist()) for _, _, rows in learner.adapted[:2])
    assert first < second


def test_what_fails_for_one_is_told_and_the_others_go_on(study):
    failed = []
    rows = list(
        score_subjects(
            study[0], Recorder("02"), TEST, (10,), resampling=RESAMPLING,
            on_error=lambda what, error: failed.append((what, str(error))),
        )
    )  # fmt: skip
    assert [what for what, _ in failed] == ["recorder, sub-02 alone"]
    within = {row["subject"] for row in rows if row["analysis"] == "within_subject"}
    assert within == {"01", "03", "04"}
    assert {row["subject"] for row in rows if row["analysis"] == "few_shot"} == set(study[0])
    with pytest.raises(InputError, match="cannot be fitted"):
        list(score_subjects(study[0], Recorder("02"), TEST, (10,), resampling=RESAMPLING))


def test_every_image_comes_before_any_twice():
    order = images_first(np.concatenate([TRAIN, TRAIN]), 0)
    assert len({int(row) % len(TRAIN) for row in order[: len(TRAIN)]}) == len(TRAIN)
    assert sorted(order) == list(range(2 * len(TRAIN)))


def test_a_test_image_fitted_in_another_subject_is_refused(study):
    subjects = dict(study[0])
    other = subjects["02"]
    stimuli = other.stimuli.copy()
    stimuli[5] = TEST[0]
    subjects["02"] = SubjectTrials(other.train, stimuli, stimuli, other.test, other.test_stimuli)
    with pytest.raises(InputError, match="training images of another") as caught:
        list(score_subjects(subjects, Recorder(), TEST, ()))
    assert TEST[0] in str(caught.value)


def test_subjects_with_other_units_are_refused(study):
    subjects = dict(study[0])
    own = subjects["02"]
    subjects["02"] = SubjectTrials(
        own.train[:, :9], own.stimuli, own.groups, own.test[:, :9], own.test_stimuli
    )
    with pytest.raises(InputError, match="cannot be decoded across"):
        list(score_subjects(subjects, Recorder(), TEST, ()))
    with pytest.raises(InputError, match="cannot be decoded across"):
        list(score_subjects({"01": study[0]["01"]}, Recorder(), TEST, ()))
