"""Retrieval: show the training image whose features are nearest to the decoded ones.

Bayesian reconstruction of natural images from human brain activity (Naselaris et al. 2009,
doi:10.1016/j.neuron.2009.09.006) with an empirical prior: the training images themselves, each as
likely as the decoder says. It can never show anything new, which makes it a baseline too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from afterimage.reconstruction.registry import RECONSTRUCTIONS, Material, Result
from afterimage.settings import Settings


class RetrievalSettings(Settings):
    """Show the nearest training image."""

    kind: Literal["retrieval"] = "retrieval"
    embedding: str = Field(
        "clip",
        description="block compared by correlation where the decoder gives no scores of its own",
    )


@RECONSTRUCTIONS.register("retrieval", RetrievalSettings)
class Retrieval:
    """Pick the training image with the highest score.

    The scores are those of the decoder (``training_scores``) where it gives them, else the
    correlation of predicted and true features over the training images, both centred by the mean
    training features.

    Parameters
    ----------
    settings : RetrievalSettings
    device : str
        Not used.
    """

    def __init__(self, settings: RetrievalSettings, device: str = "cpu") -> None:
        self._settings, self._device = settings, device

    def reconstruct(self, predicted: Mapping[str, np.ndarray], material: Material) -> Result:
        """Return the nearest training images and their indices and scores."""
        if "training_scores" in predicted:
            scores = predicted["training_scores"]
        else:
            gallery = material.training[self._settings.embedding]
            centre = gallery.mean(axis=0)
            scores = (
                _rows(predicted[self._settings.embedding] - centre) @ _rows(gallery - centre).T
            )
        nearest = scores.argmax(axis=1) if len(scores) else []
        images = [material.training_image(int(index)) for index in nearest]
        details = [
            {"training_index": int(index), "score": float(scores[row, index])}
            for row, index in enumerate(nearest)
        ]
        return images, details


def _rows(values: np.ndarray) -> np.ndarray:
    """Centre every row and scale it to length 1; a constant row becomes zeros."""
    centred = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(length > 0, length, 1.0)
