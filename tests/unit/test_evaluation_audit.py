"""The audit finds planted duplicates and leaks, and says nothing where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.evaluation.audit import (
    cluster_oracle,
    leak_linter,
    mean_training_image,
    near_duplicates,
    nearest_training,
)
from afterimage.evaluation.duplicates import thumbnails


def smooth_images(n: int, seed: int, size: int = 64):
    """Random pictures with structure at many scales, uint8."""
    from scipy.ndimage import zoom

    generator = np.random.default_rng(seed)
    result = np.zeros((n, size, size, 3))
    for cells in (4, 8, 16):
        layer = generator.random((n, cells, cells, 3))
        result += zoom(layer, (1, size / cells, size / cells, 1), order=1) / 3
    return (result.clip(0, 1) * 255).astype(np.uint8)


def scan(train, test, **options):
    return near_duplicates(
        train,
        test,
        train_ids=[f"train{i}" for i in range(len(train))],
        test_ids=[f"test{i}" for i in range(len(test))],
        **options,
    )


def test_thumbnails_average_areas() -> None:
    image = np.random.default_rng(0).random((64, 48, 3)).astype(np.float32)
    small = thumbnails([image], 16)[0]
    grey = image @ np.array([0.2125, 0.7154, 0.0721], np.float32)
    np.testing.assert_allclose(small, grey.reshape(16, 4, 16, 3).mean(axis=(1, 3)), atol=1e-6)
    uneven = thumbnails([np.full((37, 21, 3), 255, np.uint8)], 16)
    np.testing.assert_allclose(uneven, 1.0, atol=1e-5)


def test_planted_duplicates_are_found() -> None:
    train, test = smooth_images(60, 0), smooth_images(8, 1)
    generator = np.random.default_rng(2)
    noisy = train[5] * 0.7 + 40 + generator.normal(0, 4, train[5].shape)
    test[1] = noisy.clip(0, 255).astype(np.uint8)
    test[3] = train[17][:, ::-1]
    test[6] = np.roll(train[29], 4, axis=1)  # one pixel of a 16 px thumbnail
    report = scan(train, test)
    assert [(p["test"], p["train"], p["transform"]) for p in report["pairs"]] == [
        ("test1", "train5", "same"),
        ("test3", "train17", "mirrored"),
        ("test6", "train29", "same shifted"),
    ]
    assert report["n_test_with_duplicate"] == 3
    assert all(p["correlation"] > 0.95 for p in report["pairs"])


def test_unrelated_images_are_no_duplicates_whatever_the_chunks(monkeypatch) -> None:
    train, test = smooth_images(50, 3), smooth_images(6, 4)
    assert scan(train, test)["pairs"] == []
    loose = scan(train, test, threshold=0.2)
    monkeypatch.setattr("afterimage.evaluation.duplicates.CHUNK_ROWS", 7)
    assert scan(train, test, threshold=0.2) == loose
    assert loose["n_test_with_duplicate"] > 0


def test_featureless_images_are_listed_not_counted() -> None:
    train, test = smooth_images(5, 5), smooth_images(4, 6)
    train[2], test[0] = 128, 128
    report = scan(train, test)
    assert report["pairs"] == []
    assert report["featureless_train"] == ["train2"]
    assert report["featureless_test"] == ["test0"]
    empty = scan(train[2:3], test)
    assert empty["n_train"] == 1
    assert empty["pairs"] == []


def test_images_may_differ_in_size() -> None:
    train = smooth_images(3, 7, 96)
    report = scan([train[0], train[1][:90]], [train[0][::2, ::2]])
    assert report["pairs"][0]["train"] == "train0"


CLEAN = {
    "trial_stimuli": ["a", "a", "b", "c", "c"],
    "trial_splits": ["train", "train", "train", "test", "test"],
    "repeats": [1, 2, 1, 1, 2],
    "fits": {"decoder": ["a", "b"], "scaler": ["a"]},
    "image_hashes": {"a": "1", "b": "2", "c": "3"},
}


def failed(**changes) -> list[str]:
    return [c["check"] for c in leak_linter(**{**CLEAN, **changes}) if not c["ok"]]


def test_a_clean_split_passes_every_check() -> None:
    checks = leak_linter(**CLEAN)
    assert [c["check"] for c in checks] == [
        "no stimulus in two splits",
        "repeats kept together",
        "no trial counted twice",
        "fit on training only: decoder",
        "fit on training only: scaler",
        "no identical image in two splits",
    ]
    assert all(c["ok"] for c in checks)
    assert all(set(c) == {"check", "ok", "detail"} for c in checks)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"trial_splits": ["train", "test", "train", "test", "test"]},
            [
                "no stimulus in two splits",
                "repeats kept together",
                "fit on training only: decoder",
                "fit on training only: scaler",
            ],
        ),
        ({"fits": {"decoder": ["a", "c"]}}, ["fit on training only: decoder"]),
        ({"fits": {"decoder": ["a", "stranger"]}}, ["fit on training only: decoder"]),
        ({"fits": {}}, ["fits declared"]),
        ({"repeats": [1, 1, 1, 1, 2]}, ["no trial counted twice"]),
        (
            {"image_hashes": {"a": "1", "b": "2", "c": "1"}},
            ["no identical image in two splits"],
        ),
        ({"image_hashes": {"a": "1", "b": "2"}}, ["no identical image in two splits"]),
        ({"image_hashes": {"a": "1", "b": "1", "c": "3"}}, []),
    ],
)
def test_each_leak_fails_its_check(changes, expected) -> None:
    assert failed(**changes) == expected


def test_details_name_the_culprits() -> None:
    checks = leak_linter(**{**CLEAN, "fits": {"decoder": ["a", "c"]}})
    assert "1 found: c" in next(c["detail"] for c in checks if not c["ok"])


@pytest.mark.parametrize(("k", "expected"), [(2, 0.75), (5, 0.90), (10, 0.95)])
def test_cluster_oracle_scores_what_the_cluster_alone_gives(k, expected) -> None:
    generator = np.random.default_rng(k)
    centres = 4 * generator.standard_normal((k, 60))
    train = np.repeat(centres, 40, axis=0) + generator.standard_normal((40 * k, 60))
    test = np.repeat(centres, 300 // k, axis=0) + generator.standard_normal((300 // k * k, 60))
    oracle = cluster_oracle(train, test, k)
    assert oracle.expected_twoway == pytest.approx(expected)
    assert oracle.expected_twoway_sizes == pytest.approx(expected, abs=0.003)
    assert oracle.measured_twoway == pytest.approx(expected, abs=0.02)
    # Test images of one planted cluster are assigned together, and members are training images.
    assert len({tuple(g) for g in oracle.assigned.reshape(k, -1)}) == k
    assert sorted(np.concatenate(oracle.members).tolist()) == list(range(40 * k))
    for label in range(k):
        assert oracle.representatives[label] in oracle.members[label]
        np.testing.assert_allclose(
            oracle.centroids[label], train[oracle.members[label]].mean(axis=0), atol=1e-4
        )


def test_cluster_oracle_learns_nothing_from_test_images() -> None:
    generator = np.random.default_rng(0)
    train, test = generator.random((50, 8)), generator.random((20, 8))
    whole, part = cluster_oracle(train, test, 4), cluster_oracle(train, test[:3], 4)
    np.testing.assert_array_equal(whole.centroids, part.centroids)
    np.testing.assert_array_equal(whole.assigned[:3], part.assigned)
    with pytest.raises(InputError, match="clusters"):
        cluster_oracle(train, test, 51)


def test_mean_training_image() -> None:
    images = smooth_images(9, 8, 16)
    np.testing.assert_allclose(
        mean_training_image(images), images.astype(float).mean(axis=0) / 255, atol=1e-6
    )


@pytest.mark.parametrize("centred", [False, True])
def test_nearest_training_is_the_naive_search(centred, monkeypatch) -> None:
    monkeypatch.setattr("afterimage.evaluation.audit.CHUNK_ROWS", 9)
    generator = np.random.default_rng(9)
    train, decoded = generator.random((40, 6)), generator.random((11, 6))
    a, b = decoded, train
    if centred:
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    cosine = (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    index, value = nearest_training(decoded, train, centred=centred)
    np.testing.assert_array_equal(index, cosine.argmax(axis=1))
    np.testing.assert_allclose(value, cosine.max(axis=1), atol=1e-5)
