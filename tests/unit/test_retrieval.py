"""Retrieval shows the training image the decoder finds likeliest."""

from __future__ import annotations

import numpy as np

from afterimage.reconstruction.registry import Material
from afterimage.reconstruction.retrieval import Retrieval, RetrievalSettings


def _material(gallery):
    pictures = [np.full((2, 2, 3), index, np.uint8) for index in range(len(gallery))]
    return Material(list("ab"), 0, {}, {"clip": gallery}, lambda index: pictures[index], {})


def test_scores_of_the_decoder_come_first():
    gallery = np.eye(4, 6, dtype=np.float32)
    scores = np.array([[0, 3, 1, 2], [9, 3, 1, 2]], dtype=np.float32)
    images, details = Retrieval(RetrievalSettings()).reconstruct(
        {"clip": gallery[:2], "training_scores": scores}, _material(gallery)
    )
    assert [int(image[0, 0, 0]) for image in images] == [1, 0]
    assert [detail["training_index"] for detail in details] == [1, 0]


def test_without_scores_the_correlation_of_centred_features_decides():
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(30, 20)).astype(np.float32) + 5  # a mean that hides all differences
    noisy = gallery[[7, 23]] + 0.3 * rng.normal(size=(2, 20)).astype(np.float32)
    _, details = Retrieval(RetrievalSettings()).reconstruct({"clip": noisy}, _material(gallery))
    assert [detail["training_index"] for detail in details] == [7, 23]


def test_no_test_stimulus_gives_no_image():
    gallery = np.eye(4, 6, dtype=np.float32)
    images, details = Retrieval(RetrievalSettings()).reconstruct(
        {"clip": gallery[:0]}, _material(gallery)
    )
    assert images == [] and details == []
